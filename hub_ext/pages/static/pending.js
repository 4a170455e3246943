"use strict";
// The page of a start that is under way: shows each step as it comes, and goes to the server when it is ready.
// A hub that was restarted leaves the stream of steps open and silent, so the page also looks by itself.
window.require(["jquery", "jhapi"], function ($, JHAPI) {
  const panel = document.getElementById("hg-pending");
  const words = JSON.parse(panel.dataset.words);
  const message = document.getElementById("progress-message");
  const bar = document.getElementById("progress-bar");
  const log = document.getElementById("progress-log");
  const QUIET = 15000;
  let heard = Date.now();
  let over = false;

  function step(event) {
    const text = event.ready ? words.ready : event.message || "";
    return words[text] || text;
  }

  const steps = new EventSource(panel.dataset.progress);
  steps.onmessage = function (received) {
    heard = Date.now();
    const event = JSON.parse(received.data);
    if (event.progress !== undefined) {
      const done = Math.max(0, Math.min(100, Number(event.progress) || 0));
      bar.parentElement.setAttribute("aria-valuenow", String(done));
      bar.style.width = done + "%";
    }
    const line = document.createElement("li");
    if (event.html_message !== undefined && !event.ready) {
      // Written by the hub's own spawner, escaped there.
      message.innerHTML = event.html_message;
      line.innerHTML = event.html_message;
    } else {
      message.textContent = step(event);
      line.textContent = step(event);
    }
    log.append(line);
    if (event.ready) {
      steps.close();
      window.location.reload();
    }
    if (event.failed) {
      over = true;
      steps.close();
      bar.classList.add("bg-danger");
      // JupyterHub shows why on this very address once the start is over.
      setTimeout(() => window.location.reload(), 500);
    }
  };

  async function look() {
    if (over || Date.now() - heard < QUIET) {
      return;
    }
    try {
      const answer = await fetch(window.location.href, { redirect: "manual", cache: "no-store" });
      heard = Date.now();
      if (answer.type === "opaqueredirect" || !(await answer.text()).includes('id="hg-pending"')) {
        window.location.reload();
      }
    } catch {
      message.textContent = words.lost; // the hub itself is away: go on looking
    }
  }
  setInterval(look, 5000);

  const stop = document.getElementById("stop-server-btn");
  const status = document.getElementById("stop-server-status");
  stop.addEventListener("click", () => {
    const api = new JHAPI(window.jhdata.base_url);
    const server = panel.dataset.server;
    // From here on the way leads to the person's servers, even if the server is ready in this very moment.
    over = true;
    steps.close();
    stop.disabled = true;
    status.textContent = words.stopping;
    const done = {
      success: () => {
        status.textContent = words.stopped;
        window.location.assign(window.jhdata.base_url + "home");
      },
      error: (answer) => {
        setTimeout(() => window.location.reload(), 3000);
        status.textContent = answer.responseJSON?.message || answer.statusText;
      },
    };
    if (server) {
      api.stop_named_server(window.jhdata.user, server, done);
    } else {
      api.stop_server(window.jhdata.user, done);
    }
  });
  window._jupyterhub_page_loaded = true;
});
