"""What runs from which image: what launchers report of it, and what its users are told."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..backends.base import BackendError
from ..catalog.layouts import Layout, short
from ..catalog.state import PRESENT, State
from .locate import gone_words
from .run import Failure, Run

if TYPE_CHECKING:
    from .runtime import Runtime

_KINDS = ("sandbox", "sif", "missing", "unreadable", "not an image", "no answer")


def take_report(runtime: "Runtime", run: Run, data: Mapping[str, Any]) -> dict[str, str]:
    """Note what a launcher says of the places of its image; returns what it found: path → real path.

    A launcher is the user's: of places that are none of this run's image it can tell nothing.
    """
    known = [*run.places, *run.also]
    found: dict[str, str] = {}
    kinds: dict[str, str] = {}
    images = data.get("images")
    for one in images if isinstance(images, list) else ():
        if not isinstance(one, list) or len(one) != 3 or one[0] not in known or one[1] not in _KINDS:
            continue
        if _is_path(one[2]) or not one[2]:
            found[one[0]], kinds[one[0]] = str(one[2]), str(one[1])
    # Where an old image was wanted by its digest its own places tell nothing of the image as it is today.
    today = [path for path in kinds if path in (run.also or run.places)]
    if today and _node_looks(runtime, run):
        path = next((path for path in today if kinds[path] in PRESENT), today[0])
        good = kinds[path] in PRESENT
        why = "" if good else State(kinds[path], path).text
        runtime.catalog.told(run.image_name, path, why, found[path])
    place, real = data.get("place"), data.get("real")
    if place in run.places and _is_path(real):
        run.runs_from(str(place), str(real))
    return found


def _is_path(text: Any) -> bool:
    return isinstance(text, str) and text.startswith("/") and len(text) < 4096 and text.isprintable()


def _node_looks(runtime: "Runtime", run: Run) -> bool:
    try:
        return bool(runtime.backend(run.backend).config.probe == "node")
    except BackendError:
        return False


def missing_words(run: Run, failure: Failure, found: Mapping[str, str]) -> Failure:
    """The end of a run whose node lacks the image: where a digest was wanted, with what is there instead."""
    if not run.also:
        return failure
    digest = str(run.options.get("image", "")).rpartition("@")[2]
    words = gone_words(run.image_name, digest, {path: found[path] for path in run.also if path in found})
    return replace(failure, message=f"{failure.message} {words}.", advice="Choose the image as it is today.")


def told(runtime: "Runtime", image: Mapping[str, str]) -> dict[str, Any]:
    """What a user is told of the image that his server runs, or ran: for pages and the API.

    `newer` is None where the tag leads to what runs, or where that is not known; else the digest it leads to, empty
    where its layout has none.
    """
    newer = runtime.newer(image)
    return {
        "image": image["name"],
        "digest": image["digest"],
        "pinned": f"{image['name']}@{image['digest']}" if image["digest"] and image["name"][0] != "/" else None,
        "place": image["place"],
        "path": image["real"],
        "newer": newer.digest if newer else None,
        "note": _newer_words(newer),
    }


def _newer_words(newer: Layout | None) -> str:
    if newer is None:
        return ""
    which = f" ({short(newer.digest)})" if newer.digest else ""
    return f"its tag was moved since: a newer image is there{which}; stop the server and start it again to get it"
