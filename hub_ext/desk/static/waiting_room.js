"use strict";
// The waiting room changes as the ticket changes, and goes to the server when its turn comes.
(function () {
  const room = document.getElementById("hg-room");
  const address = room.dataset.address;
  const part = (name) => room.querySelector(`[data-part="${name}"]`);
  const AROUND_SECONDS = 30;
  const SLOWEST = 8000;
  const SILENT = 22000; // two heartbeats of the desk

  const put = (name, text) => {
    const place = part(name);
    if (place && place.textContent !== text) {
      place.textContent = text;
      place.hidden = text === "";
    }
  };

  const show = (line) => {
    for (const name of ["heading", "when", "sentence", "next_step", "taken_back"]) {
      put(name, line[name]);
    }
    part("when").title = line.when_exact;
    document.title = line.heading;
    const bar = part("progress");
    bar.toggleAttribute("hidden", line.progress === null);
    bar.querySelector(".hg-bar__used").setAttribute("width", line.progress || 0);
  };

  const trouble = (shown) => {
    part("trouble").hidden = !shown;
  };

  // -- what changes about the ticket ---------------------------------------------------------------------------

  let source = null;
  let pause = 2000;
  let silence = 0;

  // A proxy may keep the stream open for ever when the desk behind it is gone.
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(() => {
      source.close();
      look();
    }, SILENT);
  };

  const listen = () => {
    heard();
    source = new EventSource(`${address}/events?_csrf=${encodeURIComponent(room.dataset.csrf)}`);
    source.addEventListener("open", () => {
      pause = 2000;
      heard();
    });
    source.addEventListener("beat", heard);
    source.addEventListener("line", (event) => {
      heard();
      trouble(false);
      show(JSON.parse(event.data));
    });
    source.addEventListener("away", () => {
      heard();
      trouble(true);
    });
    for (const name of ["turn", "over", "signed-out"]) {
      source.addEventListener(name, () => {
        clearTimeout(silence);
        source.close();
        window.location.assign(address);
      });
    }
    source.addEventListener("error", () => {
      // The browser tries again by itself, but for an answer that is no stream: then look at the page itself.
      if (source.readyState === EventSource.CLOSED) {
        clearTimeout(silence);
        trouble(true);
        lookLater();
      }
    });
  };

  // Soon again, since a turn may come meanwhile; and not all pages of a desk that comes back at one moment.
  const lookLater = () => {
    setTimeout(() => look(), pause * (0.75 + Math.random() / 2));
    pause = Math.min(SLOWEST, pause * 2);
  };

  const look = async () => {
    trouble(true);
    try {
      const answer = await fetch(address, { method: "GET", headers: headers(), redirect: "manual" });
      if (answer.ok) {
        trouble(false);
        listen();
        return;
      }
      if (answer.status === 401 || answer.status === 404 || answer.type === "opaqueredirect") {
        window.location.reload();
        return;
      }
    } catch {
      // away: tried again below
    }
    lookLater();
  };

  const headers = () => ({ "X-CSRF-Token": room.dataset.csrf, Accept: "text/html" });

  // -- what is about others ------------------------------------------------------------------------------------

  const around = async () => {
    const place = document.getElementById("room-around");
    // Nobody looks, or somebody is about to press a button there.
    if (!document.hidden && !place.contains(document.activeElement)) {
      try {
        const answer = await fetch(`${address}/around`, { headers: headers() });
        if (answer.ok) {
          place.innerHTML = await answer.text();
        } else if (answer.status === 404) {
          window.location.assign(address); // nobody waits here any more
          return;
        }
      } catch {
        // the next time, then
      }
    }
    again();
  };
  const again = () => setTimeout(() => around(), 1000 * AROUND_SECONDS * (0.75 + Math.random() / 2));

  // A button was pressed: its answer is where the page goes, whatever is heard of the ticket meanwhile.
  room.addEventListener("submit", () => {
    clearTimeout(silence);
    source.close();
  });

  listen();
  again();
  window.addEventListener("pagehide", () => {
    clearTimeout(silence);
    source.close();
  });
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) {
      window.location.reload();
    }
  });
})();
