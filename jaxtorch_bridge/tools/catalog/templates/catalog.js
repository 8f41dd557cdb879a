
"use strict";
(() => {
  const box = document.getElementById("page-search");
  const form = document.getElementById("page-search-form");
  const found = document.getElementById("page-found");
  const nothing = document.getElementById("page-nothing");
  const articles = [...document.querySelectorAll("article")];
  const entries = [...document.querySelectorAll("nav li")];
  const list = document.querySelector("nav details");

  // What it is compared with is lower case, too.
  const wanted = () => box.value.toLowerCase().split(/\s+/).filter((word) => word !== "");

  function filter() {
    const words = wanted();
    let hits = 0;
    articles.forEach((article, index) => {
      const hit = words.every((word) => article.dataset.words.includes(word));
      article.hidden = entries[index].hidden = !hit;
      hits += hit ? 1 : 0;
    });
    nothing.hidden = hits > 0 || articles.length === 0;
    found.value = words.length ? `${hits} of ${articles.length}` : "";
  }

  function clear() {
    box.value = "";
    filter();
  }

  const shown = () => articles.filter((article) => !article.hidden);
  const heading = (article) => article.querySelector("h2 a");

  function move(step) {
    const hits = shown();
    const at = hits.findIndex((article) => article.contains(document.activeElement));
    if (at + step < 0) {
      box.focus();
    } else if (at + step < hits.length) {
      const target = hits[at + step];
      heading(target).focus({ preventScroll: true });
      target.scrollIntoView({ block: "start" });
    }
  }

  function named() {
    try {
      return document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch {
      return null; // a `%` that somebody typed
    }
  }

  // A link leads to what it names, also where a search hides it or its version is folded.
  function reveal() {
    const target = named();
    const article = target?.closest("article");
    if (!article) return;
    if (article.hidden) clear();
    if (target.tagName === "DETAILS") target.open = true;
    target.scrollIntoView({ block: "start" });
  }

  function mark() {
    const top = document.querySelector(".top").offsetHeight + 24;
    const current = shown().findLast((one) => one.getBoundingClientRect().top <= top);
    entries.forEach((entry, index) => {
      const link = entry.firstElementChild;
      if (articles[index] === current) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  }

  const typing = (element) =>
    element.tagName === "INPUT" && element.type !== "checkbox";
  const atHeading = (element) => element.matches("h2 a");

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/" && !typing(event.target)) {
      box.focus();
      box.select();
    } else if (event.key === "Escape") {
      clear();
      box.focus();
    } else if (event.key === "ArrowDown" && (event.target === box || atHeading(event.target))) {
      move(1);
    } else if (event.key === "ArrowUp" && atHeading(event.target)) {
      move(-1);
    } else {
      return;
    }
    event.preventDefault();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const first = shown()[0];
    if (first) {
      heading(first).focus({ preventScroll: true });
      first.scrollIntoView({ block: "start" });
    }
  });
  box.addEventListener("input", () => {
    filter();
    scrollTo({ top: 0, behavior: "instant" });
  });
  addEventListener("hashchange", reveal);
  addEventListener("scroll", () => requestAnimationFrame(mark), { passive: true });

  form.hidden = false;
  if (matchMedia("(max-width: 56rem)").matches) list.open = false;
  filter();
  reveal();
  mark();
})();
