// The operations page: which dead letter is meant, and the question before it is sent again.
"use strict";
(() => {
  const { actions, say, verdict, current, choose, rows } = window.fraudguard;
  const one = document.getElementById("verdict-replay");

  actions.replay = () => {
    if (!one) return;
    const row = current();
    if (!row) { say(one.dataset.none); return; }
    one.elements.ids.value = row.dataset.id;
    one.querySelector("b").textContent = one.dataset.ask.replace("{id}", row.dataset.id);
    verdict("replay");
  };
  actions.replay_all = () => verdict("replay_all");
  document.body.addEventListener("lettersChanged", () => verdict(""));
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "list" && !current()) choose(rows()[0], false);
  });
})();
