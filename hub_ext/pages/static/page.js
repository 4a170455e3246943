"use strict";
// Runs in the head of every page: hands JupyterHub's scripts what they expect to find. Everything it needs stands in the
// page as JSON.
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
    document.querySelectorAll("time[datetime]").forEach(relative);
  });
})();
