// The decision explorer's search box: Enter asks, shift and Enter breaks the line, an example fills it in.
"use strict";
(() => {
  const { actions } = window.fraudguard;
  const form = document.getElementById("search");
  const where = document.getElementById("where");
  where.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
    where.blur();
  });
  document.addEventListener("click", (event) => {
    const example = event.target.closest("[data-example]");
    if (!example) return;
    where.value = example.textContent;
    where.focus();
    where.dispatchEvent(new Event("input", { bubbles: true }));
  });
  actions.more = () => document.querySelector("[data-more]")?.click();
})();
