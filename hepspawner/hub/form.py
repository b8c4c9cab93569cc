"""The spawn form: what an offer looks like to people. Pure: no I/O but reading our own static files, once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..choice import Field, Offer
from ..site.model import Image

if TYPE_CHECKING:
    from ..templates import Templates

_MANY = 24
"""From this number of images on, only the group of the chosen one is open at first."""
_MAX_ECHO = 4096
_TYPES = {
    "local": "this machine",
    "slurm": "Slurm",
    "htcondor": "HTCondor",
    "kubernetes": "Kubernetes",
    "batchspawner": "batch system",
}


@dataclass(frozen=True)
class Group:
    """A heading with its images. A card is a tuple, which Jinja2 unpacks fastest: see `_card`."""

    title: str
    prefix: str
    cards: list[tuple[Any, ...]]
    open: bool


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


def form_context(
    offer: Offer,
    *,
    options: Mapping[str, Any],
    errors: Mapping[str, str],
    notes: Mapping[str, str],
    last: str,
    failure: Any,
    states: Mapping[str, Any],
    warnings: Sequence[str],
    urls: Mapping[str, str],
    query_prefix: str,
    server: str = "",
) -> dict[str, Any]:
    """What form.html is rendered with.

    `options` fill the fields in, as they were typed. `errors` and `notes` (presets that were dropped) are by field,
    `states` (.ok, .text) by image. `last` is the last choice in a line, "" where the fields hold something else.
    """
    options = {name: _echo(value) for name, value in options.items()}
    image, custom = _chosen_image(offer, options, errors, states)
    backend = _chosen_backend(offer, image, options)
    rows = _rows(offer, backend, image, options, errors)
    fields = {one.name for one in offer.fields(backend)} if backend else set()
    beside = fields | {"image"} | ({"custom_image"} if offer.custom else set())
    beside |= {"backend"} if len(offer.backends) > 1 else set()
    notes = dict(notes)
    asked = offer.images.get(options.get("image", ""))
    if asked and asked is not image and not errors:
        notes.setdefault("image", f"{asked.label} {states[asked.name].text or 'is not available'}")
    return {
        "groups": _groups(offer, image, states),
        "total": len(offer.images),
        "chosen": image.name if image else None,
        "custom": {"allow": offer.custom, "on": custom, "value": options.get("custom_image", "")}
        if offer.custom
        else None,
        "backends": [_backend(offer, name) for name in offer.backends],
        "backend": backend,
        "gpu_rows": [row for row in rows if row.name in ("gpu", "gpus")],
        "rows": [row for row in rows if row.name not in ("gpu", "gpus")],
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


def _chosen_image(
    offer: Offer, options: Mapping[str, str], errors: Mapping[str, str], states: Mapping[str, Any]
) -> tuple[Image | None, bool]:
    """The image that is chosen at first, and whether it is one of the user's own."""
    if offer.custom and (options.get("custom_image") or "custom_image" in errors) and not options.get("image"):
        return None, True
    asked = offer.images.get(options.get("image", ""))
    if asked and _ok(asked, states):
        return asked, False
    return next((image for image in offer.images.values() if _ok(image, states)), None), False


def _ok(image: Image, states: Mapping[str, Any]) -> bool:
    state = states.get(image.name)
    return state is None or state.ok


def _chosen_backend(offer: Offer, image: Image | None, options: Mapping[str, str]) -> str:
    """The backend that is chosen at first: the one asked for, else what `Offer.choose` would take; "" for none."""
    if options.get("backend") in offer.backends:
        return options["backend"]
    possible = offer.backends_of(image)
    kind, wanted = options.get("gpu"), options.get("gpu") or options.get("gpus", "0") not in ("", "0")
    for name, config in possible.items():
        if not wanted or (config.gpus and (not kind or kind in config.gpus)):
            return name
    return next(iter(possible or offer.backends), "")


def _groups(offer: Offer, chosen: Image | None, states: Mapping[str, Any]) -> list[Group]:
    by_title: dict[str, list[Image]] = {}
    for image in offer.images.values():
        by_title.setdefault(image.group, []).append(image)
    rest = by_title.pop("", None)
    listed = list(by_title.items())
    if rest:
        listed.append(("Other images" if by_title else "Images", rest))
    numbers = {name: str(i) for i, name in enumerate(offer.backends)}
    titles = {name: config.title or name for name, config in offer.backends.items()}
    few = len(offer.images) < _MANY
    groups = []
    for title, images in listed:
        prefix = _common(images)
        cards = [_card(image, prefix, numbers, titles, states) for image in images]
        groups.append(Group(title, prefix, cards, few or chosen in images or len(listed) == 1))
    return groups


