"""Where the image of a choice is, and what speaks against it, as far as the hub can see it before anything starts."""

import asyncio
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..backends.base import BackendError
from ..backends.command import run
from ..catalog import inspect, near
from ..catalog.layouts import directory_of, layout_of, short
from ..catalog.probe import look
from ..catalog.references import is_reference
from ..catalog.state import PRESENT
from ..choice import Choice, Offer
from ..session import places_of_choice
from ..site.model import Image

if TYPE_CHECKING:
    from .runtime import Runtime

_DEADLINE = 10.0
_HELP_DEADLINE = 5.0


@dataclass(frozen=True)
class Located:
    """What is known of the image before the node looks."""

    places: list[str]
    """Where the node shall look, in this order; empty: there is nothing to look for."""
    also: list[str]
    """What the node shall tell of, where the image is not at its places."""
    problem: str = ""
    """What speaks against it, in words; empty: nothing."""
    pinned: str = ""
    """The place that leads to the one in `places`, where the hub and no launcher resolves it."""


async def locate(
    runtime: "Runtime", choice: Choice, offer: Offer, command: str, ran: Iterable[Mapping[str, str]]
) -> Located:
    """Look for the image of a choice, whose server is `command` where the site says nothing else.

    What was seen well within the last minute is believed; everything else is looked at, with a deadline: where
    nothing answers, the node will tell. `ran`: what the user's own servers run or ran from, each as `Run.image`.
    """
    if choice.custom_image:
        return await _custom(runtime, choice, offer, command)
    image = offer.images[str(choice.image)]
    backend = runtime.backend(choice.backend)
    config = backend.config
    if choice.digest and backend.runs_images == "references":
        # What file systems call an image by is no name that a registry knows it by.
        text = (
            f"{image.name}@{short(choice.digest)}: {backend.title} runs images as they are today; choose {image.name}"
        )
        return Located([], [], text)
    if choice.digest:
        places = places_of_choice(choice, image)
        located = await _pinned(runtime, offer, image, choice.digest, places, config.probe == "hub", ran)
        return _one_of(located, runtime, choice.digest) if backend.runs_images and not located.problem else located
    if config.probe != "hub" or not image.places:
        return Located(image.path, [])
    state = runtime.catalog.state(image, [config])
    if state.kind not in PRESENT:
        await _look(runtime, image)
        state = runtime.catalog.state(image, [config])
    if not state.ok:
        return Located([], [], f"{image.name}: {state.path} {state.text}")
    if backend.runs_images != "places" or not image.path:
        return Located(image.path, [])
    # No launcher looks where the link leads, or which place is there.
    directory = directory_of(state.path, state.real) if state.kind in PRESENT else state.path
    return Located([directory], [], pinned=state.path if directory != state.path else "")


async def _look(runtime: "Runtime", image: Image) -> None:
    try:
        await asyncio.wait_for(runtime.catalog.look(image), _DEADLINE)
    except asyncio.TimeoutError:
        pass


async def _pinned(
    runtime: "Runtime",
    offer: Offer,
    image: Image,
    digest: str,
    places: list[str],
    hub_looks: bool,
    ran: Iterable[Mapping[str, str]],
) -> Located:
    own = any((one.get("name"), one.get("digest")) == (image.name, digest) for one in ran)
    known = runtime.catalog.knows(image, digest, own, offer.images)
    if not known and hub_looks:
        await _look(runtime, image)
        known = runtime.catalog.knows(image, digest, own, offer.images)
    if not known:
        today = {path: runtime.catalog.leads_to(path) for path in image.path}
        return Located([], [], _strange_words(image.name, digest, today))
    if not hub_looks:
        return Located(places, image.path)
    facts = await look([*places, *image.path], _DEADLINE)
    found = [place for place in places if facts[place].ok]
    if found:
        return Located(found, image.path)
    return Located([], [], gone_words(image.name, digest, {path: facts[path].real for path in image.path}))


