"use strict";
{
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];
  const one = (id) => document.getElementById(id);
  const root = document.documentElement;
  const checks = all("details.check");

  for (const each of all(".tools, .keys, .copy, .log-filter, #theme")) each.hidden = false;

  // Light and dark
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const tell = () => {
    one("theme").textContent = isDark() ? "Light" : "Dark";
    one("theme").setAttribute("aria-label", `Show in ${isDark() ? "light" : "dark"} colours`);
  };
  one("theme").addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("ssot-theme", root.dataset.theme); } catch { /* not kept */ }
    tell();
  });
  system.addEventListener("change", tell);
  tell();

  // Which checks are shown
  let state = "";
  const filter = () => {
    const words = one("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const check of checks) {
      const fits = (!state || check.dataset.state === state)
        && words.every((word) => check.dataset.words.includes(word));
      check.hidden = !fits;
      shown += fits;
    }
    for (const section of all("section.notebook"))
      section.hidden = shown !== 0 && !all("details.check:not([hidden])", section).length
        && all("details.check", section).length !== 0;
    one("none").hidden = shown !== 0 || checks.length === 0;
  };
  for (const button of all(".states button"))
    button.addEventListener("click", () => {
      state = button.dataset.state;
      for (const each of all(".states button"))
        each.setAttribute("aria-pressed", String(each === button));
      filter();
    });
  one("search").addEventListener("input", filter);

  const visible = () => checks.filter((check) => !check.hidden);
  one("fold").addEventListener("click", () => {
    const open = one("fold").textContent === "Open all";
    for (const check of visible()) check.open = open;
    one("fold").textContent = open ? "Close all" : "Open all";
  });

  // A link to a check opens it
  const follow = () => {
    const target = location.hash && one(decodeURIComponent(location.hash.slice(1)));
    if (!target || !target.matches("details.check")) return;
    if (target.hidden) { one("search").value = ""; all(".states button")[0].click(); }
    target.open = true;
    target.scrollIntoView({ block: "start" });
    target.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", follow);
  for (const link of all("a[href^='#']"))
    link.addEventListener("click", () => { if (link.hash === location.hash) follow(); });
  follow();

  // A figure that is wider than the page begins where the check failed
  const atFailure = (check) => {
    for (const figure of all(".figure.scroll", check)) {
      const line = figure.querySelector(".z");
      if (!line || figure.dataset.begun || !figure.clientWidth) continue;
      figure.dataset.begun = "yes";
      const { left } = line.getBoundingClientRect();
      // At three quarters of what is seen: what led to it is to the left.
      figure.scrollLeft = left - figure.getBoundingClientRect().left - 0.75 * figure.clientWidth;
    }
  };
  for (const check of checks) {
    check.addEventListener("toggle", () => atFailure(check));
    atFailure(check);
  }

  // Commands and logs
  const select = (node) => {
    const range = document.createRange();
    range.selectNodeContents(node);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
  };
  for (const button of all(".copy"))
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      let copied = true;
      try { await navigator.clipboard.writeText(code.textContent); } catch {
        select(code);
        copied = document.execCommand("copy");
      }
      button.textContent = copied ? "Copied" : "Selected";
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  for (const input of all(".log-filter"))
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase();
      for (const fold of all(".fold", input.parentElement)) {
        let hits = 0;
        for (const line of all(".line", fold)) {
          line.hidden = !line.textContent.toLowerCase().includes(wanted);
          hits += !line.hidden;
        }
        if (wanted) fold.open = hits > 0;
      }
    });

  // Keys
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input")) {
      if (event.key === "Escape") { event.target.value = ""; event.target.blur(); filter(); }
      return;
    }
    if (event.key === "/") { event.preventDefault(); one("search").focus(); }
    if (event.key === "j" || event.key === "k") {
      const rows = visible();
      const at = rows.findIndex((check) => check.contains(document.activeElement));
      const next = rows[event.key === "j" ? at + 1 : Math.max(at, 1) - 1];
      next?.querySelector("summary").focus();
    }
  });
}
