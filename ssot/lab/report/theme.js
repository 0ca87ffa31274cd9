"use strict";
// Before the page is drawn, so that it does not flash in the other theme.
try {
  const kept = localStorage.getItem("ssot-theme");
  if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
} catch { /* a browser may refuse storage to a local file */ }
