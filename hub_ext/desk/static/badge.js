"use strict";
// The number beside a link: how much waits for the reader. Without script there is none, and the page behind the link
// tells the same.
(function () {
  const EVERY = 60000;
  const badge = document.querySelector("[data-count]");
  if (!badge) {
    return;
  }

  function show(count) {
    badge.hidden = !count;
    badge.textContent = "";
    if (!count) {
      return;
    }
    const number = document.createElement("span");
    number.setAttribute("aria-hidden", "true");
    number.textContent = count > 99 ? "99+" : String(count);
    const words = document.createElement("span");
    words.className = "visually-hidden";
    words.textContent = " (" + badge.dataset.words.replace("%s", String(count)) + ")";
    badge.append(number, words);
  }

  async function look() {
    if (!document.hidden) {
      try {
        const answer = await fetch(badge.dataset.count, {
          headers: { Accept: "application/json", "X-CSRF-Token": window.hangangDesk.csrf() },
          cache: "no-store",
        });
        if (answer.ok) {
          show((await answer.json()).to_answer);
        }
      } catch {
        // The desk is away: the number that is shown stays.
      }
    }
    setTimeout(look, EVERY);
  }

  look();
})();
