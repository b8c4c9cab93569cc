// Finding an image among many: the list is searched as one types. All words must be in an image's card or group.
(() => {
  "use strict";
  const $ = (id) => document.getElementById("hep-" + id);
  const list = $("list");
  const total = list ? list.querySelectorAll("li").length : 0;
  if (total < 8) return; // they are all in sight
  const query = $("query");
  const groups = [...list.querySelectorAll("details")].map((group) => ({ group, open: group.open, parts: null }));
  let searching = false;

  // The texts are made once, when somebody is about to search.
  function prepare() {
    for (const one of groups) {
      const heading = one.group.querySelector("b").textContent;
      one.parts ||= [...one.group.querySelectorAll("ul")].map((ul) => ({
        ul, shown: ul.children.length, cards: [...ul.children].map((item) => ({ item, text: textOf(item, heading), hidden: false })),
      }));
    }
  }

  function textOf(item, heading) {
    const words = [heading, item.querySelector("input").value];
    for (const node of item.childNodes) {
      // who looks for "gpu" does not mean the badge "no GPU"
      if (node.nodeName !== "EM" || item.className !== "n") words.push(node.textContent);
    }
    return words.join(" ").toLowerCase();
  }

  // Changes only what changes: a page of a thousand images answers within a frame.
  function search() {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length && !searching) return;
    prepare();
    if (!searching) for (const one of groups) one.open = one.group.open;
    searching = words.length > 0;
    let found = 0;
    for (const { group, open, parts } of groups) {
      let shown = 0;
      for (const part of parts) shown += filter(part, words);
      const opened = searching ? shown > 0 : open || group.querySelector("input:checked") !== null;
      if (group.hidden !== !shown) group.hidden = !shown;
      if (group.open !== opened) group.open = opened;
      if (shown) group.querySelector("s").textContent = shown;
      found += shown;
    }
    $("none").hidden = found > 0;
    $("found").textContent = searching ? `${found} of ${total} images match` : "";
  }

  function filter(part, words) {
    let shown = 0;
    for (const card of part.cards) {
      const hidden = !words.every((word) => card.text.includes(word));
      if (!hidden) shown++;
      if (hidden !== card.hidden) card.item.hidden = card.hidden = hidden;
    }
    if (shown !== part.shown) {
      part.shown = shown;
      part.ul.hidden = !shown;
      part.ul.style.setProperty("--n", shown);
    }
    return shown;
  }

  function clear() {
    query.value = "";
    search();
  }

  query.addEventListener("focus", prepare);
  query.addEventListener("input", search);
  query.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && query.value) {
      event.preventDefault();
      clear();
    } else if (event.key === "Enter" || event.key === "ArrowDown") {
      // Enter would start a server; here it takes the first match.
      event.preventDefault();
      const first = list.querySelector("details[open]:not([hidden]) li:not([hidden]) input:enabled");
      if (first && event.key === "Enter" && query.value.trim()) first.click();
      first?.focus();
    }
  });
  $("clear").addEventListener("click", () => {
    clear();
    query.focus();
  });
  // A card's text is no part of its label, which would be long to hear; it is said after it.
  list.addEventListener("focusin", ({ target }) => {
    const texts = target.name === "image" ? [...target.closest("li").querySelectorAll("em, i, p")] : [];
    if (texts.length) target.setAttribute("aria-description", texts.map((one) => one.textContent).join(", "));
  });
  $("search").hidden = false;
})();
