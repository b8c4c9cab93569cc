// The packages of an image, on demand: a button on the cards that somebody looks at, and a list to search in.
(() => {
  "use strict";
  const root = document.getElementById("hep");
  const form = root && root.closest("form");
  const dialog = document.getElementById("hep-packages");
  const { images } = form ? JSON.parse(document.getElementById("hep-data").textContent) : {};
  if (!images || !dialog) return;
  const [title, query, status, list, close] = dialog.children;
  let packages = [];

  function offer(card) {
    if (!card?.matches("li.p") || card.querySelector(".hep-all")) return;
    card.append(Object.assign(document.createElement("button"), { type: "button", className: "hep-all", textContent: "Packages" }));
  }

  async function open(card) {
    const radio = [...card.querySelectorAll("input[type=radio]")].find((one) => !one.parentElement.hidden);
    const headers = { "X-XSRFToken": window.jhdata?.xsrf_token || "" };
    title.textContent = `Packages of ${radio.getAttribute("aria-label") || radio.parentElement.textContent}`;
    packages = [];
    query.value = "";
    draw("…");
    dialog.showModal();
    const answer = await fetch(`${images}/${encodeURIComponent(radio.value)}/packages`, { headers })
      .then((response) => (response.ok ? response.json() : {}))
      .catch(() => ({}));
    packages = answer.packages || [];
    draw(answer.packages ? "" : "The hub does not answer.");
  }

  function draw(trouble) {
    const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = packages.filter((one) => words.every((word) => `${one.name} ${one.version}`.toLowerCase().includes(word)));
    status.textContent = trouble || (words.length ? `${found.length} of ${packages.length} packages` : `${packages.length} packages`);
    list.replaceChildren(...found.map((one) => {
      const item = document.createElement("li");
      item.append(one.name, " ", Object.assign(document.createElement("b"), { textContent: one.version }));
      return item;
    }));
  }

  for (const type of ["pointerover", "focusin"]) root.addEventListener(type, ({ target }) => offer(target.closest("#hep-list li")));
  root.addEventListener("hep-refresh", () => offer(form.querySelector("input[name=image]:checked")?.closest("li")));
  root.addEventListener("click", ({ target }) => target.matches(".hep-all") && open(target.closest("li")));
  query.addEventListener("input", () => draw(""));
  close.addEventListener("click", () => dialog.close());
  offer(form.querySelector("input[name=image]:checked")?.closest("li"));
})();
