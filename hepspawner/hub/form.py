"""The spawn form: what an offer looks like to people. Pure: no I/O but reading our own static files, once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..catalog.layouts import layout_of, outlive_words
from ..choice import ChoiceError, Field, Offer, split_digest
from ..site.model import Image
from ..units import parse_time
from .cards import Standing, cards, usable

if TYPE_CHECKING:
    from ..templates import Templates

UNREAD = "The lists of images cannot be read just now; try again in a minute."
_MAX_ECHO = 4096
_TYPES = {
    "local": "this machine",
    "slurm": "Slurm",
    "htcondor": "HTCondor",
    "kubernetes": "Kubernetes",
    "batchspawner": "batch system",
}


@dataclass(frozen=True)
class Row:
    """One field of the form. Backends that have it share it: in the page it stands once."""

    id: str
    name: str
    label: str
    select: bool
    kind: str
    value: str
    hint: str
    error: str
    values: list[tuple[str, str]]
    """Of a select: all values of all backends."""
    optional: bool
    """Whether a select may stay empty: it has no default, or a backend does not have it."""
    leads: bool
    """Whether other fields depend on it, as on a partition."""


def form_context(
    offer: Offer,
    *,
    options: Mapping[str, Any],
    errors: Mapping[str, str],
    notes: Mapping[str, str],
    last: str,
    failure: Any,
    states: Mapping[str, Standing],
    warnings: Sequence[str],
    urls: Mapping[str, str],
    query_prefix: str,
    server: str = "",
    ran: Mapping[str, Any] | None = None,
    incomplete: bool = False,
) -> dict[str, Any]:
    """What form.html is rendered with. `ran`: what ran the last time, as `images.told` has it. `incomplete`: a list of
    images could not be read yet.

    `options` fill the fields in, as they were typed. `errors` and `notes` (presets that were dropped) are by field,
    `states` by image. `last` is the last choice in a line, "" where the fields hold something else.
    """
    options = {name: _echo(value) for name, value in options.items()}
    very = _very_image(offer, options, ran)
    image, custom = _chosen_image(offer, options, errors, states)
    taken = _would_take(offer, image, options)
    backend = _chosen_backend(offer, image, options, taken)
    rows = _rows(offer, backend, image, {**options, **_leading(offer, backend, options, taken)}, errors)
    fields = {one.name for one in offer.fields(backend)} if backend else set()
    beside = fields | {"image"} | ({"custom_image"} if offer.custom else set())
    beside |= {"backend"} if len(offer.backends) > 1 else set()
    notes = dict(notes)
    asked = offer.images.get(options.get("image", ""))
    if asked and asked is not image and not errors:
        notes.setdefault("image", f"{asked.label} {states[asked.name].text or 'is not available'}")
    return {
        "groups": cards(offer, image, states),
        "searched": "images and packages" if any(one.packages for one in states.values()) else "images",
        "total": len(offer.images),
        "unread": UNREAD if incomplete and not offer.images else "",
        "chosen": image.name if image else None,
        "very": very,
        "outlive": _outlive(image, rows, states),
        "custom": {"allow": offer.custom, "on": custom, "value": options.get("custom_image", "")}
        if offer.custom
        else None,
        "backends": [_backend(offer, name) for name in offer.backends],
        "backend": backend,
        "leading_rows": [row for row in rows if row.leads],
        "gpu_rows": [row for row in rows if row.name in ("gpu", "gpus")],
        "rows": [row for row in rows if not row.leads and row.name not in ("gpu", "gpus")],
        "errors": errors,
        "general": {name: text for name, text in errors.items() if name not in beside},
        "notes": notes,
        "last": "" if errors else last,
        "failure": failure,
        "again": "",
        "warnings": list(warnings),
        "static": urls["static"],
        "data": {**_data(offer, options, urls, query_prefix), "server": server},
    }


def render_form(templates: "Templates", context: Mapping[str, Any]) -> str:
    """The form as HTML, to stand in JupyterHub's <form>."""
    return templates.render("form.html", **context)


