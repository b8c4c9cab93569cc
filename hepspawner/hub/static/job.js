// What was chosen as a link, and as the job that it would be.
(() => {
  "use strict";
  const $ = (id) => document.getElementById("hep-" + id);
  const root = document.getElementById("hep");
  const form = root && root.closest("form");
  if (!form) return;
  const data = JSON.parse($("data").textContent);

  // What would be posted, as user_options: an empty field was not chosen.
  function options() {
    const given = {};
    for (const [name, value] of new FormData(form)) if (name !== "_xsrf" && String(value).trim()) given[name] = String(value).trim();
    if (given.image) delete given.custom_image;
    if (given.very_image?.startsWith(given.image + "@")) given.image = given.very_image;
    delete given.very_image;
    if (!given.gpu) delete given.gpus;
    return given;
  }

  $("link").addEventListener("click", async () => {
    const url = new URL(data.spawn, location.href);
    for (const [name, value] of Object.entries(options())) url.searchParams.set(data.prefix + name, value);
    try {
      await navigator.clipboard.writeText(url.href);
      $("link").textContent = "Copied";
      setTimeout(() => ($("link").textContent = "Copy link"), 2000);
    } catch {
      // no clipboard without https: show it, to be copied by hand
      $("url").hidden = false;
      $("url").value = url.href;
      $("url").select();
    }
  });

  async function preview() {
    const response = await fetch(data.preview, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-XSRFToken": window.jhdata?.xsrf_token || "" },
      body: JSON.stringify({ options: options(), server: data.server }),
    });
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer.text;
    const errors = Object.entries(answer.errors || {});
    for (const [name, text] of errors) {
      const control = root.querySelector(`:is(.hep-row, .hep-own) [name="${CSS.escape(name)}"]:not([type=radio]):enabled`);
      if (control) fail(control, text);
    }
    return errors.map(([name, text]) => `${name}: ${text}`).join("\n") || answer.message || `The hub answered ${response.status}.`;
  }

  function fail(control, message) {
    document.getElementById(control.id + "-error")?.remove();
    document.getElementById(control.id + "-hint")?.classList.remove("err");
    const text = Object.assign(document.createElement("p"), { className: "err", id: control.id + "-error", textContent: message });
    control.classList.add("is-invalid");
    control.setAttribute("aria-invalid", "true");
    control.setAttribute("aria-describedby", `${control.id}-hint ${text.id}`);
    control.parentElement.append(text);
  }

  $("show").addEventListener("click", async () => {
    const text = await preview().catch(() => "The hub does not answer.");
    $("job").querySelector("pre").textContent = text;
    $("job").showModal();
  });
  $("job").querySelector("button").addEventListener("click", () => $("job").close());
  $("mini").hidden = false;
})();
