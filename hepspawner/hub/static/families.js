// Families: one card for several images, which selects tell apart. Each image keeps its radio button; in sight is that of
// the one that the selects say. Without this script all of them are.
(() => {
  "use strict";
  const root = document.getElementById("hep");
  const form = root && root.closest("form");
  if (!form) return;
  const data = JSON.parse(document.getElementById("hep-data").textContent);
  const families = new Map([...root.querySelectorAll("li.f")].map((card) => [card, read(card)]));

  function read(card) {
    const group = card.querySelector("[role=group]");
    const selects = [...group.querySelectorAll("select")];
    const title = card.querySelector("b").textContent;
    const members = [...group.querySelectorAll("label")].map((label) => {
      const text = label.childNodes[1].data;
      return { label, text, radio: label.firstChild, values: selects.length > 1 ? text.split(" · ") : [text] };
    });
    for (const select of selects) select.setAttribute("aria-label", `${select.title} of ${title}`);
    for (const { radio, text } of members) radio.setAttribute("aria-label", `${title}, ${text}`);
    return { group, selects, members, place: card.lastElementChild, shown: null };
  }

  const fits = (member, values) => values.every((value, i) => member.values[i] === value);
  const usable = (members) => members.find((member) => !member.radio.disabled) || members[0];

  // A select offers what there is beside what the selects before it say.
  function show(family, member) {
    if (family.shown === member) return;
    family.shown = member;
    for (const { label } of family.members) label.hidden = label !== member.label;
    family.selects.forEach((select, i) => {
      for (const option of select.options) {
        const there = family.members.filter((one) => fits(one, [...member.values.slice(0, i), option.text]));
        option.hidden = !there.length;
        option.disabled = there.every((one) => one.radio.disabled);
        const why = option.disabled && there[0]?.label.querySelector("small")?.textContent;
        option.label = why ? `${option.text} – ${why}` : option.text;
        option.selected = option.text === member.values[i];
      }
    });
  }

  // What was changed holds; of the selects after it what can be kept.
  function choose(family, select) {
    const last = family.selects.indexOf(select);
    let values = family.selects.slice(0, last + 1).map((one) => one.value);
    for (const one of family.selects.slice(last + 1)) {
      const there = family.members.filter((member) => fits(member, values) && !member.radio.disabled);
      const kept = there.some((member) => member.values[values.length] === one.value);
      values = [...values, kept ? one.value : (there[0] || family.members.find((member) => fits(member, values))).values[values.length]];
    }
    const member = usable(family.members.filter((one) => fits(one, values)));
    show(family, member);
    member.radio.click();
  }

  // Where it is, when it was published and so on: asked for when somebody looks at one.
  async function tell(family) {
    const { value } = family.shown.radio;
    const headers = { "X-XSRFToken": window.jhdata?.xsrf_token || "" };
    const answer = await fetch(`${data.images}/${encodeURIComponent(value)}`, { headers })
      .then((response) => (response.ok ? response.json() : {}))
      .catch(() => ({}));
    if (!answer.places || family.shown.radio.value !== value) return;
    const above = family.group.closest("details").querySelector("summary small")?.textContent || "";
    const places = answer.places.map((place) => (place.startsWith(above) ? place.slice(above.length) : place));
    family.place.textContent = [places.join(" or "), answer.about].filter(Boolean).join(" · ");
  }

  for (const [card, family] of families) {
    for (const select of family.selects) select.hidden = false;
    family.group.classList.add("js");
    show(family, family.members.find(({ radio }) => radio.checked) || usable(family.members));
    card.addEventListener("change", ({ target }) => family.selects.includes(target) && choose(family, target));
    // the search shows one that it found
    card.addEventListener("hep-show", ({ detail }) => show(family, family.members.find(({ radio }) => radio === detail)));
  }

  function follow() {
    const radio = form.querySelector("input[name=image]:checked");
    const family = families.get(radio?.closest("li"));
    if (!family) return;
    show(family, family.members.find((member) => member.radio === radio));
    if (data.images && family.told !== radio) tell(family);
    family.told = radio;
  }

  root.addEventListener("hep-refresh", follow);
  follow();
})();
