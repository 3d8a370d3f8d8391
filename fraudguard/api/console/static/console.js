// What the keys do, and what stays put while rows are read again. Which key does what is the table that `?` shows.
"use strict";
(() => {
  const place = document.body.dataset.place;
  const help = document.getElementById("help");
  const notice = document.getElementById("notice");
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const YEAR_S = 31536000;

  // ---- rows: one is current, and real focus is on its link
  const rows = () => all("[data-row]");
  const current = () => document.querySelector("[data-row].current");
  function choose(row, focus = true) {
    const before = current();
    if (before && before !== row) before.classList.remove("current");
    if (!row) return;
    row.classList.add("current");
    const link = row.querySelector("[data-open]");
    if (focus && link) link.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }
  function step(by) {
    const list = rows();
    const at = list.indexOf(current());
    choose(list[at < 0 ? 0 : Math.min(list.length - 1, Math.max(0, at + by))]);
  }

  // ---- lines that moved the score
  function walk(by) {
    const moved = all("[data-moved]");
    const at = moved.findIndex((line) => line.classList.contains("at"));
    const to = moved[at < 0 ? (by > 0 ? 0 : moved.length - 1) : Math.min(moved.length - 1, Math.max(0, at + by))];
    if (to) goTo(to);
  }
  function goTo(line) {
    all(".line.at").forEach((one) => one.classList.remove("at"));
    line.classList.add("at");
    line.focus({ preventScroll: true });
    line.scrollIntoView({ block: "center" });
  }

  // ---- choosing a verdict's reason
  const openVerdict = () => document.querySelector(".verdict:not([hidden])");
  function verdict(name) {
    const wanted = document.getElementById(`verdict-${name}`);
    all(".verdict").forEach((form) => { form.hidden = form !== wanted; });
    if (wanted) wanted.querySelector("input:not([type=hidden]), button").focus();
  }

  function act(name) {
    const own = current()?.querySelector(`[data-act="${name}"]`);
    const button = own || (place === "queue" ? null : document.querySelector(`[data-act="${name}"]`));
    if (button) button.click();
  }
  const undo = document.getElementById("undo");
  if (undo) setTimeout(() => undo.remove(), Math.max(0, Date.parse(undo.dataset.until) + 10000 - Date.now()));

  function say(text, keep_ms = 6000) {
    notice.textContent = text;
    clearTimeout(say.timer);
    if (keep_ms) say.timer = setTimeout(() => { notice.textContent = ""; }, keep_ms);
  }
  function keep(name, value) {
    document.cookie = `${name}=${value}; path=/console; max-age=${YEAR_S}; samesite=strict`;
  }
  function inbox(by) {
    const tabs = all(".tabs a");
    const at = tabs.findIndex((tab) => tab.hasAttribute("aria-current"));
    const to = tabs[at + by];
    if (to) to.click();
  }

  const actions = {
    help: () => (help.open ? help.close() : help.showModal()),
    filter: () => {
      const field = document.querySelector("[data-filter]");
      if (field) { field.focus(); field.select(); } else location.assign("/console/queue");
    },
    leave: () => {
      const form = openVerdict();
      if (help.open) help.close();
      else if (form) { verdict(""); document.getElementById("main").focus(); }
      else if (document.activeElement && document.activeElement.matches("input, select, textarea")) document.activeElement.blur();
      else if (place === "case") location.assign("/console/queue");
      else if (location.search) location.assign(location.pathname);
    },
    language: () => {
      keep("fraudguard_language", document.documentElement.lang.startsWith("zh") ? "en" : "zh");
      location.reload();
    },
    theme: () => {
      const root = document.documentElement;
      const dark = (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
      root.dataset.theme = dark ? "light" : "dark";
      keep("fraudguard_theme", root.dataset.theme);
    },
    down: () => step(1),
    up: () => step(-1),
    open: () => { const row = current(); if (row) row.querySelector("[data-open]").click(); },
    inbox_next: () => inbox(1),
    inbox_previous: () => inbox(-1),
    line_next: () => walk(1),
    line_previous: () => walk(-1),
    claim: () => act("claim"),
    snooze: () => act("snooze"),
    note: () => verdict("note"),
    unmask: () => {
      const form = document.getElementById("verdict-unmask");
      const line = document.querySelector(".line.at");
      if (form && !line) say(form.dataset.none);
      else if (form) verdict("unmask");
    },
    escalate: () => verdict("escalate"),
    tell: () => tell(),
    undo: () => { if (undo && undo.isConnected) undo.requestSubmit(); },
    block: () => verdict("block"),
    approve: () => verdict("approve"),
    next: () => { const button = document.querySelector('[data-do="next"]'); if (button) location.assign(button.dataset.href); },
  };

  // ---- the case in words: generated text, which enters the page as text alone
  function tell() {
    const story = document.getElementById("story");
    if (!story || story.dataset.told) return;
    story.dataset.told = "yes";
    story.querySelector("button").hidden = true;
    const told = story.querySelector(".told");
    const source = story.querySelector(".source");
    const items = new Map();
    const plain = (escaped) => new DOMParser().parseFromString(escaped, "text/html").documentElement.textContent;
    const stream = new EventSource(story.dataset.url);
    const on = (name, act) => stream.addEventListener(name, (event) => act(JSON.parse(event.data)));
    on("evidence", (data) => data.items.forEach((one) => items.set(one.number, one)));
    on("source", (data) => { source.textContent = data.by === "model" ? story.dataset.model.replace("{model}", data.model) : story.dataset.template; });
    on("text", (data) => told.append(plain(data.text)));
    on("link", (data) => {
      const item = items.get(data.number);
      const line = item && item.kind === "line" ? document.getElementById(`line-${item.ref}`) : null;
      const mark = document.createElement(line ? "a" : "span");
      mark.textContent = `[${data.number}]`;
      if (line) { mark.href = `#${line.id}`; mark.dataset.line = line.id; }
      else if (item) mark.title = item.ref;
      told.append(mark);
    });
    on("discard", () => told.replaceChildren());
    on("end", (data) => { stream.close(); if (!data.complete) source.textContent += ` ${story.dataset.cut}`; });
    stream.addEventListener("error", () => {
      stream.close(); // it would ask again by itself, and have everything told twice
      told.replaceChildren();
      source.textContent = story.dataset.failed;
      delete story.dataset.told;
      story.querySelector("button").hidden = false;
    });
  }

  const unmasking = document.getElementById("verdict-unmask");
  if (unmasking) unmasking.addEventListener("submit", (event) => {
    event.preventDefault();
    const line = document.querySelector(".line.at");
    const values = { body: unmasking.elements.body.value };
    const target = line.querySelector(".said, .memo") || line.querySelector(".paid");
    htmx.ajax("POST", `/console/decisions/${line.dataset.decision}/text`, { source: unmasking, target, swap: "outerHTML", values });
    unmasking.elements.body.value = "";
    verdict("");
  });

  // ---- the risk curve beside the timeline: one point a line, at the line's height
  const SVG = "http://www.w3.org/2000/svg";
  function drawCurve() {
    const list = document.getElementById("lines");
    if (!list) return;
    const frame = list.parentElement; // a list holds list items alone
    frame.querySelector(".curve")?.remove();
    const plots = all(".plot", list);
    if (!plots.length || !plots[0].clientWidth) return;
    const from = frame.getBoundingClientRect();
    const whole = list.getBoundingClientRect();
    const box = plots[0].getBoundingClientRect();
    const svg = document.createElementNS(SVG, "svg");
    const add = (name, values) => {
      const one = document.createElementNS(SVG, name);
      Object.entries(values).forEach(([key, value]) => one.setAttribute(key, value));
      svg.append(one);
    };
    for (const [key, value] of [["class", "curve"], ["width", box.width + 8], ["height", whole.height], ["aria-hidden", "true"]]) svg.setAttribute(key, value);
    [0, 0.5, 1].forEach((risk) => add("line", { class: "grid", x1: 4 + risk * box.width, x2: 4 + risk * box.width, y1: 0, y2: whole.height }));
    const points = all(".line", list).filter((line) => line.dataset.risk !== "").map((line) => {
      const at = line.querySelector(".plot").getBoundingClientRect();
      return { x: 4 + Number(line.dataset.risk) * box.width, y: at.top + at.height / 2 - whole.top, outcome: line.dataset.outcome };
    });
    add("polyline", { class: "path", points: points.map((one) => `${one.x.toFixed(1)},${one.y.toFixed(1)}`).join(" ") });
    points.forEach((one) => add("circle", { class: `point ${one.outcome || ""}`, cx: one.x.toFixed(1), cy: one.y.toFixed(1), r: one.outcome ? 3.5 : 2 }));
    frame.append(svg);
    // Its place depends on the window: an inline style is not allowed, but a script may set one.
    svg.style.left = `${box.left - from.left - 4}px`;
    svg.style.top = `${whole.top - from.top}px`;
  }
  drawCurve();
  addEventListener("resize", drawCurve);
  document.addEventListener("htmx:afterSettle", drawCurve);

  // ---- keys
  const table = new Map(all("[data-press]").map((one) => [one.dataset.press, one.dataset.action]));
  const starts = new Set([...table.keys()].filter((press) => press.includes(" ")).map((press) => press.split(" ")[0]));
  let begun = "";
  function pressed(event) {
    const named = (event.ctrlKey || event.metaKey ? "ctrl+" : "") + event.key;
    const whole = begun ? `${begun} ${named}` : named;
    begun = "";
    return whole;
  }
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.isComposing) return;
    const typing = event.target.matches("input, select, textarea");
    if (typing && event.key !== "Escape") return;
    const form = openVerdict();
    if (form && /^[1-9]$/.test(event.key)) {
      const button = form.querySelector(`[data-digit="${event.key}"]`);
      if (button) { event.preventDefault(); button.click(); }
      return;
    }
    if (event.key === "Enter" && event.target.closest("a, button, summary")) return;
    if (!begun && starts.has(event.key) && !event.ctrlKey && !event.metaKey) { begun = event.key; return; }
    const action = table.get(pressed(event));
    const link = action && document.querySelector(`[data-go="${action}"]`);
    if (!action) return;
    if (help.open && action !== "help" && action !== "leave") return;
    event.preventDefault();
    if (link) location.assign(link.href);
    else if (actions[action]) actions[action]();
    else act(action); // what a page adds is a button of that page
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) { actions[button.dataset.do](); return; }
    const ident = event.target.closest("[data-copy]");
    if (ident) { navigator.clipboard?.writeText(ident.dataset.copy).then(() => say(ident.dataset.copy, 2000)); return; }
    const mover = event.target.closest("[data-line]");
    if (mover) { event.preventDefault(); goTo(document.getElementById(mover.dataset.line)); return; }
    const row = event.target.closest("[data-row]");
    if (row && !event.target.closest("a, button")) { choose(row); row.querySelector("[data-open]").click(); }
  });
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest("[data-row]");
    if (row) choose(row, false);
  });

  // ---- rows read again: the current row stays current and stays where it is on the screen; new rows are marked
  let held = null;
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id !== "list" || !event.detail.shouldSwap) return;
    const row = current();
    const field = document.activeElement && document.activeElement.matches("input") ? document.activeElement : null;
    held = {
      id: row && row.dataset.id,
      top: row && row.getBoundingClientRect().top,
      known: new Set(rows().map((one) => one.dataset.id)),
      field: field && { id: field.id, value: field.value, at: field.selectionStart },
    };
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id !== "list" || !held) return;
    const { id, top, known, field } = held;
    held = null;
    rows().forEach((row) => { if (known.size && !known.has(row.dataset.id)) row.classList.add("fresh-row"); });
    const row = id && rows().find((one) => one.dataset.id === id);
    if (row) {
      choose(row, !field);
      scrollBy(0, row.getBoundingClientRect().top - top);
    }
    const again = field && document.getElementById(field.id);
    if (again) { again.value = field.value; again.focus(); again.setSelectionRange(field.at, field.at); }
  });

  // ---- what changes is read at once, then a pause apart; htmx's throttle would drop what is heard during the pause
  const PAUSE_MS = 1000;
  let resting = false;
  let missed = false;
  function readAgain() {
    if (resting) { missed = true; return; }
    htmx.trigger("#list", "stale");
    resting = true;
    setTimeout(() => {
      resting = false;
      if (missed) { missed = false; readAgain(); }
    }, PAUSE_MS);
  }
  document.addEventListener("htmx:sseOpen", (event) => {
    for (const name of ["case", "refetch"]) event.detail.source.addEventListener(name, readAgain);
  });

  // ---- how fresh the page is
  const fresh = document.getElementById("fresh");
  let seen = Date.now();
  document.addEventListener("htmx:afterRequest", (event) => { if (event.detail.successful) seen = Date.now(); });
  if (fresh) setInterval(() => {
    const age_s = Math.round((Date.now() - seen) / 1000);
    const stale = age_s > 25;
    const age = age_s < 60 ? fresh.dataset.s.replace("{n}", age_s) : fresh.dataset.min.replace("{n}", Math.round(age_s / 60));
    fresh.classList.toggle("stale", stale);
    fresh.textContent = stale ? fresh.dataset.stale.replace("{age}", age) : fresh.dataset.fresh;
  }, 1000);
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status !== 401) say(new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html").body.textContent.trim());
  });

  document.body.addEventListener("caseChanged", () => { if (place === "case") location.reload(); });

  const again = document.querySelector("[data-again]");
  if (again) setTimeout(() => location.reload(), Number(again.dataset.again) * 1000);
  if (place === "queue" || place === "decisions") choose(rows()[0], !document.activeElement.matches("input"));
  window.fraudguard = { actions, place, all, say, verdict, current, choose, rows, openVerdict };
})();
