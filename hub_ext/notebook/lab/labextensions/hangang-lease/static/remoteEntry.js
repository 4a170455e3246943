// The lab's part of a server's time: a chip in the status bar, and a bar above it when it matters.
//
// What is shown, and in which words, is decided by the server's part (hub_ext/notebook/lab/policy.py); this file draws
// it, counts down, and asks again. It is written by hand as what JupyterLab loads of a prebuilt extension: a container
// with `init` and `get`. It takes the lab's own modules from the lab and brings nothing along, so that it is built and
// installed by copying it.
//
// What it uses of the lab (shell areas, status bar, notifications, translator, server settings) is JupyterLab 4's public
// API.

(() => {
  "use strict";

  const NAME = "hangang-lease";
  const SLOWEST = 60; // seconds between two looks while the server does not answer
  const SPOKEN = [300, 60]; // a screen reader hears these seconds, once each; the rest it can read
  let shared = null;

  /** One of the lab's own modules: the very instance the lab runs. */
  async function moduleOf(name) {
    const versions = Object.values((shared && shared[name]) || {});
    if (!versions.length) {
      throw new Error(`${NAME}: this JupyterLab does not share ${name}`);
    }
    const version = versions.find((each) => each.loaded) || versions[0];
    return (await version.get())();
  }

  // ---- small parts of the page ---------------------------------------------------------------------------------

  const STYLE = `
.hangang-bar { background: var(--jp-layout-color1); color: var(--jp-ui-font-color0); border-top: 1px solid var(--jp-border-color1);
  overflow: hidden; font-family: var(--jp-ui-font-family); font-size: var(--jp-ui-font-size1); }
.hangang-bar-inside { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 12px; padding: 5px 12px;
  border-left: 6px solid var(--jp-warn-color1); box-sizing: border-box; max-width: 100vw; }
.hangang-bar[data-mood="notice"] .hangang-bar-inside { border-left-color: var(--jp-error-color1); }
.hangang-bar-text { flex: 1 1 16em; min-width: 0; line-height: 1.4; word-break: keep-all; overflow-wrap: anywhere; }
.hangang-bar-text small { display: block; font-size: var(--jp-ui-font-size0); }
.hangang-bar-left { font-weight: 600; font-variant-numeric: tabular-nums; white-space: nowrap; }
.hangang-bar button, .hangang-bar a { font: inherit; line-height: 1.4; padding: 3px 10px; border-radius: 4px; cursor: pointer;
  color: var(--jp-ui-font-color0); background: var(--jp-layout-color2); border: 1px solid var(--jp-ui-font-color2);
  text-decoration: none; white-space: nowrap; }
.hangang-bar button:hover, .hangang-bar a:hover { background: var(--jp-layout-color3); }
.hangang-bar button:focus-visible, .hangang-bar a:focus-visible, .hangang-chip:focus-visible {
  outline: 2px solid var(--jp-ui-font-color0); outline-offset: 1px; }
.hangang-bar-links { display: contents; }
.hangang-bar button[aria-disabled="true"] { cursor: progress; }
.hangang-chip { font: inherit; display: flex; align-items: center; gap: 4px; height: 100%; padding: 0 6px; cursor: pointer;
  color: var(--jp-ui-font-color1); background: none; border: 0; white-space: nowrap; }
.hangang-chip:hover { background: var(--jp-layout-color3); }
.hangang-unseen { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap; }
`;

  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    if (text) {
      made.textContent = text;
    }
    return made;
  }

  /** `9:58`, `1:02:03`. */
  function clock(seconds) {
    const two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor((seconds % 3600) / 60);
    const rest = two(seconds % 60);
    return hours ? `${hours}:${two(minutes)}:${rest}` : `${minutes}:${rest}`;
  }

  /** Change a text only where it changes: a screen reader reads what is written. */
  function write(node, text) {
    if (node.textContent !== text) {
      node.textContent = text;
    }
  }

  // ---- the bar ---------------------------------------------------------------------------------------------------

  class Bar {
    constructor(widget, onExtend, onDone) {
      this.widget = widget;
      this.node = widget.node;
      this.onExtend = onExtend;
      this.onDone = onDone;
      this.busy = false;
      this.answer = "";
      this.spoken = new Set();
      this.over = false;
      this.node.classList.add("hangang-bar");
      this.node.setAttribute("role", "region");
      this.inside = element("div", "hangang-bar-inside");
      this.text = element("div", "hangang-bar-text");
      this.sentence = element("span", "");
      this.note = element("small", "");
      this.left = element("span", "hangang-bar-left");
      this.left.setAttribute("role", "timer");
      this.extend = element("button", "");
      this.extend.type = "button";
      this.extend.addEventListener("click", () => this.press());
      this.links = element("span", "hangang-bar-links");
      this.polite = element("div", "hangang-unseen");
      this.polite.setAttribute("role", "status");
      this.urgent = element("div", "hangang-unseen");
      this.urgent.setAttribute("role", "alert");
      this.text.append(this.sentence, this.note);
      this.inside.append(this.text, this.left, this.extend, this.links);
      this.node.append(this.inside);
      // Outside the bar: a live region that is hidden with it would not be heard.
      document.body.append(this.polite, this.urgent);
      new ResizeObserver(() => this.fit()).observe(this.inside);
      widget.hide();
    }

    /** The lab lays its areas out by their smallest height. */
    fit() {
      const height = `${this.inside.offsetHeight + 1}px`;
      if (this.inside.offsetHeight && this.node.style.minHeight !== height) {
        this.node.style.minHeight = height;
        this.node.style.maxHeight = height;
        this.widget.parent?.fit();
      }
    }

    /** Above the status line, and close to it, whichever of the two the lab added first. */
    place() {
      const area = this.widget.parent;
      if (!area?.insertWidget) {
        return;
      }
      const top = area.direction === "bottom-to-top" ? area.widgets.length - 1 : 0;
      if (area.widgets[top] !== this.widget) {
        area.insertWidget(top, this.widget);
      }
      area.spacing = 0;
    }

    async press() {
      if (this.busy) {
        return;
      }
      this.busy = true;
      this.extend.setAttribute("aria-disabled", "true");
      write(this.note, this.view.words.working);
      this.answer = await this.onExtend(this.view);
      this.busy = false;
      this.extend.removeAttribute("aria-disabled");
      if (this.matters) {
        this.draw(this.view);
        write(this.polite, this.answer);
      } else {
        this.onDone(this.answer);
        this.answer = "";
      }
    }

    get matters() {
      return Boolean(this.view) && (this.view.mood === "notice" || this.view.mood === "soon");
    }

    draw(view) {
      const before = this.view;
      this.view = view;
      if (this.matters && (!before || before.mood !== view.mood || before.sentence !== view.sentence)) {
        this.spoken.clear();
        write(view.mood === "notice" ? this.urgent : this.polite, view.sentence);
      }
      if (!this.matters) {
        write(this.urgent, "");
        this.widget.hide();
        return;
      }
      this.over = false;
      this.node.dataset.mood = view.mood;
      this.node.lang = view.language;
      this.polite.lang = this.urgent.lang = view.language;
      this.node.setAttribute("aria-label", view.words.region);
      write(this.sentence, view.sentence);
      if (!this.busy) {
        write(this.note, [this.answer, view.stale].filter(Boolean).join(" "));
      }
      this.extend.hidden = !view.extend;
      write(this.extend, view.extend ? view.extend.label : "");
      this.drawLinks(view.links);
      this.place();
      this.widget.show();
      this.fit();
    }

    drawLinks(links) {
      const drawn = JSON.stringify(links);
      if (this.drawn === drawn) {
        return;
      }
      this.drawn = drawn;
      this.links.replaceChildren(
        ...links.map((link) => {
          const made = element("a", "", link.label);
          made.href = link.href;
          made.target = "_blank";
          made.rel = "noopener";
          return made;
        }),
      );
    }

    /** The time is over, and the server does not answer any more. */
    end() {
      this.over = true;
      this.extend.hidden = true;
      write(this.note, "");
      write(this.left, this.view.words.over);
      write(this.polite, this.view.words.over);
      this.fit();
    }

    tick(seconds) {
      if (this.over) {
        return;
      }
      const text = this.view.words.left.replace("{time}", clock(seconds));
      write(this.left, text);
      for (const mark of SPOKEN) {
        if (seconds <= mark && seconds > mark - 30 && !this.spoken.has(mark)) {
          this.spoken.add(mark);
          write(this.polite, text);
        }
      }
    }
  }

  // ---- the plugin -----------------------------------------------------------------------------------------------

  function start(app, modules, statusBar, translator) {
    const { Widget } = modules.widgets;
    const { ServerConnection, URLExt } = modules;
    const settings = app.serviceManager.serverSettings;
    const chosen = translator ? String(translator.languageCode || "") : "";
    const lab = /^ko/i.test(chosen) ? { lab: "ko" } : {};
    let view = null;
    let endsAt = null; // by this page's own steady clock, in milliseconds
    let failures = 0;
    let timer = 0;

    async function ask(path, query, options) {
      const response = await ServerConnection.makeRequest(
        URLExt.join(settings.baseUrl, "hangang", path) + URLExt.objectToQueryString({ ...lab, ...query }),
        options || {},
        settings,
      );
      if (!response.ok) {
        throw new Error(`${NAME}: ${path} answered ${response.status}`);
      }
      return response.json();
    }

    document.head.append(Object.assign(document.createElement("style"), { textContent: STYLE }));
    const barWidget = new Widget();
    barWidget.id = `${NAME}-bar`;
    const extend = async (shown) => {
      try {
        const answer = await ask("extend", {}, {
          method: "POST",
          body: JSON.stringify({ minutes: shown.extend.minutes }),
        });
        take(answer.view);
        return answer.sentence;
      } catch (problem) {
        console.warn(problem);
        return shown.words.lost;
      }
    };
    // The bar has gone: there is time again. Say so elsewhere, and let the keyboard go on where it was.
    const done = (sentence) => {
      modules.Notification.success(sentence, { autoClose: 8000 });
      app.shell.currentWidget?.activate();
    };
    const bar = new Bar(barWidget, extend, done);
    app.shell.add(barWidget, "bottom");

    const chip = element("button", "hangang-chip");
    chip.type = "button";
    chip.append(element("span", "", "◐"), element("span", ""));
    chip.firstChild.setAttribute("aria-hidden", "true");
    if (statusBar) {
      const chipWidget = new Widget();
      chipWidget.id = `${NAME}-chip`;
      chipWidget.node.append(chip);
      chipWidget.hide();
      chip.addEventListener("click", () => view?.links.length && window.open(view.links.at(-1).href, "_blank", "noopener"));
      // The bar shows its items anew now and then: only where there is something to say.
      const isActive = () => Boolean(view?.chip);
      statusBar.registerStatusItem(`${NAME}:chip`, { item: chipWidget, align: "right", rank: 900, priority: 1, isActive });
      bar.chip = chipWidget;
    }

    function take(next) {
      view = next;
      endsAt = next.left === null ? null : performance.now() + next.left * 1000;
      if (next.mood === "off") {
        return;
      }
      if (bar.chip) {
        write(chip.lastChild, next.chip);
        chip.lang = next.language;
        chip.title = [next.sentence, ...next.details].filter(Boolean).join("\n");
        bar.chip.setHidden(!next.chip);
      }
      bar.draw(next);
      tick();
    }

    function tick() {
      if (endsAt !== null && (view.mood === "notice" || view.mood === "soon")) {
        bar.tick(Math.max(0, Math.ceil((endsAt - performance.now()) / 1000)));
      }
    }

    async function look(anew) {
      window.clearTimeout(timer);
      timer = 0;
      if (document.hidden) {
        return; // `visibilitychange` looks again
      }
      const token = (timer = window.setTimeout(look, SLOWEST * 1000));
      let pause = 0;
      try {
        const next = await ask("lease", anew === true ? { now: "1" } : {});
        failures = 0;
        pause = next.again;
        if (!bar.busy) {
          take(next);
        }
        if (!pause) {
          window.clearTimeout(timer);
          return;
        }
      } catch (problem) {
        failures += 1;
        pause = Math.min(SLOWEST, 5 * 2 ** failures);
        if (failures === 1) {
          console.warn(problem);
        }
        if (bar.matters && endsAt !== null && performance.now() >= endsAt) {
          bar.end();
        }
      }
      if (timer === token) {
        window.clearTimeout(timer);
        timer = window.setTimeout(look, pause * 1000);
      }
    }

    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && (!view || view.again)) {
        void look(true);
      }
    });
    window.setInterval(() => {
      if (!document.hidden) {
        tick();
      }
    }, 1000);
    void look();
  }

  async function extension() {
    const [widgets, statusbar, translation, services, coreutils, apputils] = await Promise.all(
      [
        "@lumino/widgets",
        "@jupyterlab/statusbar",
        "@jupyterlab/translation",
        "@jupyterlab/services",
        "@jupyterlab/coreutils",
        "@jupyterlab/apputils",
      ].map(moduleOf),
    );
    const modules = {
      widgets,
      ServerConnection: services.ServerConnection,
      URLExt: coreutils.URLExt,
      Notification: apputils.Notification,
    };
    return {
      id: `${NAME}:plugin`,
      description: "Says how long this server runs, and when it is taken back.",
      autoStart: true,
      optional: [statusbar.IStatusBar, translation.ITranslator],
      activate: (app, statusBar, translator) => start(app, modules, statusBar, translator),
    };
  }

  const container = {
    init(scope) {
      shared = scope;
    },
    async get(name) {
      if (name !== "./extension") {
        throw new Error(`${NAME}: there is no module ${name}`);
      }
      const plugin = await extension();
      return () => ({ __esModule: true, default: plugin });
    },
  };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = container;
})();
