// The spawn form at work. Without this script it is plain fields that the hub checks; with it they answer at once.
// The page is the data: images are read from it, and only ranges and defaults of backends come beside it as JSON.
(() => {
  "use strict";
  const $ = (id) => document.getElementById("hep-" + id);
  const root = document.getElementById("hep");
  const form = root && root.closest("form");
  if (!form) return;
  const data = JSON.parse($("data").textContent);
  const rows = [...root.querySelectorAll(".hep-row[data-kind]")].map(describeRow);
  const gpu = { row: $("gpu-row"), toggle: $("gpu-on"), kind: $("gpu"), count: $("gpus") };
  const leaders = rows.filter((field) => field.row.classList.contains("leads")); // others depend on them
  const state = { backend: "", place: "", touched: new Set(), wantsGpu: false, kind: "", picked: {} };

  // --- sizes and times, as hepspawner.units writes and reads them

  const UNITS = {
    size: { T: 2 ** 40, G: 2 ** 30, M: 2 ** 20, K: 2 ** 10 },
    time: { d: 86400, h: 3600, m: 60, s: 1 },
  };
  const PATTERN = { size: /^([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([KMGT])i?B?$/, time: /^([0-9]{1,9}) ?([smhd])$/ };

  function show(kind, value) {
    if (value === null || value === undefined) return "";
    for (const [unit, factor] of Object.entries(UNITS[kind] || {})) {
      if (value >= factor && value % factor === 0) return value / factor + unit;
    }
    return String(value);
  }

  function read(kind, text) {
    text = text.trim();
    if (!UNITS[kind]) return /^[0-9]{1,9}$/.test(text) ? Number(text) : NaN;
    const match = PATTERN[kind].exec(text);
    return match ? Math.trunc(match[1] * UNITS[kind][match[2]]) : NaN;
  }

  // Values worth stopping at with a slider: round ones, the limits and the default.
  function steps(spec) {
    const { kind, min, max } = spec;
    const all = [min, max, spec.default];
    if (kind === "count" && max <= 16) for (let i = min; i <= max; i++) all.push(i);
    else if (kind === "time") {
      for (const h of [0.25, 0.5, 1, 2, 3, 4, 6, 8, 10, 12, 18, 24, 48, 72, 96, 120, 168, 240, 336, 504, 720]) all.push(h * 3600);
    } else {
      for (let power = 1; power <= max; power *= 2) all.push(power, kind === "size" && power < 2 ** 31 ? power : power * 1.5);
    }
    return [...new Set(all)].filter((v) => Number.isInteger(v) && v >= min && v <= max).sort((a, b) => a - b);
  }

  // --- fields

  function describeRow(row) {
    const control = row.querySelector("select, input[name]");
    return { row, control, kind: row.dataset.kind, name: control.name, slider: row.querySelector("[type=range]"),
      hint: row.querySelector("small"), label: row.querySelector("label").textContent, stops: [] };
  }

  function specOf(name, backend) {
    const spec = data.backends[backend]?.fields[name];
    return spec?.per ? caseOf(spec, leaderOf(spec)?.control.value) : spec;
  }

  // A field that depends on another one, as it is beside a value of that; of each case there is only what differs.
  const caseOf = (spec, value) => spec.cases[value] && { ...spec, ...spec.cases[value] };
  const leaderOf = (spec) => leaders.find((field) => field.name === spec.per);

  function specFor(field, backend) {
    const spec = specOf(field.name, backend);
    return spec && (spec.kind === "select") === (field.kind === "select") ? spec : null;
  }

  // Where the limits of a field hold.
  function placeOf(spec, backend) {
    const leader = spec?.per && leaderOf(spec);
    return leader ? `in ${leader.label.toLowerCase()} ${leader.control.selectedOptions[0]?.text}` : `on ${title(backend)}`;
  }

  // Gives a field the ranges that it has now; its value is kept where they allow it.
  function fit(field, backend, changed) {
    const spec = specFor(field, backend);
    const { control } = field;
    field.row.hidden = control.disabled = !spec;
    if (!spec) return;
    field.hint.textContent = field.kind === "select" ? "" : spec.hint;
    if (field.kind === "select") fitSelect(field, spec, backend);
    else if (changed) fitText(field, spec, backend);
    if (field.slider) {
      field.slider.hidden = !spec.max;
      field.stops = spec.max ? steps(spec) : [];
      field.slider.max = Math.max(field.stops.length - 1, 0);
      follow(field);
    }
  }

  function fitSelect(field, spec, backend) {
    const { control } = field;
    for (const option of control.options) {
      option.disabled = option.hidden = option.value ? !(option.value in spec.values) : spec.default !== null;
      name(option, spec);
    }
    const chosen = control.selectedOptions[0];
    if (chosen && !chosen.disabled) return;
    if (chosen?.value && state.touched.has(field.name)) note(`${field.label}: ${chosen.text} is not ${placeOf(spec, backend)}`);
    control.value = spec.default ?? "";
  }

  // Two backends may mean different things by a value.
  function name(option, spec) {
    if (option.value in spec.values) option.text = spec.values[option.value];
  }

  function fitText(field, spec, backend) {
    const { control, kind } = field;
    const value = read(kind, control.value);
    if (!state.touched.has(field.name) || !control.value.trim()) control.value = show(kind, spec.default);
    else if (value < spec.min || (spec.max && value > spec.max)) {
      const limit = value < spec.min ? spec.min : spec.max;
      note(`${field.label}: ${show(kind, limit)} instead of ${control.value}, the ${value < spec.min ? "least" : "most"} ${placeOf(spec, backend)}`);
      control.value = show(kind, limit);
    }
    clearError(control);
  }

  // The slider follows the text.
  function follow(field) {
    const value = read(field.kind, field.control.value);
    if (!field.stops.length) return;
    const near = field.stops.reduce((best, stop, i) => (Math.abs(stop - value) < Math.abs(field.stops[best] - value) ? i : best), 0);
    field.slider.value = near;
  }

  function put(field, index) {
    const stop = field.stops[Math.min(Math.max(index, 0), field.stops.length - 1)];
    field.control.value = show(field.kind, stop);
    field.slider.value = field.stops.indexOf(stop);
    touch(field.control);
  }

  // --- errors and notes

  function touch(control) {
    const leader = leaders.find((field) => field.control === control);
    state.touched.add(control.name);
    clearError(control);
    if (leader) pick(leader);
    refresh();
  }

  function clearError(control) {
    control.classList.remove("is-invalid");
    control.removeAttribute("aria-invalid");
    document.getElementById(control.id + "-hint")?.classList.remove("err");
    document.getElementById(control.id + "-error")?.remove();
  }

  // Says what is wrong with a value before the hub does. It does not stop anybody: the hub decides. Nothing may move: the
  // field is often left by pressing a button, which would be gone from below the mouse before it is let go.
  function judge(field) {
    const spec = specFor(field, state.backend);
    const text = field.control.value.trim();
    if (!spec || field.kind === "select" || !text) return;
    const value = read(field.kind, text);
    if (value >= spec.min && (!spec.max || value <= spec.max)) return;
    clearError(field.control);
    field.control.classList.add("is-invalid");
    field.control.setAttribute("aria-invalid", "true");
    field.hint.classList.add("err");
  }

  function note(text) {
    $("notes").append(Object.assign(document.createElement("p"), { textContent: text + "." }));
  }

  // --- images, backends, GPUs

  const title = (backend) => data.backends[backend]?.title || backend;
  const checked = (name) => form.querySelector(`input[name="${name}"]:checked`);

  function image() {
    const radio = checked("image");
    const item = radio?.closest("li");
    const label = radio?.parentElement;
    const is = (letter) => item && (item.classList.contains(letter) || label.classList.contains(letter));
    return {
      own: Boolean(radio) && !item,
      title: item ? titleOf(item, label) : $("custom_image")?.value || "an image of my own",
      rule: is("n") ? "none" : is("r") ? "required" : "optional",
      // by number, in the order of the backends; absent: all
      backends: (label?.dataset.b ?? item?.dataset.b)?.split(" ").map(Number),
    };
  }

  function titleOf(item, label) {
    const family = item.classList.contains("f") && item.querySelector("b").textContent;
    return family ? `${family} (${label.childNodes[1].data})` : label.textContent;
  }

  function whyNot(chosen, backend, index) {
    if (chosen.backends && !chosen.backends.includes(index)) return "cannot run this image";
    if (chosen.rule === "required" && !data.backends[backend].fields.gpu) return "no GPU, and this image needs one";
    return "";
  }

  function chooseBackend(chosen) {
    const radios = [...form.querySelectorAll("input[name=backend][type=radio]")];
    if (!radios.length) return form.querySelector("input[name=backend]").value;
    radios.forEach((radio, index) => {
      const why = whyNot(chosen, radio.value, index);
      radio.disabled = Boolean(why);
      radio.parentElement.querySelector(".why").textContent = why;
    });
    let radio = radios.find((one) => one.checked);
    const free = radios.find((one) => !one.disabled);
    if (radio?.disabled && free) {
      note(`${title(radio.value)} cannot run this image: now on ${title(free.value)}`);
      radio = free;
    }
    if (radio) radio.checked = true;
    return radio ? radio.value : "";
  }

  const wantsGpu = (chosen) => chosen.rule === "required" || (chosen.rule !== "none" && state.wantsGpu);

  // A GPU that is wanted leads to where there is one, as to another partition, and back when it is not wanted any more.
  function lead(chosen, backend) {
    const leader = leaders.find((field) => !field.row.hidden);
    if (!leader) return;
    const { control, label } = leader;
    const values = [...control.options].filter((option) => !option.hidden).map((option) => option.value);
    const spec = data.backends[backend].fields.gpu;
    const able = spec?.per === leader.name ? values.filter((value) => spec.cases[value]) : values;
    for (const option of control.options) {
      if (!option.hidden) option.disabled = chosen.rule === "required" && !able.includes(option.value);
    }
    const picked = values.includes(state.picked[leader.name]) ? state.picked[leader.name] : control.value;
    let value = picked;
    if (wantsGpu(chosen) && !able.includes(picked)) value = able.find((one) => state.kind in caseOf(spec, one).most) ?? able[0];
    if (value === control.value) return;
    const left = control.selectedOptions[0]?.text;
    control.value = value;
    note(`${label}: ${control.selectedOptions[0].text} ${value === picked ? "again" : `instead of ${left}, which has no GPU`}`);
  }

  // Who picks a value of such a field means it: without a GPU where there is none.
  function pick(field) {
    state.picked[field.name] = field.control.value;
    const spec = data.backends[state.backend]?.fields.gpu;
    if (spec?.per !== field.name || spec.cases[field.control.value] || !gpu.toggle.checked) return;
    state.wantsGpu = false;
    note(`No GPU: there is none ${placeOf(spec, state.backend)}`);
  }

  function fitGpu(chosen, backend, moved, first) {
    if (!gpu.row) return;
    const spec = specOf("gpu", backend);
    const kinds = spec?.most || {};
    const options = [...gpu.kind.options];
    const wanted = wantsGpu(chosen);
    const on = wanted && Object.keys(kinds).length > 0;
    if (moved && wanted && !on) note(`There is no GPU on ${title(backend)}`);
    gpu.row.hidden = gpu.kind.disabled = !data.backends[backend]?.fields.gpu;
    gpu.toggle.checked = on;
    gpu.toggle.disabled = chosen.rule !== "optional";
    $("gpu-why").textContent = { none: "This image has no GPU software.", required: "This image needs a GPU." }[chosen.rule] || "";
    gpu.kind.hidden = gpu.count.hidden = gpu.count.disabled = $("gpus-hint").hidden = !on;
    $("gpu-hint").hidden = true;
    for (const option of options) {
      option.hidden = option.disabled = on ? !(option.value in kinds) : option.value !== "";
      if (on) name(option, spec);
    }
    if (!on) {
      gpu.kind.value = "";
      return;
    }
    if (!(gpu.kind.value in kinds)) gpu.kind.value = state.kind in kinds ? state.kind : options.find((option) => option.value in kinds).value;
    if (state.kind && !(state.kind in kinds)) {
      const missing = options.find((option) => option.value === state.kind)?.text || state.kind;
      note(`${gpu.kind.selectedOptions[0].text} instead of ${missing}, which is not ${placeOf(spec, backend)}`);
    }
    state.kind = gpu.kind.value;
    const most = kinds[state.kind];
    if (read("count", gpu.count.value) > most && !first) {
      note(`${most} GPU${most > 1 ? "s" : ""} instead of ${gpu.count.value}, the most of this kind`);
      gpu.count.value = most;
    }
    $("gpus-hint").textContent = most > 1 ? `1 to ${most}` : "";
    gpu.count.hidden = most === 1 && gpu.count.value.trim() === "1"; // nothing to choose
  }

  // --- all of it, after each change

  // `first`: the page is as it came, and its values stay as they are.
  function refresh(first) {
    const chosen = image();
    const backend = chooseBackend(chosen);
    if (backend !== state.backend) for (const field of leaders) fit(field, backend, !first);
    lead(chosen, backend);
    const place = JSON.stringify([backend, ...leaders.map((field) => field.control.value)]);
    const moved = place !== state.place;
    if (moved) for (const field of rows) if (!leaders.includes(field)) fit(field, backend, !first);
    fitGpu(chosen, backend, moved && !first, first);
    state.backend = backend;
    state.place = place;
    if ($("custom_image")) $("custom_image").required = chosen.own;
    summarise(chosen, backend);
    root.dispatchEvent(new Event("hep-refresh"));
  }

  function summarise(chosen, backend) {
    const bold = (text) => Object.assign(document.createElement("b"), { textContent: text });
    const line = [bold(chosen.title), " on ", bold(title(backend))];
    const parts = [];
    if (gpu.row && gpu.kind.value) parts.push(`${gpu.count.value || 1}\u00a0×\u00a0${gpu.kind.selectedOptions[0].text}`);
    let time = "";
    for (const field of rows) {
      const { control, name, label } = field;
      const value = control.value.trim();
      if (field.row.hidden || !value) continue;
      const text = control.selectedOptions?.[0].text ?? value;
      if (leaders.includes(field)) line.push(` (${label.toLowerCase()} ${text})`);
      else if (name === "runtime") time = value;
      else if (name === "cpus") parts.push(`${value} core${value === "1" ? "" : "s"}`);
      else if (name === "memory") parts.push(value);
      else parts.push(`${label.toLowerCase()} ${text}`);
    }
    if (parts.length) line.push(" with ", parts.join(", "));
    if (time) line.push(", for ", bold(time));
    $("summary").replaceChildren(...line, ".");
  }

  // Reads the page as it is: after loading, after a reset, and when the browser comes back to it.
  function begin() {
    state.backend = state.place = "";
    state.picked = Object.fromEntries(leaders.map((field) => [field.name, field.control.value]));
    state.touched = new Set(data.given);
    state.kind = gpu.kind?.value || "";
    state.wantsGpu = Boolean(state.kind) && data.given.some((name) => name === "gpu" || name === "gpus");
    $("go").disabled = false;
    $("go").textContent = "Start";
    refresh(true);
  }

  form.addEventListener("change", (event) => {
    const { target } = event;
    if (!root.contains(target) || target.id === "hep-query") return;
    if (target === gpu.toggle) {
      state.wantsGpu = target.checked;
      [gpu.kind, gpu.count].forEach(clearError);
    }
    if (target === gpu.kind) state.kind = target.value;
    if (target.name) touch(target);
    else refresh();
    const field = rows.find((one) => one.control === target);
    if (field) judge(field);
  });

  form.addEventListener("input", ({ target }) => {
    if (target.id !== "hep-query") $("notes").replaceChildren();
    const field = rows.find((one) => one.slider === target || one.control === target);
    if (target === $("custom_image") && target.value) $("own").checked = true;
    if (field && target === field.slider) put(field, Number(target.value));
    else if (field) follow(field);
    if (field?.control === target || target === gpu.count || target === $("custom_image")) touch(target);
  });

  form.addEventListener("keydown", (event) => {
    const field = rows.find((one) => one.control === event.target);
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!field || !field.stops.length || !step) return;
    event.preventDefault();
    put(field, Number(field.slider.value) + step);
  });

  // A second click must not start a second server; the button goes dark after the form has been read.
  form.addEventListener("submit", () => setTimeout(() => {
    $("go").disabled = true;
    $("go").textContent = "Starting…";
  }));

  $("again")?.addEventListener("click", () => {
    form.reset();
    begin();
    form.requestSubmit($("go"));
  });

  window.addEventListener("pageshow", (event) => event.persisted && begin());
  if ($("again")) $("again").hidden = false;
  if (gpu.row) $("toggle").hidden = false;
  begin();
  const wrong = root.querySelector(".is-invalid:enabled, [aria-invalid] input:checked") || $("alert");
  wrong?.focus();
})();
