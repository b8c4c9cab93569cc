// What is known of the chosen image's directory: whether a server may outlive it, and which one ran the last time.
(() => {
  "use strict";
  const root = document.getElementById("hep");
  const data = JSON.parse(document.getElementById("hep-data").textContent);
  const warning = document.getElementById("hep-outlive");
  const very = document.getElementById("hep-very");
  const known = new Map(); // by name: what the hub answers, asked once
  const SECONDS = { d: 86400, h: 3600, m: 60, s: 1 };
  let asked = "";

  function runtime() {
    const match = /^([0-9]{1,9}) ?([smhd])$/.exec(root.querySelector("[name=runtime]:enabled")?.value.trim() ?? "");
    return match ? match[1] * SECONDS[match[2]] : null;
  }

  async function about(name) {
    if (!known.has(name)) {
      const headers = { "X-XSRFToken": window.jhdata?.xsrf_token || "" };
      const answer = fetch(`${data.images}/${encodeURIComponent(name)}`, { headers });
      known.set(name, answer.then((got) => (got.ok ? got.json() : {})).catch(() => ({})));
    }
    return known.get(name);
  }

  async function show() {
    const name = root.querySelector("input[name=image]:checked")?.value ?? "";
    if (very) very.hidden = very.dataset.image !== name;
    asked = name;
    const image = name ? await about(name) : {};
    if (asked !== name) return; // another was chosen meanwhile
    const seconds = runtime();
    const outlives = typeof image.grace === "number" && (seconds === null || seconds > image.grace);
    warning.textContent = outlives ? image.warning : "";
    warning.hidden = !outlives;
  }

  root.addEventListener("hep-refresh", show);
  show();
})();
