"use strict";
// The buttons of "My servers": stop, delete, add.
window.require(["jquery", "jhapi", "utils"], function ($, JHAPI, utils) {
  const base_url = window.jhdata.base_url;
  const user = window.jhdata.user;
  const api = new JHAPI(base_url);
  const words = JSON.parse(document.getElementById("hg-servers").dataset.words);
  const failed = document.getElementById("hg-failed");

  function busy(button, text) {
    const row = button.closest(".home-server-row");
    row.querySelectorAll(".btn").forEach((other) => {
      other.classList.add("disabled");
      other.setAttribute("aria-disabled", "true");
      if (other.tagName === "BUTTON") {
        other.disabled = true;
      }
    });
    if (text) {
      button.textContent = text;
    }
  }

  const outcome = {
    success: () => window.location.reload(),
    error: (answer) => {
      failed.textContent = words.failed.replace("%s", () => answer.responseJSON?.message || answer.statusText);
      failed.hidden = false;
      failed.scrollIntoView({ block: "nearest" });
      setTimeout(() => window.location.reload(), 4000);
    },
  };

  document.querySelectorAll(".stop-server").forEach((button) => {
    button.addEventListener("click", () => {
      const server = button.closest(".home-server-row").dataset.serverName;
      busy(button, words.stopping);
      if (server) {
        api.stop_named_server(user, server, outcome);
      } else {
        api.stop_server(user, outcome);
      }
    });
  });
  document.querySelectorAll(".delete-server").forEach((button) => {
    button.addEventListener("click", () => {
      const server = button.closest(".home-server-row").dataset.serverName;
      if (window.confirm(words.delete.replace("%s", () => button.dataset.name))) {
        busy(button);
        api.delete_named_server(user, server, outcome);
      }
    });
  });
  const form = document.getElementById("hg-add-server");
  if (form) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const shown = utils.sanitise_display_name(form.querySelector(".new-server-name").value);
      if (shown) {
        busy(form.querySelector(".new-server-btn"));
        const settings = { data: JSON.stringify({ display_name: shown }), ...outcome };
        api.create_named_server(user, utils.safe_slug(shown), settings);
      }
    });
  }
  window._jupyterhub_page_loaded = true;
});
