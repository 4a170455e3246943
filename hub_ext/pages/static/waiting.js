"use strict";
// Pages that wait: look again after some seconds, or go on to the start that JupyterHub promised.
(function () {
  // Who has to wait goes on to the waiting page; the link on this page is for those without script.
  const room = document.querySelector("[data-waiting-room]");
  if (room) {
    window.location.replace(room.dataset.waitingRoom);
  }
  const waiting = document.querySelector("[data-reload]");
  if (waiting) {
    setTimeout(() => window.location.reload(), 1000 * Number(waiting.dataset.reload));
  }
  const start = document.getElementById("start");
  if (start) {
    // What stands behind the # never reaches the hub: hand it on.
    start.href += window.location.hash;
    // What is possible instead stands on the start page.
    document.querySelectorAll('.hg-refusal a[href^="#card-"]').forEach((other) => {
      other.href = start.href.split("#")[0] + other.hash;
    });
    if (start.dataset.after) {
      setTimeout(() => window.location.assign(start.href), 1000 * Number(start.dataset.after));
    }
  }
  window._jupyterhub_page_loaded = true;
})();
