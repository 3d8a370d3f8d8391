// The queue's rows that are chosen, what is done to them at once, and its filters and order.
"use strict";
(() => {
  const { actions, leaving, all, say, verdict, act, current, rows, openVerdict } = window.fraudguard;
  const desk = document.getElementById("desk");
  const done = document.getElementById("done");
  const filters = document.getElementById("filters");
  const order = document.getElementById("order");
  const chosen = new Map(); // case to { version, account }, as its row was when it was chosen
  const many = desk && "many" in desk.dataset;

  // ---- choosing
  const seenOf = (row) => ({ version: row.dataset.version, account: row.dataset.account });
  function show() {
    rows().forEach((row) => {
      const on = chosen.has(row.dataset.id);
      row.classList.toggle("chosen", on);
      const box = row.querySelector("[data-pick]");
      if (box) box.checked = on;
    });
    desk.hidden = !chosen.size && !openVerdict();
    const row = current();
    document.getElementById("desk-what").textContent = chosen.size
      ? desk.dataset.chosen.replace("{n}", chosen.size)
      : row ? desk.dataset.current.replace("{account}", row.dataset.account) : desk.dataset.none;
  }
  function toggle(row) {
    if (!row?.querySelector("[data-pick]")) return;
    if (!chosen.delete(row.dataset.id)) chosen.set(row.dataset.id, seenOf(row));
    show();
  }

  // ---- what is done: to the chosen rows, or else to the current one
  function cases() {
    if (chosen.size) return [...chosen].map(([id, one]) => `${id}:${one.version}`);
    const row = current();
    return row ? [`${row.dataset.id}:${row.dataset.version}`] : [];
  }
  function send(action, words) {
    const list = cases();
    if (!list.length) { say(desk.dataset.none); return; }
    const one = list[0].lastIndexOf(":");
    const [url, values] = many
      ? ["/console/queue/bulk", { ...words, action, case: list }]
      : [`/console/cases/${list[0].slice(0, one)}/${action}`, { ...words, seen: list[0].slice(one + 1) }];
    htmx.ajax("POST", url, { source: desk, target: done, swap: many ? "innerHTML" : "none", values });
  }
  if (desk) {
    desk.addEventListener("submit", (event) => {
      event.preventDefault();
      send(event.target.dataset.action, Object.fromEntries(new FormData(event.target, event.submitter)));
      event.target.reset();
      verdict("");
    });
    document.addEventListener("htmx:afterRequest", (event) => {
      if (event.detail.elt !== desk || !event.detail.successful) return;
      chosen.clear();
      show();
    });
    document.addEventListener("change", (event) => {
      if (event.target.matches("[data-pick]")) toggle(event.target.closest("[data-row]"));
    });
    document.addEventListener("htmx:afterSettle", show);
    document.addEventListener("verdict", show);
    leaving.push(() => {
      if (done.firstElementChild) { done.replaceChildren(); return true; }
      if (!chosen.size) return false;
      chosen.clear();
      show();
      return true;
    });
  }
  const ask = (name) => { if (desk) verdict(name); };
  const each = (name, other) => { if (many && chosen.size) send(name, {}); else act(other ?? name); };
  Object.assign(actions, {
    select: () => toggle(current()),
    select_all: () => {
      const on = rows().filter((row) => chosen.has(row.dataset.id));
      rows().forEach((row) => { if (on.length === rows().length || !on.includes(row)) toggle(row); });
    },
    claim: () => each("claim"),
    snooze: () => each("snooze"),
    escalate: () => ask("escalate"),
    assign: () => ask("assign"),
    block: () => ask("block"),
    approve: () => ask("approve"),
    order: () => { order.selectedIndex = (order.selectedIndex + 1) % order.options.length; filters.requestSubmit(); },
  });

  // ---- an empty field asks nothing, and has no place in the address
  order.addEventListener("change", () => filters.requestSubmit());
  filters.addEventListener("submit", () => all("input, select", document).forEach((field) => {
    if (field.form === filters && !field.value) field.disabled = true;
  }));
  all("select", filters).forEach((field) => field.addEventListener("change", () => filters.requestSubmit()));
})();
