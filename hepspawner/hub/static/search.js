// Finding an image among many: the list is searched as one types. All words must be in an image's card or group; the hub
// says in which images packages match (`torch 2.5`, `root>=6.30`).
(() => {
  "use strict";
  const $ = (id) => document.getElementById("hep-" + id);
  const list = $("list");
  const total = list ? list.querySelectorAll("input[name=image]").length : 0;
  if (total < 8) return; // they are all in sight
  const FEWEST = 3; // letters for which the hub is asked: packages that begin with fewer are in every image
  const data = JSON.parse($("data").textContent);
  const query = $("query");
  const groups = [...list.querySelectorAll("details")].map((group) => ({ group, open: group.open, parts: null }));
  const asks = Boolean(data.images && list.querySelector("li.p"));
  let searching = false;
  let asking = false;
  let answered = "";
  let packages = new Map(); // of the images that the hub found: the packages that match

  // The texts are made once, when somebody is about to search.
  function prepare() {
    for (const one of groups) {
      const heading = one.group.querySelector("b").textContent;
      one.parts ||= [...one.group.querySelectorAll("ul")].map((ul) => ({
        ul, shown: ul.children.length, cards: [...ul.children].map((item) => describe(item, heading)),
      }));
    }
  }

  function describe(item, heading) {
    const group = item.querySelector("[role=group]");
    const text = [heading, ...textsOf(item, group)].join(" ").toLowerCase();
    const images = [...item.querySelectorAll("input[name=image]")].map((radio) => ({
      radio, text: `${text} ${radio.value} ${group ? radio.parentElement.textContent : ""}`.toLowerCase(),
    }));
    return { item, images, several: Boolean(group), hidden: false, line: null };
  }

  // who looks for "gpu" does not mean the badge "no GPU"
  const textsOf = (item, group) => [...item.childNodes]
    .filter((node) => node !== group && (node.nodeName !== "EM" || !item.classList.contains("n")) && node.nodeName !== "BUTTON")
    .map((node) => node.textContent);

  // Changes only what changes: a page of a thousand images answers within a frame.
  function search() {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length && !searching) return;
    prepare();
    if (!searching) for (const one of groups) one.open = one.group.open;
    searching = words.length > 0;
    if (!wanted()) forget();
    let found = 0;
    for (const { group, open, parts } of groups) {
      let shown = 0;
      for (const part of parts) {
        const [cards, images] = filter(part, words);
        shown += cards;
        found += images;
      }
      const opened = searching ? shown > 0 : open || group.querySelector("input:checked") !== null;
      if (group.hidden !== !shown) group.hidden = !shown;
      if (group.open !== opened) group.open = opened;
      if (shown) group.querySelector("s").textContent = shown;
    }
    $("none").hidden = found > 0;
    $("found").textContent = searching ? `${found} of ${total} images match` : "";
  }

  function filter(part, words) {
    let shown = 0;
    let images = 0;
    for (const card of part.cards) {
      const found = card.images.filter(({ radio, text }) => words.every((word) => text.includes(word)) || packages.has(radio.value));
      const hidden = !found.length;
      images += found.length;
      if (!hidden) shown++;
      if (hidden !== card.hidden) card.item.hidden = card.hidden = hidden;
      if (!hidden) tell(card, found, words.length > 0);
    }
    if (shown !== part.shown) {
      part.shown = shown;
      part.ul.hidden = !shown;
      part.ul.style.setProperty("--n", shown);
    }
    return [shown, images];
  }

  // A family shows one that was found, unless it holds what is chosen; and each card the packages that match.
  function tell(card, found, searched) {
    let image = found.find(({ radio }) => !radio.parentElement.hidden) || found[0];
    if (card.several && searched && image.radio.parentElement.hidden && !card.images.some(({ radio }) => radio.checked)) {
      image = found.find(({ radio }) => !radio.disabled) || image;
      card.item.dispatchEvent(new CustomEvent("hep-show", { detail: image.radio }));
    }
    const matching = (searched && packages.get(image.radio.value)) || [];
    const other = matching.length && image.radio.parentElement.hidden ? `${image.radio.parentElement.childNodes[1].data}: ` : "";
    const text = other + matching.join(" · ");
    if (!text && !card.line) return;
    if (!card.line) {
      card.line = Object.assign(document.createElement("p"), { className: "hep-match" });
      card.item.querySelector(":scope > p:last-of-type").before(card.line);
    }
    if (card.line.textContent !== text) card.line.textContent = text;
  }

  function forget() {
    packages = new Map();
    answered = "";
  }

  // One question at a time: what was typed meanwhile is the next. Until there is an answer the last one stays.
  async function ask() {
    if (!asks || asking) return;
    asking = true;
    for (let text = wanted(); text && text !== answered; text = wanted()) {
      const headers = { "X-XSRFToken": window.jhdata?.xsrf_token || "" };
      const answer = await fetch(`${data.images}?search=${encodeURIComponent(text)}`, { headers })
        .then((response) => (response.ok ? response.json() : {}))
        .catch(() => ({}));
      if (!wanted()) break;
      answered = text;
      packages = new Map((answer.images || []).map((one) => [one.name, one.packages]));
      search();
    }
    asking = false;
  }

  // What packages are to match, once that is long enough.
  function wanted() {
    const text = query.value.trim();
    return text.length < FEWEST ? "" : text;
  }

  function clear() {
    query.value = "";
    search();
  }

  query.addEventListener("focus", prepare);
  query.addEventListener("input", () => {
    ask(); // the hub answers while the page looks for itself
    search();
  });
  query.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && query.value) {
      event.preventDefault();
      clear();
    } else if (event.key === "Enter" || event.key === "ArrowDown") {
      // Enter would start a server; here it takes the first match.
      event.preventDefault();
      const first = list.querySelector("details[open]:not([hidden]) li:not([hidden]) label:not([hidden]) input:enabled");
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
