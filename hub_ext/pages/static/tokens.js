"use strict";
// The page of access tokens: make one, revoke one.
window.require(["jhapi"], function (JHAPI) {
  const api = new JHAPI(window.jhdata.base_url);
  const user = window.jhdata.user;
  const form = document.getElementById("request-token-form");
  const area = document.getElementById("token-area");

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const scopes = document.getElementById("token-scopes").value.split(/[\s,]+/).filter((scope) => scope);
    const wanted = {
      note: document.getElementById("token-note").value || "Requested via token page",
      expires_in: parseInt(document.getElementById("token-expiration-seconds").value, 10) || null,
    };
    if (scopes.length) {
      wanted.scopes = scopes;
    }
    api.request_token(user, wanted, {
      success: (reply) => {
        document.getElementById("token-result").textContent = reply.token;
        area.hidden = false;
        area.scrollIntoView({ block: "nearest" });
      },
    });
  });
  document.querySelectorAll(".revoke-token-btn").forEach((button) => {
    button.addEventListener("click", () => {
      const row = button.closest(".token-row");
      button.disabled = true;
      api.revoke_token(user, row.dataset.tokenId, { success: () => row.remove() });
    });
  });
  window._jupyterhub_page_loaded = true;
});
