"use strict";
// Runs in the head of every page, before anything is drawn: hands JupyterHub's scripts what they expect to find,
// and sets light or dark. Everything it needs stands in the page as JSON.
(function () {
  const page = JSON.parse(document.getElementById("hangang-page").textContent);

  window.jhdata = {
    base_url: page.base_url,
    prefix: page.prefix,
    user: page.user === null ? undefined : page.user,
    admin_access: page.admin_access,
    options_form: page.options_form,
    xsrf_token: page.xsrf_token,
  };
  if (page.api_page_limit !== null) {
    // JupyterHub's administration page looks for these two.
    window.api_page_limit = parseInt(page.api_page_limit, 10);
    window.base_url = page.base_url;
  }
  window.require.config({
    urlArgs: page.version_hash ? "v=" + page.version_hash : undefined,
    baseUrl: page.js,
    paths: {
      components: "../components",
      jquery: "../components/jquery/dist/jquery.min",
      "js-sha256": "../components/js-sha256/build/sha256.min",
      moment: "../components/moment/moment",
    },
  });

  // Light or dark: as chosen here (JupyterHub's own key), else as the system says.
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

  const relative = (element) => {
    const then = new Date(element.dateTime);
    if (isNaN(then)) {
      return;
    }
    const format = new Intl.RelativeTimeFormat(document.documentElement.lang, { numeric: "auto" });
    const seconds = Math.round((then - Date.now()) / 1000);
    const sizes = [["day", 86400], ["hour", 3600], ["minute", 60]];
    const [unit, size] = sizes.find(([, size]) => Math.abs(seconds) >= size) || ["second", 1];
    element.title = then.toLocaleString(document.documentElement.lang);
    element.textContent = format.format(Math.round(seconds / size), unit);
  };

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
    document.querySelectorAll("time[datetime]").forEach(relative);
  });
})();
