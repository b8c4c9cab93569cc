// What is free on the backends: asked for when the page works, and again every minute while somebody looks at it. Without
// an answer nothing is shown. What is told has its place from the start, so that nothing moves below the mouse.
(() => {
  "use strict";
  const $ = (id) => document.getElementById("hep-" + id);
  const root = document.getElementById("hep");
  const form = root && root.closest("form");
  const { availability, backends } = form ? JSON.parse($("data").textContent) : {};
  if (!availability) return;
  const INTERVAL = 60_000;
  const FRESH = 5 * 60_000;
  let known = {}; // by backend, with the time of this machine's clock at which it was so
  let choosing = false;

  async function ask() {
    if (document.hidden) return;
    const headers = { "X-XSRFToken": window.jhdata?.xsrf_token || "" };
    const answer = await fetch(availability, { headers, signal: AbortSignal.timeout(INTERVAL / 2) })
      .then((response) => (response.ok ? response.json() : {}))
      .catch(() => ({}));
    known = answer.backends || {};
    for (const told of Object.values(known)) told.since = Date.now() - 1000 * told.age;
    draw();
  }

  // --- in words

  const some = (amount) => `${amount.free} of ${amount.total}`;
  const waiting = (count) => (count ? [`${count} waiting`] : []);

  function wordsOf(room) {
    if (!room.up) return "takes no jobs now";
    return [...(room.cores ? [`${some(room.cores)} cores free`] : []), ...waiting(room.waiting)].join(", ");
  }

  // Partitions may share their nodes: numbers of several are no sum, so the best is told.
  function summaryOf(rooms, kinds) {
    const best = (amountOf) => rooms.filter((room) => room.up && amountOf(room))
      .reduce((one, other) => (one && amountOf(one).free >= amountOf(other).free ? one : other), null);
    const parts = [];
    for (const kind of new Set(rooms.flatMap((room) => Object.keys(room.gpus)))) {
      const room = best((one) => one.gpus[kind]);
      if (room) parts.push(`${some(room.gpus[kind])} ${kinds[kind] || kind}`);
    }
    const room = best((one) => one.cores);
    if (room) parts.push(`${rooms.length > 1 ? `up to ${room.cores.free}` : some(room.cores)} cores`);
    if (rooms.length === 1) parts.push(...waiting(rooms[0].waiting));
    return parts.join(", ") || "nothing";
  }

  function ageOf(told) {
    const clock = new Date(told.since).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
    const minutes = Math.round((Date.now() - told.since) / 60_000);
    const ago = minutes < 120 ? `${minutes} min` : `${Math.round(minutes / 60)} h`;
    return `as of ${clock}${isOld(told) ? `, ${ago} ago` : ""}${told.problem ? ", no answer since" : ""}`;
  }

  const isOld = (told) => Date.now() - told.since > FRESH;

  // --- on the page

  function draw() {
    for (const line of root.querySelectorAll(".hep-free")) tell(line, known[line.dataset.backend]);
    const backend = form.elements.backend.value;
    const rooms = known[backend]?.rooms || [];
    const select = root.querySelector(".leads select:enabled");
    const room = rooms.find((one) => one.name === select?.value) || rooms.find((one) => one.name === "");
    if (select) {
      document.getElementById(select.id + "-hint").textContent = room ? wordsOf(room) : "";
      label(select, rooms);
    }
    drawGpu(backend, room);
  }

  function tell(line, told) {
    const age = document.createElement("span");
    age.className = told && (isOld(told) || told.problem) ? "old" : "";
    age.textContent = told ? ageOf(told) : "";
    line.replaceChildren(...(told ? ["Free ", age, `: ${summaryOf(told.rooms, backends[line.dataset.backend].fields.gpu?.values || {})}`] : []));
    line.title = told?.problem || line.textContent;
  }

  // An option says what is free while one chooses; the chosen one only its name, for the rest stands below it.
  function label(select, rooms) {
    for (const option of select.options) {
      const room = (choosing || !option.selected) && rooms.find((one) => one.name === option.value);
      option.label = room ? `${option.text} · ${wordsOf(room)}` : option.text;
    }
  }

  function choose({ type, target }) {
    if (!target.matches(".leads select")) return;
    choosing = type === "pointerdown" || type === "keydown";
    draw();
  }

  function drawGpu(backend, room) {
    if (!$("gpu")) return;
    const kind = $("gpu").value;
    const free = kind && room?.gpus[kind];
    $("gpu-hint").textContent = free ? [`${some(free)} free`, ...waiting(free.waiting)].join(", ") : "";
    $("gpu-hint").hidden = !kind || !root.querySelector(`.hep-free.kept[data-backend="${CSS.escape(backend)}"]`);
  }

  root.addEventListener("hep-refresh", draw);
  for (const type of ["pointerdown", "keydown", "change", "focusout"]) root.addEventListener(type, choose);
  document.addEventListener("visibilitychange", ask);
  setInterval(ask, INTERVAL);
  draw();
  ask();
})();
