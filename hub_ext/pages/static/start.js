"use strict";
// The start page: each card follows what is chosen on it. All states stand in the page as JSON, from one snapshot;
// nothing is asked for anew, so that two cards never show numbers of two moments.
(function () {
  // Who has to wait goes on to the waiting page; the link on this page is for those without script.
  const room = document.querySelector("[data-waiting-room]");
  if (room) {
    window.location.replace(room.dataset.waitingRoom);
  }
  const form = document.getElementById("spawn_form");
  const page = document.getElementById("hg-start");
  const table = page && JSON.parse(document.getElementById("hg-start-table").textContent);

  document.querySelector(".spawn-error-msg")?.focus();

  // One click starts once; the button that was clicked must still be sent, so it is not disabled before that.
  form?.addEventListener("submit", (event) => {
    if (form.dataset.sent) {
      event.preventDefault();
      return;
    }
    form.dataset.sent = "yes";
    form.setAttribute("aria-busy", "true");
    if (event.submitter) {
      event.submitter.classList.add("hg-busy");
      event.submitter.textContent = form.dataset.busy;
    }
  });
  // Back to this page from the browser's memory: it can be sent again.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) {
      window.location.reload();
    }
  });
  if (!table) {
    return;
  }

  function follow(card) {
    const entry = table.cards[card.dataset.card];
    const fields = entry.fields.map((name) => card.querySelector(`[name="${CSS.escape(name)}"]`));
    const instead = card.querySelector('[data-part="instead"]');
    const part = (name) => card.querySelector(`[data-part="${name}"]`);
    const at = (values) => table.states[entry.states[JSON.stringify(values)]];

    function text(name, value) {
      const element = part(name);
      if (element.textContent !== value) {
        element.textContent = value;
      }
      element.hidden = !value;
    }

    function show() {
      const values = fields.map((field) => field.value);
      const state = at(values);
      const chip = part("chip");
      card.dataset.kind = state.kind;
      chip.className = "hg-chip hg-chip--" + state.kind;
      chip.querySelector("path").setAttribute("d", table.icons[state.kind]);
      chip.querySelector("span").textContent = state.chip;
      text("sizes", entry.sizes[JSON.stringify(values.slice(1, -1))]);
      text("price", state.price);
      text("until", state.until);
      part("until").title = state.exact;
      text("hint", state.hint);
      text("cut", state.cut);
      text("sentence", state.sentence);
      text("next", state.next);
      if (instead) {
        instead.hidden = state.startable;
      }
      const button = part("button");
      button.disabled = !state.ask;
      button.textContent = state.ask || state.button;
      // Where only some choices are possible now, the others say so; all else as it is.
      fields.forEach((field, place) => {
        const options = [...(field.options || [])];
        const led = options.map((option) => at([...values.slice(0, place), option.value, ...values.slice(place + 1)]));
        const differ = led.some((there) => there.startable);
        for (const [index, option] of options.entries()) {
          const there = led[index];
          const label = option.dataset.label + (there.startable || !differ ? "" : ` (${there.button})`);
          if (option.textContent !== label) {
            option.textContent = label;
          }
        }
      });
    }
    fields.forEach((field) => field.addEventListener("change", show));
    show();
  }
  page.querySelectorAll("[data-card]").forEach(follow);

  // How old the numbers are, while the page stays open.
  const shown = performance.now() - 1000 * Number(page.dataset.age);
  const age = document.getElementById("hg-age");
  function tell() {
    const seconds = Math.floor((performance.now() - shown) / 1000);
    if (seconds > table.fresh) {
      const told = seconds < 60 ? [table.age.seconds, seconds - (seconds % 5)] : [table.age.minutes, Math.floor(seconds / 60)];
      age.querySelector("span").textContent = told[0].replace("{count}", told[1]);
      age.hidden = false;
    }
  }
  tell();
  setInterval(tell, 1000);
})();
