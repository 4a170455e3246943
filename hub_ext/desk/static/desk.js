"use strict";
// What other scripts of the desk use.
(function () {
  window.hangangDesk = {
    csrf: () => {
      const held = document.querySelector('meta[name="hangang-csrf"]');
      return held ? held.content : "";
    },
  };
})();