def _echo(value: Any) -> str:
    """What was given, as text for a field."""
    return str(value)[:_MAX_ECHO] if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _very_image(offer: Offer, options: dict[str, str], ran: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The very image that can be had though its tag moved: the one asked for by digest, else the one that ran the last
    time, where that is not what there is today. None: there is nothing to choose. Takes the digest off the options."""
    name, asked = split_digest(options.get("image"), offer.images)
    digest, newer = asked, None
    if asked:
        options["image"] = name
    elif ran and ran["pinned"] and ran["newer"] is not None and ran["image"] in offer.images:
        name, digest = ran["image"], ran["digest"]
    if not digest:
        return None
    if ran and (ran["image"], ran["digest"]) == (name, digest) and ran["newer"] is not None:
        newer = ran["newer"] or "?"  # which one, its place may not tell
    return {"image": name, "label": offer.images[name].label, "digest": digest, "checked": bool(asked), "newer": newer}


def _outlive(image: Image | None, rows: list[Row], states: Mapping[str, Standing]) -> str:
    """The warning of the chosen image against the time that stands in the form."""
    state = states.get(image.name) if image else None
    if state is None or image is None or not image.path:
        return ""
    text = next((row.value for row in rows if row.name == "runtime"), "")
    try:
        seconds = parse_time(text) if text else None
    except ValueError:
        seconds = None
    return outlive_words(layout_of(image.path[0], state.real), seconds)


def _chosen_image(
    offer: Offer, options: Mapping[str, str], errors: Mapping[str, str], states: Mapping[str, Standing]
) -> tuple[Image | None, bool]:
    """The image that is chosen at first, and whether it is one of the user's own."""
    if offer.custom and (options.get("custom_image") or "custom_image" in errors) and not options.get("image"):
        return None, True
    asked = offer.images.get(options.get("image", ""))
    if asked and usable(asked, states):
        return asked, False
    return next((image for image in offer.images.values() if usable(image, states)), None), False


def _would_take(offer: Offer, image: Image | None, options: Mapping[str, str]) -> dict[str, Any]:
    """The options of what `Offer.choose` would take, of those given as far as they are allowed; empty: nothing."""
    given = {name: value for name, value in options.items() if value}
    if image:
        given = {**given, "image": image.name}
        given.pop("custom_image", None)
    try:
        return offer.choose(offer.preset(given)[0]).options()
    except ChoiceError:
        return {}


def _chosen_backend(offer: Offer, image: Image | None, options: Mapping[str, str], taken: Mapping[str, Any]) -> str:
    """The backend that is chosen at first: the one asked for, else what would be taken; "" for none."""
    if options.get("backend") in offer.backends:
        return options["backend"]
    return taken.get("backend") or next(iter((image and offer.backends_of(image)) or offer.backends), "")


def _leading(offer: Offer, backend: str, options: Mapping[str, str], taken: Mapping[str, Any]) -> dict[str, str]:
    """The values at first of the fields on which others depend: those asked for, else what would be taken."""
    fields = offer.fields(backend) if backend else []
    found = {}
    for one in fields:
        if any(other.per == one.name for other in fields):
            asked = options.get(one.name) or (taken.get(one.name) if taken.get("backend") == backend else None)
            found[one.name] = asked if asked in dict(one.values) else one.default
    return found


def _backend(offer: Offer, name: str) -> dict[str, Any]:
    config = offer.backends[name]
    kinds = ", ".join(label for one in offer.fields(name) if one.name == "gpu" for _, label in one.values)
    return {
        "name": name,
        "title": config.title or name,
        "hint": f"{_TYPES.get(config.type, config.type)} · {kinds or 'no GPU'}",
        "shared": config.type != "local",
    }


def _rows(
    offer: Offer, backend: str, image: Image | None, options: Mapping[str, str], errors: Mapping[str, str]
) -> list[Row]:
    """The fields of all backends, those of one name together: the chosen backend's first."""
    names = [backend, *(name for name in offer.backends if name != backend)] if backend else []
    sharing: dict[tuple[str, bool], list[tuple[str, Field]]] = {}
    for name in names:
        for one in offer.fields(name):
            sharing.setdefault((one.name, one.kind == "select"), []).append((name, one))
    leaders = {one.per for shared in sharing.values() for _, one in shared}
    rows: list[Row] = []
    for (name, select), shared in sharing.items():
        one = shared[0][1]
        here = one.at(options) if shared[0][0] == backend else None
        values = dict(pair for _, field in shared for pair in field.values) | dict(one.values)
        optional = len(shared) < len(names) or any(field.default is None for _, field in shared)
        value = options.get(name) or (here.show(here.default) if here else "")
        if name == "gpu":
            wanted = image is not None and image.gpu == "required"
            wanted = (wanted or options.get("gpus", "") not in ("", "0")) and not (image and image.gpu == "none")
            value = options.get(name) or (here.values[0][0] if here and wanted else "")
        elif name == "gpus":
            value = "1" if value in ("", "0") else value
        error = errors.get(name, "") if shared[0][0] == backend else ""
        hint = _hint(offer, shared, len(names), options)
        # Two backends may mean different things by a name: then it stands twice.
        key = f"{name}-{one.kind}" if any(row.name == name for row in rows) else name
        leads = select and name in leaders
        rows.append(
            Row(key, name, one.label, select, one.kind, value, hint, error, list(values.items()), optional, leads)
        )
    return rows


def _hint(offer: Offer, shared: list[tuple[str, Field]], backends: int, options: Mapping[str, str]) -> str:
    """What is allowed, on each backend; in the page a script leaves the chosen one's."""
    hints = {name: _allowed_on(offer, name, one, options) for name, one in shared}
    if backends == 1 or (len(hints) == backends and len(set(hints.values())) == 1):
        return next(iter(hints.values()))
    return "; ".join(f"{offer.backends[name].title or name}: {text}" for name, text in hints.items())


def _allowed_on(offer: Offer, backend: str, one: Field, options: Mapping[str, str]) -> str:
    """What is allowed on a backend, and where it depends on a partition, in which."""
    if not one.per:
        return _allowed(one)
    leader = next(other for other in offer.fields(backend) if other.name == one.per)
    value = options.get(one.per, "")
    value = value if value in one.cases else next(iter(one.cases))
    texts = {case: _allowed(one.cases[case]) for case, _ in leader.values if case in one.cases}
    if len(texts) == len(leader.values) and len(set(texts.values())) == 1:
        return texts[value]
    return f"{texts[value]} in {leader.label.lower()} {dict(leader.values)[value]}"


def _allowed(one: Field) -> str:
    if one.kind == "select":
        return ", ".join(label for _, label in one.values)
    low, high = one.show(max(one.min, 1) if one.name == "gpus" else one.min), one.show(one.max)
    return (f"{low} to {high}" if high else f"{low} or more") + (f" {one.unit}" if one.unit else "")


def _data(offer: Offer, options: Mapping[str, str], urls: Mapping[str, str], query_prefix: str) -> dict[str, Any]:
    """What the scripts need beyond the page itself: addresses, and ranges and defaults of each backend."""
    return {
        **{name: url for name, url in urls.items() if name != "static"},
        "prefix": query_prefix,
        "given": [name for name, value in options.items() if value],
        "backends": {
            name: {
                "title": config.title or name,
                "fields": {one.name: _spec(one) for one in offer.fields(name) if one.name != "gpus"},
            }
            for name, config in offer.backends.items()
        },
    }


def _spec(one: Field) -> dict[str, Any]:
    """A field as the script has it. Of each of its cases there is only what differs, so that the page stays small."""
    spec = _limits(next(iter(one.cases.values()), one))
    if one.name == "gpu":
        spec["values"] = dict(one.values)
    if one.per:
        cases = {value: _limits(case) for value, case in one.cases.items()}
        differs = {name: {key: case[key] for key in case if case[key] != spec[key]} for name, case in cases.items()}
        spec = {**spec, "per": one.per, "cases": differs}
    return spec


def _limits(one: Field) -> dict[str, Any]:
    if one.name == "gpu":
        return {"kind": one.kind, "most": one.most}
    if one.kind == "select":
        return {"kind": one.kind, "default": one.default, "values": dict(one.values)}
    return {"kind": one.kind, "default": one.default, "min": one.min, "max": one.max, "hint": _allowed(one)}
