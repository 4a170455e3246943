"use strict";
// Says when the page came over an open connection, shows the password, fills in the name of a demo's person.
(function () {
  if (!window.isSecureContext) {
    document.getElementById("insecure-login-warning")?.classList.remove("hidden");
  }
  const form = document.getElementById("login_form");
  if (!form) {
    return;
  }
  const name = document.getElementById("username_input");
  const password = document.getElementById("password_input");
  const shown = document.getElementById("show_password");
  if (shown && password) {
    shown.hidden = false;
    shown.querySelector("input").addEventListener("change", (event) => {
      password.type = event.target.checked ? "text" : "password";
    });
  }
  document.querySelectorAll(".hg-demo__person").forEach((person) => {
    person.addEventListener("click", () => {
      name.value = person.dataset.name;
      password.focus();
    });
  });
  form.addEventListener("submit", () => {
    // After the browser has taken the fields: a second click would send them twice.
    setTimeout(() => document.getElementById("login_submit").setAttribute("disabled", ""), 0);
  });
})();