def _common(images: list[Image]) -> str:
    """The directory in which all of a group's images are; "" where it is not worth telling once."""
    places = [place for image in images for place in (image.places or [image.oci or ""])]
    first, last = min(places), max(places)
    same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    directory = first[:same].rpartition("/")[0]
    return directory + "/" if len(places) > 1 and "/" in directory.strip("/") else ""


def _card(
    image: Image, prefix: str, numbers: Mapping[str, str], titles: Mapping[str, str], states: Mapping[str, Any]
) -> tuple[Any, ...]:
    """An image: name, title, GPU rule, tags, description, place, backends by number, where it runs in words, state."""
    places = image.places or [image.oci or ""]
    place = " or ".join([one[len(prefix) :] for one in places] if prefix else places)
    if image.prefix:
        place += " (no container)"
    only = where = ""
    if image.backends is not None and not numbers.keys() <= set(image.backends):
        able = [name for name in numbers if name in image.backends]
        only = " ".join(numbers[name] for name in able)
        where = " or ".join(titles[name] for name in able)
    state = "" if _ok(image, states) else states[image.name].text or "cannot be used now"
    return image.name, image.label, image.gpu, image.tags, image.description, place, only, where, state


def _backend(offer: Offer, name: str) -> dict[str, Any]:
    config = offer.backends[name]
    kinds = ", ".join(gpu.title or kind for kind, gpu in config.gpus.items())
    return {
        "name": name,
        "title": config.title or name,
        "hint": f"{_TYPES.get(config.type, config.type)} · {kinds or 'no GPU'}",
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
    rows: list[Row] = []
    for (name, select), shared in sharing.items():
        one = shared[0][1]
        here = shared[0][0] == backend
        values = dict(pair for _, field in shared for pair in field.values)
        optional = len(shared) < len(names) or any(field.default is None for _, field in shared)
        value = options.get(name) or (one.show(one.default) if here else "")
        if name == "gpu":
            wanted = image is not None and image.gpu == "required"
            wanted = (wanted or options.get("gpus", "") not in ("", "0")) and not (image and image.gpu == "none")
            value = options.get(name) or (next(iter(values)) if here and wanted else "")
        elif name == "gpus":
            value = "1" if value in ("", "0") else value
        error = errors.get(name, "") if here else ""
        hint = _hint(offer, shared, len(names))
        # Two backends may mean different things by a name: then it stands twice.
        key = f"{name}-{one.kind}" if any(row.name == name for row in rows) else name
        rows.append(Row(key, name, one.label, select, one.kind, value, hint, error, list(values.items()), optional))
    return rows


def _hint(offer: Offer, shared: list[tuple[str, Field]], backends: int) -> str:
    """What is allowed, on each backend; in the page a script leaves the chosen one's."""
    hints = {name: _allowed(one) for name, one in shared}
    if backends == 1 or (len(hints) == backends and len(set(hints.values())) == 1):
        return next(iter(hints.values()))
    return "; ".join(f"{offer.backends[name].title or name}: {text}" for name, text in hints.items())


def _allowed(one: Field) -> str:
    if one.kind == "select":
        return ", ".join(label for _, label in one.values)
    low, high = one.show(max(one.min, 1) if one.name == "gpus" else one.min), one.show(one.max)
    return (f"{low} to {high}" if high else f"{low} or more") + (f" {one.unit}" if one.unit else "")


def _data(offer: Offer, options: Mapping[str, str], urls: Mapping[str, str], query_prefix: str) -> dict[str, Any]:
    """What the script needs beyond the page itself: ranges and defaults of each backend."""
    backends = {}
    for name, config in offer.backends.items():
        backends[name] = {
            "title": config.title or name,
            "kinds": {kind: [gpu.title or kind, gpu.max] for kind, gpu in config.gpus.items()},
            "fields": {
                one.name: {
                    "kind": one.kind,
                    "default": one.default,
                    "min": one.min,
                    "max": one.max,
                    "values": [value for value, _ in one.values],
                    "hint": _allowed(one),
                }
                for one in offer.fields(name)
            },
        }
    return {
        "preview": urls["preview"],
        "spawn": urls["spawn"],
        "prefix": query_prefix,
        "given": [name for name, value in options.items() if value],
        "backends": backends,
    }
