// The model page: its two deeds, each behind a question.
"use strict";
(() => {
  const { actions, verdict } = window.fraudguard;
  actions.promote = () => verdict("promote");
  actions.roll_back = () => verdict("roll_back");
})();
