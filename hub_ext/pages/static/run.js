"use strict";
// Runs one of JupyterHub's own modules: <script src="run.js" data-module="token">.
window.require([document.currentScript.dataset.module]);
