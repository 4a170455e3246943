"use strict";
// Renews the parts of a page marked `data-live` while somebody looks at it, without moving what they are doing: an
// opened detail stays open, a chosen entry stays chosen, the focus stays where it is. Asks before `data-ask` buttons.
(function () {
  const EVERY = 5000;
  const SLOWEST = 60000;
  const shown = new Map();
  let mark = null; // of what was seen last, where the page has one: nothing is sent again that did not change
  let wait = EVERY;
  let seen = Date.now();

  // How old the numbers are, where renewing them has not worked for a while.
  function tellAge() {
    document.querySelectorAll("[data-age]").forEach((line) => {
      const age = Number(line.dataset.age) + Math.floor((Date.now() - seen) / 1000);
      const words = age < 60 ? line.dataset.seconds : line.dataset.minutes;
      line.textContent = words.replace("%s", age < 60 ? age : Math.floor(age / 60));
      line.hidden = age <= EVERY / 1000 + 2;
    });
  }

  function keep(old, fresh) {
    old.querySelectorAll("details[open]").forEach((detail) => {
      const key = detail.id || detail.querySelector("summary").textContent;
      fresh.querySelectorAll("details").forEach((other) => {
        if ((other.id || other.querySelector("summary").textContent) === key) {
          other.open = true;
        }
      });
    });
    old.querySelectorAll("select[id]").forEach((select) => {
      const other = fresh.querySelector("#" + CSS.escape(select.id));
      if (other && Array.from(other.options).some((option) => option.value === select.value)) {
        other.value = select.value;
      }
    });
  }

  // Where the focus is, as a way down from the part that is renewed: its elements are made anew.
  function wayTo(part, element) {
    const way = [];
    while (element && element !== part) {
      way.unshift(Array.prototype.indexOf.call(element.parentElement.children, element));
      element = element.parentElement;
    }
    return way;
  }

  // Whether everything that came is shown now.
  function renew(text) {
    let whole = true;
    const page = new DOMParser().parseFromString(text, "text/html");
    document.querySelectorAll("[data-live]").forEach((part) => {
      const fresh = page.getElementById(part.id);
      if (!fresh || fresh.innerHTML === (shown.get(part.id) || part.innerHTML)) {
        return;
      }
      const focused = document.activeElement;
      const inside = part.contains(focused) && focused !== part;
      if (inside && focused.matches("select, input, textarea")) {
        whole = false; // somebody is choosing: next time
        return;
      }
      const way = inside ? wayTo(part, focused) : null;
      shown.set(part.id, fresh.innerHTML); // as it came: what is kept open or chosen is no change
      keep(part, fresh);
      part.replaceChildren(...document.adoptNode(fresh).childNodes);
      if (way) {
        const again = way.reduce((element, place) => element && element.children[place], part);
        if (again) {
          again.focus({ preventScroll: true });
        }
      }
      part.dispatchEvent(new CustomEvent("hangang:renewed", { bubbles: true }));
    });
    return whole;
  }

  async function look() {
    if (document.hidden || !document.querySelector("[data-live]")) {
      return schedule();
    }
    try {
      const headers = { Accept: "text/html", "X-CSRF-Token": window.hangangDesk.csrf() };
      if (mark) {
        headers["If-None-Match"] = mark;
      }
      const from = document.querySelector("[data-live-from]"); // where a form was answered, the address is not the page's
      const address = from ? from.dataset.liveFrom : window.location.href;
      const answer = await fetch(address, { headers, cache: "no-store" });
      if (answer.ok || answer.status === 304) {
        if (answer.ok) {
          mark = renew(await answer.text()) ? answer.headers.get("ETag") : null;
        }
        wait = EVERY;
        seen = Date.now();
      } else if (answer.status === 401) {
        window.location.reload();
        return undefined;
      } else {
        wait = Math.min(SLOWEST, wait * 2);
      }
    } catch {
      wait = Math.min(SLOWEST, wait * 2); // the desk is away: what is shown stays
    }
    return schedule();
  }

  let timer = 0;
  function schedule() {
    clearTimeout(timer);
    timer = setTimeout(look, wait);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) {
      look();
    }
  });
  document.addEventListener("submit", (event) => {
    const words = event.submitter && event.submitter.dataset.ask;
    if (words && !window.confirm(words)) {
      event.preventDefault();
    }
  });
  setInterval(tellAge, 1000);
  schedule();
})();
