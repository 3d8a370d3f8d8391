// The case page: its forms and what they are about, the case in words, older lines, files, and what changes meanwhile.
"use strict";
(() => {
  const { actions, all, say, verdict, act, openVerdict, heard, goTo } = window.fraudguard;
  const head = document.querySelector(".case-head");
  const chosenLine = () => document.querySelector(".line.at");

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

  // ---- a verdict about the whole case, or about the chosen line's alert alone
  function judge(name, line) {
    const form = document.getElementById(`verdict-${name}`);
    if (!form) return;
    form.elements.decision.value = line ? line.dataset.decision : "";
    form.classList.toggle("one", Boolean(line));
    const about = form.querySelector(".about");
    about.textContent = line ? about.dataset.line.replace("{n}", line.id.slice("line-".length)) : "";
    verdict(name);
  }
  function judgeLine(name) {
    const line = chosenLine();
    if (!document.getElementById(`verdict-${name}`)?.elements.decision) return;
    if (!line || !("outcome" in line.dataset)) say(head.dataset.noAlert);
    else judge(name, line);
  }

  // ---- another case: chosen from the list, then linked or merged for a reason
  const join = document.getElementById("verdict-join");
  if (join) {
    join.addEventListener("submit", (event) => event.preventDefault()); // its buttons send it, each to its own place
    const words = join.querySelector(".join-words");
    join.addEventListener("click", (event) => {
      const option = event.target.closest(".options button");
      if (!option) return;
      event.preventDefault();
      join.elements.other.value = option.value;
      join.elements.other_seen.value = option.dataset.version;
      join.querySelector(".join-with").textContent = option.dataset.said;
      const merge = join.querySelector("[data-merge]");
      if (merge) merge.hidden = !("open" in option.dataset);
      words.hidden = false;
      join.elements.body.required = true;
      join.elements.body.focus();
    });
  }

  // ---- a file goes as it is, checked before for what the server would refuse
  const attach = document.getElementById("verdict-attach");
  if (attach) {
    const field = attach.elements.file;
    const type = (file) => file.type || (file.name.endsWith(".txt") ? "text/plain" : "");
    attach.addEventListener("submit", async (event) => {
      event.preventDefault();
      const [file] = field.files;
      if (!file) return;
      if (file.size > Number(field.dataset.max)) { say(field.dataset.large); return; }
      if (!field.accept.split(",").includes(type(file))) { say(field.dataset.kind); return; }
      const headers = { "Content-Type": type(file), "HX-Request": "true", ...JSON.parse(document.body.getAttribute("hx-headers") || "{}") };
      const url = `${attach.action}?${new URLSearchParams({ name: file.name, seen: attach.elements.seen.value })}`;
      const button = attach.querySelector("button");
      button.disabled = true;
      try {
        const answer = await fetch(url, { method: "POST", body: file, headers });
        if (answer.ok) location.reload(); else say((await answer.text()).trim());
      } catch { say(field.dataset.failed); }
      button.disabled = false;
    });
  }

  // ---- how long the claim still holds
  const claim = document.getElementById("claim");
  if (claim && claim.dataset.until) setInterval(() => {
    const left_s = Math.round((Date.parse(claim.dataset.until) - Date.now()) / 1000);
    if (left_s <= 0) { claim.textContent = claim.dataset.over; claim.classList.add("over"); return; }
    const age = left_s < 60 ? claim.dataset.s.replace("{n}", left_s) : claim.dataset.min.replace("{n}", Math.floor(left_s / 60));
    claim.textContent = claim.dataset.left.replace("{age}", age);
    claim.classList.toggle("over", left_s < 120);
  }, 1000);

  // ---- told when somebody else changes this case, and when nobody can tell
  if (head) {
    const live = new EventSource("/v1/cases/live");
    live.addEventListener("case", (event) => {
      const change = JSON.parse(event.data);
      if (change.case_id === head.dataset.case && change.version > Number(head.dataset.version)) document.getElementById("changed").hidden = false;
    });
    setInterval(() => { if (live.readyState === EventSource.OPEN) heard(); }, 1000);
    addEventListener("pagehide", () => live.close());
  }

  // ---- lines: a click or j and k choose one
  function stepLine(by) {
    const lines = all(".line");
    const at = lines.indexOf(chosenLine());
    const to = lines[at < 0 ? (by > 0 ? 0 : lines.length - 1) : Math.min(lines.length - 1, Math.max(0, at + by))];
    if (to) goTo(to, "nearest");
  }
  document.addEventListener("click", (event) => {
    const line = event.target.closest(".line");
    if (line && !event.target.closest("a, button") && !String(getSelection())) goTo(line, "nearest");
  });
  Object.assign(actions, {
    note: () => verdict("note"),
    unmask: () => {
      const form = document.getElementById("verdict-unmask");
      if (form && !chosenLine()) say(form.dataset.none);
      else if (form) verdict("unmask");
    },
    tell: () => tell(),
    step_up: () => verdict("step_up"),
    join: () => verdict("join"),
    attach: () => verdict("attach"),
    renew: () => act("renew"),
    block: () => judge("block"),
    approve: () => judge("approve"),
    alert_block: () => judgeLine("block"),
    alert_approve: () => judgeLine("approve"),
    list: () => {
      if (!openVerdict()) judge("block");
      const boxes = all(".offer input[type=checkbox]", openVerdict() ?? undefined);
      const next = boxes.find((box) => !box.checked);
      if (next) { next.checked = true; next.focus(); }
    },
    line_down: () => stepLine(1),
    line_up: () => stepLine(-1),
    older: () => document.querySelector("[data-older]")?.click(),
    history: () => {
      const part = document.getElementById("history");
      if (!part) return;
      part.open = !part.open;
      part.querySelector("summary").focus();
    },
    reload: () => location.reload(),
  });
})();
