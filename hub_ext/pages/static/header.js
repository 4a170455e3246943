"use strict";
// Runs in the head of every page, the hub's and the desk's, before anything is drawn: light or dark, and the menu.
(function () {
  // As chosen here (JupyterHub's own key), else as the system says.
  const KEY = "jupyterhub-bs-theme";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is forbidden here: then the system's choice it is
    }
  };
  const show = () =>
    document.documentElement.setAttribute("data-bs-theme", stored() || (dark.matches ? "dark" : "light"));
  show();
  dark.addEventListener("change", show);

  document.addEventListener("DOMContentLoaded", () => {
    const toggle = document.getElementById("dark-theme-toggle");
    if (toggle) {
      toggle.hidden = false;
      toggle.addEventListener("click", () => {
        const now = document.documentElement.getAttribute("data-bs-theme");
        try {
          localStorage.setItem(KEY, now === "dark" ? "light" : "dark");
        } catch {
          return;
        }
        show();
      });
    }
    const menu = document.querySelector(".hg-menu");
    if (menu) {
      document.addEventListener("click", (event) => {
        if (!menu.contains(event.target)) {
          menu.open = false;
        }
      });
      document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && menu.open) {
          menu.open = false;
          menu.querySelector("summary").focus();
        }
      });
    }
  });
})();
