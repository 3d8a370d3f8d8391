// The rule editor: line numbers, marks under mistakes, tab; a backtest that ends with the page; forms that keys open.
"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);
  const text = () => byId("text");

  // ---- the text and what lies under it
  const offsetOf = (value, line, column) => {
    let at = 0;
    for (let n = 1; n < line; n += 1) at = value.indexOf("\n", at) + 1;
    return at + column - 1;
  };
  function draw() {
    const field = text();
    if (!field) return;
    const wrong = all("#checked [data-line]").map((one) => ({
      line: Number(one.dataset.line), column: Number(one.dataset.column), length: Number(one.dataset.length),
    })).sort((a, b) => a.line - b.line || a.column - b.column);
    const bad = new Set(wrong.map((one) => one.line));
    const lines = field.value.split("\n").map((line, n) => markedLine(line, wrong.filter((one) => one.line === n + 1)));
    document.querySelector(".marks").replaceChildren(...lines);
    const numbers = lines.map((_, n) => {
      const number = document.createElement("span");
      number.textContent = n + 1;
      if (bad.has(n + 1)) number.className = "bad";
      return number;
    });
    document.querySelector(".gutter").replaceChildren(...numbers);
    measure();
  }
  function markedLine(line, wrong) {
    const whole = document.createElement("div");
    let from = 0;
    for (const one of wrong) {
      const at = one.column - 1;
      if (at < from) continue;
      const mark = document.createElement("mark");
      mark.textContent = line.slice(at, at + one.length) || " ";
      whole.append(line.slice(from, at), mark);
      from = at + one.length;
    }
    whole.append(line.slice(from) || (from ? "" : "\u200b"));
    return whole;
  }
  // Long lines wrap, so a number is as high as its line; the field is as high as its text and never scrolls by itself.
  function measure() {
    const lines = all(".marks > div");
    if (!lines.length) return;
    all(".gutter span").forEach((number, n) => { number.style.height = `${lines[n].getBoundingClientRect().height}px`; });
    text().style.height = `${document.querySelector(".marks").scrollHeight}px`;
  }
  function change(value, at = null) {
    const field = text();
    field.value = value;
    if (at !== null) field.setSelectionRange(at, at);
    draw();
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  function goTo(place) {
    const field = text();
    const at = offsetOf(field.value, Number(place.dataset.line), Number(place.dataset.column));
    field.focus();
    field.setSelectionRange(at, at + Number(place.dataset.length));
    all(".marks > div")[Number(place.dataset.line) - 1]?.scrollIntoView({ block: "center" });
  }
  function indent(event) {
    const field = text();
    if (field.readOnly) return;
    event.preventDefault();
    const { selectionStart: from, selectionEnd: to, value } = field;
    const start = value.lastIndexOf("\n", from - 1) + 1;
    if (event.shiftKey) {
      const cut = value.slice(start, start + 2).match(/^ {0,2}/)[0].length;
      change(value.slice(0, start) + value.slice(start + cut), Math.max(start, from - cut));
    } else change(`${value.slice(0, from)}  ${value.slice(to)}`, from + 2);
  }

  // ---- what buttons do; keys press them
  function setState(state) {
    const value = text().value;
    change(value.replace(/^state:[ \t]*[^\s#]*/m, `state: ${state}`));
    const note = byId("note");
    if (note) note.focus();
  }
  function open(id, button) {
    all(".verdict").forEach((form) => { form.hidden = form.id !== id; });
    const form = byId(id);
    if (button.dataset.for) {
      form.elements.value.value = button.dataset.for;
      form.querySelector("[data-value]").textContent = button.dataset.for;
    }
    form.querySelector("input:not([type=hidden]), textarea").focus();
  }
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const { dataset } = button;
    if (dataset.focus) byId(dataset.focus).focus();
    else if (dataset.toState) setState(dataset.toState);
    else if (dataset.opens) open(dataset.opens, button);
    else if ("goto" in dataset) goTo(button.closest("[data-line]"));
    else if (dataset.act === "mistake") { const first = document.querySelector("#checked [data-line]"); if (first) goTo(first); }
    else if (dataset.act === "backtest") backtest();
    else if ("stops" in dataset) running?.abort();
    else if (dataset.rebase) { byId("draft").elements.base.value = dataset.rebase; byId("draft").requestSubmit(); }
    else if (dataset.fix) {
      const place = button.closest("[data-line]").dataset;
      const at = offsetOf(text().value, Number(place.line), Number(place.column));
      const value = text().value;
      text().focus();
      change(value.slice(0, at) + dataset.fix + value.slice(at + Number(place.length)), at + dataset.fix.length);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "text" || event.isComposing) return;
    if (event.key === "Tab") indent(event);
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId("note")?.focus(); }
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "text") draw();
    else if ("grows" in event.target.dataset) event.target.rows = Math.min(8, event.target.value.split("\n").length);
  });

  // ---- a backtest: lines of JSON while it runs; leaving, stopping or starting another ends it
  let running = null;
  async function backtest() {
    const out = byId("backtest");
    const form = byId("draft");
    if (!out || !form) return;
    running?.abort();
    const own = running = new AbortController();
    const begun = Date.now();
    const progress = document.createElement("p");
    const said = document.createElement("span");
    const stop = document.createElement("button");
    said.setAttribute("role", "status");
    said.textContent = out.dataset.starting;
    stop.type = "button";
    stop.className = "quiet";
    stop.dataset.stops = "";
    stop.textContent = out.dataset.stop;
    progress.append(said, " ", stop);
    out.replaceChildren(progress);
    out.scrollIntoView({ block: "nearest" });
    try {
      const headers = { ...JSON.parse(document.body.getAttribute("hx-headers") || "{}"), "HX-Request": "true" };
      const answer = await fetch("/console/rule-drafts/backtest", {
        method: "POST", headers, body: new URLSearchParams(new FormData(form)), signal: own.signal,
      });
      if (!answer.ok) { out.innerHTML = await answer.text(); return; }
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines.filter(Boolean)) {
          const step = JSON.parse(line);
          const seconds = Math.round((Date.now() - begun) / 1000);
          if ("taken" in step) said.textContent = out.dataset.running.replace("{n}", step.taken.toLocaleString("en")).replace("{s}", seconds);
          else { out.innerHTML = step.html; out.dataset.done = "yes"; } // our own template's, escaped there
        }
      }
      if (out.contains(progress)) out.replaceChildren(out.dataset.failed);
    } catch (error) {
      if (out.isConnected) out.replaceChildren(own.signal.aborted ? out.dataset.stopped : out.dataset.failed);
    } finally {
      if (running === own) running = null;
    }
  }
  addEventListener("pagehide", () => running?.abort());

  // ---- fragments: refusals are shown beside the text, not as a passing notice
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    if (target.id === "said" && (xhr.status === 409 || xhr.status === 422)) { event.detail.shouldSwap = true; event.detail.isError = false; }
    if (target.id === "pane") running?.abort();
  });
  for (const lost of ["htmx:timeout", "htmx:sendError"]) document.addEventListener(lost, (event) => {
    if (event.target.id === "draft") byId("said").textContent = event.target.dataset.lost;
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const { target } = event.detail;
    if (target.id === "checked") draw();
    if (target.id === "pane") { draw(); target.scrollTop = 0; }
  });
  document.body.addEventListener("listChanged", (event) => {
    const notice = byId("notice");
    const adding = byId("verdict-add");
    const { added, removed } = event.detail;
    if (notice && added !== undefined) notice.textContent = adding.dataset.added.replace("{n}", added);
    if (notice && removed) notice.textContent = byId("verdict-remove").dataset.removed;
    all(".verdict").forEach((form) => { form.hidden = true; form.reset(); });
    byId("main").focus();
  });
  addEventListener("resize", measure);
  const chosen = document.querySelector("[data-row].current");
  if (chosen) chosen.scrollIntoView({ block: "nearest" });
  draw();
})();
