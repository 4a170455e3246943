"use strict";
// An error page that a reload should not count as one more redirect: take the counter out of the address.
(function () {
  const address = new URL(window.location.href);
  if (address.searchParams.has("redirects")) {
    address.searchParams.delete("redirects");
    window.history.replaceState({}, "", address);
  }
})();
