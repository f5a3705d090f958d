// The page works without this file. With it the content is read again every 15 seconds, and "/" goes to the search.
"use strict";
(() => {
  const every = 15000;
  const note = document.getElementById("refresh");
  const news = document.getElementById("news"); // what a screen reader says: only what has changed
  const verdict = () => document.querySelector("[data-news]")?.textContent ?? "";
  let failed = 0;

  // busy reports whether a reader is using something that a refresh would take away.
  const busy = () => {
    const at = document.activeElement;
    const selection = document.getSelection();
    return document.hidden || (at && ["INPUT", "SELECT"].includes(at.tagName)) || (selection && !selection.isCollapsed);
  };

  // place names the focused link, so that it can be focused again in the new content.
  const place = () => {
    const at = document.activeElement;
    if (!at || !at.closest("main") || at.tagName !== "A") { return null; }
    const same = [...document.querySelectorAll("main a")].filter((a) => a.getAttribute("href") === at.getAttribute("href"));
    return { href: at.getAttribute("href"), index: same.indexOf(at) };
  };

  const refresh = async () => {
    if (busy()) { return; }
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(10000) });
      if (!answer.ok) { throw new Error(String(answer.status)); }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = page.querySelector("main");
      if (!main || busy()) { return; }
      const focused = place();
      const before = verdict();
      document.querySelector("main").replaceWith(document.adoptNode(main));
      document.querySelector(".asof time").replaceWith(document.adoptNode(page.querySelector(".asof time")));
      document.querySelector("link[rel=icon]").replaceWith(document.adoptNode(page.querySelector("link[rel=icon]")));
      document.title = page.title;
      if (failed > 1 || verdict() !== before) { news.textContent = verdict(); }
      if (focused) {
        const same = [...document.querySelectorAll("main a")].filter((a) => a.getAttribute("href") === focused.href);
        if (same[focused.index]) { same[focused.index].focus({ preventScroll: true }); }
      }
      failed = 0;
      note.textContent = "refreshes itself";
    } catch {
      failed++;
      note.textContent = failed > 1 ? "NOT REFRESHED: the daemon does not answer. This is as of" : "refreshes itself";
      note.classList.toggle("bad", failed > 1);
      if (failed === 2) { news.textContent = "This page is not refreshed: the daemon does not answer."; }
      return;
    }
    note.classList.remove("bad");
  };

  note.textContent = "refreshes itself";
  setInterval(refresh, every);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { refresh(); } });
  document.addEventListener("keydown", (e) => {
    const search = document.getElementById("q");
    if (e.key === "/" && search && !e.ctrlKey && !e.metaKey && !e.altKey && !["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement.tagName)) {
      e.preventDefault();
      search.focus();
      search.select();
    }
  });
})();
