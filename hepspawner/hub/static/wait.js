// JupyterHub's waiting page lives on a stream of events. It does not come through every proxy (that of PyPI keeps it back
// until it ends), and browsers do not ask again after an error, as while a hub restarts. Then the page itself is asked.
(() => {
  "use strict";
  const $ = (id, page = document) => page.getElementById(id);
  let stream = null;
  window.EventSource = class extends window.EventSource {
    constructor(...all) {
      super(...all);
      stream = this;
    }
  };

  async function look() {
    const message = $("progress-message");
    if (stream?.readyState === EventSource.OPEN || !message || message.querySelector(".hep-failure")) return;
    const answer = await fetch(location.href, { redirect: "manual" });
    const html = await answer.text();
    const now = $("progress-message", new DOMParser().parseFromString(html, "text/html"));
    if (now) tell(message, now);
    // what a proxy says while the hub is away is no page to go to
    else if (answer.type === "opaqueredirect" || html.includes("jhdata")) location.reload();
  }

  function tell(message, now) {
    if (!message) return;
    if (message.innerHTML !== now.innerHTML) message.innerHTML = now.innerHTML;
    const bar = $("progress-bar");
    if (!bar || !now.dataset.progress) return;
    bar.style.width = now.dataset.progress + "%";
    bar.setAttribute("aria-valuenow", now.dataset.progress);
  }

  document.addEventListener("DOMContentLoaded", () => tell($("progress-message"), $("progress-message")));
  const again = () => setTimeout(() => look().catch(() => {}).finally(again), 2000);
  again();
})();
