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
  // A hub that was killed in a start has it started again by itself: so long a server may be missing.
  const MISSING = 40000;
  let heard = Date.now();
  let missing = 0;
  let away = false;
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

  // Whether JupyterHub would say on this very address why the start failed.
  async function failed() {
    const answer = await fetch(window.location.href, { redirect: "manual", cache: "no-store" });
    return answer.type !== "opaqueredirect" && !answer.ok;
  }

  async function found(server) {
    if (server?.ready) {
      window.location.reload();
    } else if (server) {
      // The start goes on: its steps come from the hub that runs now, and from no stream that was cut off.
      if (missing || away) {
        window.location.reload();
      }
      heard = Date.now();
    } else if (await failed()) {
      window.location.reload();
    } else {
      missing = missing || Date.now();
      message.textContent = words.lost;
      if (Date.now() - missing > MISSING) {
        window.location.reload();
      }
    }
  }

  function look() {
    if (over || Date.now() - heard < QUIET) {
      return;
    }
    new JHAPI(window.jhdata.base_url).get_user(window.jhdata.user, {
      success: (user) => found(user.servers[panel.dataset.server]).catch(lost),
      error: lost,
    });
  }

  // The hub itself is away: go on looking.
  function lost() {
    away = true;
    message.textContent = words.lost;
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