def _one_of(located: Located, runtime: "Runtime", digest: str) -> Located:
    """Of the places that a digest may be at the one to be run, where no launcher looks for it."""
    if len(located.places) == 1:  # the hub saw it there
        return replace(located, pinned=located.also[0])
    for path in located.also:
        layout = layout_of(path, runtime.catalog.leads_to(path))
        likely = [place for place in located.places if layout.digest and layout_of(path, place).grace == layout.grace]
        if likely:
            return replace(located, places=likely[:1], pinned=path)
    return Located([], [], f"{short(digest)}: the hub cannot tell just now where this image is; take it as it is today")


def _tags(name: str, today: Mapping[str, str]) -> tuple[str, bool]:
    """What an image is today, as names with digests, and whether it is there at all."""
    there = dict.fromkeys(layout_of(path, real).digest for path, real in today.items() if real)
    return ", ".join(f"{name}@{one}" for one in there if one), bool(there)


def gone_words(name: str, digest: str, today: Mapping[str, str]) -> str:
    """What is said of an image that is not there any more. `today`: what its tags are now, path → real path."""
    names, there = _tags(name, today)
    rest = f"there is today: {names}" if names else f"take {name} as it is today" if there else "nor is its tag"
    return f"{name}@{short(digest)}: this image is not there any more; {rest}"


def _strange_words(name: str, digest: str, today: Mapping[str, str]) -> str:
    names, _ = _tags(name, today)
    rest = f"there is today: {names}" if names else f"take {name} as it is today"
    return f"{name}@{short(digest)}: the hub does not know that {name} ever was this image; {rest}"


async def _custom(runtime: "Runtime", choice: Choice, offer: Offer, command: str) -> Located:
    path = str(choice.custom_image)
    backend = runtime.backend(choice.backend)
    if is_reference(path):
        return Located([], [])
    if backend.config.probe != "hub":
        return Located([path], [])
    roots = [root for root, _ in offer.custom_roots if root]
    parent = path.rpartition("/")[0]
    account = await backend.look_as(offer.who.name)
    facts = await look([path, *roots, *([parent] if parent else [])], _DEADLINE, account)
    fact, links = facts[path], {root: facts[root].real or root for root in roots}
    if fact.real and not offer.allows(fact.real, links):
        return Located([], [], f"{path!r} leads out of what is allowed; allowed: {', '.join(offer.custom)}")
    if not fact.ok or fact.kind == "prefix":
        meant = ""
        if fact.kind == "missing":
            known = [place for image in offer.images.values() for place in image.path]
            # A link in a home may lead the listing to what the user may not see.
            listed = parent in facts and offer.allows(facts[parent].real + "/x", links)
            meant = await _meant(path if listed else "/-/" + path.rpartition("/")[2], known, account)
        return Located([], [], f"{path!r} {fact.text or 'is not an image'}{meant}")
    if fact.kind == "sandbox" and await _lacks_server(fact.real, command, account):
        return Located([], [], f"{path!r} has no {command} in its PATH: no server can be started from it")
    return Located([fact.real or path], [])


async def _meant(path: str, known: list[str], account: Mapping[str, Any]) -> str:
    order = json.dumps({"path": path, "known": known})
    found = await _ask([str(near.__file__)], order.encode(), account)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


async def _lacks_server(real: str, command: str, account: Mapping[str, Any]) -> bool:
    order = json.dumps({"root": real, "command": command, "only_server": True})
    facts = await _ask([str(inspect.__file__), order], b"", account)
    return bool(facts) and facts["server"] is None


async def _ask(argv: list[str], stdin: bytes, account: Mapping[str, Any]) -> Any:
    """What one of the catalog's programs answers; None where it does not in time: then the node has to tell."""
    try:
        done = await run([sys.executable, "-I", "-S", *argv], stdin, {}, _HELP_DEADLINE, account)
        return json.loads(done.out)
    except (BackendError, ValueError):
        return None
