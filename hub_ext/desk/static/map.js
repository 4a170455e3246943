"use strict";
// The cells of the map: one stop of the Tab key for each machine's class, arrows within it; what is said of a cell
// shows beside it for those who point or move to it.
(function () {
  const said = document.getElementById("hd-said");
  if (!said) {
    return;
  }

  function tell(cell) {
    said.textContent = cell.getAttribute("aria-label");
    cell.closest(".hd-class").append(said);
    said.hidden = false;
  }

  document.addEventListener("keydown", (event) => {
    const cell = event.target.closest && event.target.closest(".hd-cell");
    if (!cell) {
      return;
    }
    const cells = Array.from(cell.parentElement.querySelectorAll(".hd-cell"));
    const here = cells.indexOf(cell);
    const to = {
      ArrowRight: here + 1,
      ArrowDown: here + 1,
      ArrowLeft: here - 1,
      ArrowUp: here - 1,
      Home: 0,
      End: cells.length - 1,
    }[event.key];
    if (to === undefined || !cells[to]) {
      return;
    }
    event.preventDefault();
    cells.forEach((other) => other.setAttribute("tabindex", other === cells[to] ? "0" : "-1"));
    cells[to].focus();
  });
  document.addEventListener("focusin", (event) => {
    const cell = event.target.closest(".hd-cell");
    if (cell) {
      tell(cell);
    } else {
      said.hidden = true;
    }
  });
  document.addEventListener("click", (event) => {
    const cell = event.target.closest(".hd-cell");
    if (cell) {
      tell(cell); // a finger points by touching
    }
  });
  // The part that holds it may be made anew: it is put back where it began.
  const home = said.parentElement;
  document.addEventListener("hangang:renewed", () => {
    if (!said.isConnected) {
      said.hidden = true;
      home.append(said);
      const cell = document.activeElement && document.activeElement.closest(".hd-cell");
      if (cell) {
        tell(cell);
      }
    }
  });
})();
