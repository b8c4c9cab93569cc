"""Where the image of a choice is, and what speaks against it, as far as the hub can see it before anything starts."""

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..backends.base import BackendError
from ..backends.command import run
from ..catalog import inspect, near
from ..catalog.layouts import layout_of, short
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


async def locate(runtime: "Runtime", choice: Choice, offer: Offer, command: str) -> Located:
    """Look for the image of a choice, whose server is `command` where the site says nothing else.

    What was seen well within the last minute is believed; everything else is looked at, with a deadline: where
    nothing answers, the node will tell.
    """
    if choice.custom_image:
        return await _custom(runtime, choice, offer, command)
    image = offer.images[str(choice.image)]
    config = runtime.backend(choice.backend).config
    if choice.digest:
        return await _pinned(image, choice.digest, places_of_choice(choice, image), config.probe != "hub")
    if config.probe != "hub" or not image.places:
        return Located(image.path, [])
    state = runtime.catalog.state(image, [config])
    if state.kind not in PRESENT:
        try:
            await asyncio.wait_for(runtime.catalog.look(image), _DEADLINE)
        except asyncio.TimeoutError:
            pass
        state = runtime.catalog.state(image, [config])
    if not state.ok:
        return Located([], [], f"{image.name}: {state.path} {state.text}")
    # What is there for the hub is most likely there on the node.
    return Located(sorted(image.path, key=lambda path: path != state.path), [])


async def _pinned(image: Image, digest: str, places: list[str], on_node: bool) -> Located:
    if on_node:
        return Located(places, image.path)
    facts = await look([*places, *image.path], _DEADLINE)
    found = [place for place in places if facts[place].ok]
    if found:
        return Located(found, image.path)
    return Located([], [], gone_words(image.name, digest, {path: facts[path].real for path in image.path}))


def gone_words(name: str, digest: str, today: Mapping[str, str]) -> str:
    """What is said of an image that is not there any more. `today`: what its tags are now, path → real path."""
    there = dict.fromkeys(layout_of(path, real).digest for path, real in today.items() if real)
    names = ", ".join(f"{name}@{one}" for one in there if one)
    rest = f"there is today: {names}" if names else f"take {name} as it is today" if there else "nor is its tag"
    return f"{name}@{short(digest)}: this image is not there any more; {rest}"


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
