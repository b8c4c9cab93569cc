"""Images as cards of the spawn form. Pure."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..catalog.families import Family, Member, families
from ..choice import Offer
from ..site.model import Image

_MANY = 24
"""From this number of images on, only the group of the chosen one is open at first."""
_RULES = {"none": ["n"], "required": ["r"]}


@dataclass(frozen=True)
class Standing:
    """How an image stands, as its card tells it."""

    ok: bool = True
    """False where it cannot be started."""
    text: str = ""
    """What is wrong, or may be; "" for nothing."""
    about: str = ""
    """When it was published, and its digest, as far as that is known."""
    packages: bool = False
    """Whether its packages are known."""
    real: str = ""
    """Where it is with all links resolved, as far as that is known."""


@dataclass(frozen=True)
class Group:
    """A heading with its cards. A card is a tuple, which Jinja2 unpacks fastest: see `_card`."""

    title: str
    prefix: str
    cards: list[tuple[Any, ...]]
    open: bool


_FINE = Standing()


def usable(image: Image, states: Mapping[str, Standing]) -> bool:
    """Whether an image can be started, as far as one knows."""
    state = states.get(image.name)
    return state is None or state.ok


def about(digest: str, published: float | None, now: float) -> str:
    """When an image was published, and the beginning of its digest, in words; each where it is known."""
    parts = []
    if published is not None:
        parts.append(f"published {_ago(now - published, published)}")
    if digest:
        parts.append(digest.partition(":")[2][:8] or digest[:8])
    return " · ".join(parts)


def _ago(seconds: float, at: float) -> str:
    days = int(seconds // 86400)
    if days > 60:
        return time.strftime("%Y-%m-%d", time.gmtime(at))
    if days > 0:
        return f"{days} days ago" if days > 1 else "yesterday"
    return f"{int(seconds // 3600)} h ago" if seconds >= 3600 else "just now"


def cards(offer: Offer, chosen: Image | None, states: Mapping[str, Standing]) -> list[Group]:
    """The cards of all images on offer, by group. `chosen` is in sight at first; `states` by image."""
    by_title: dict[str, list[Family]] = {}
    for family in families(offer.images.values()):
        by_title.setdefault(family.members[0].image.group, []).append(family)
    rest = by_title.pop("", None)
    listed = list(by_title.items())
    if rest:
        listed.append(("Other images" if by_title else "Images", rest))
    draw = _Cards(offer, states)
    few = sum(len(found) for _, found in listed) < _MANY
    groups = []
    for title, found in listed:
        images = [member.image for family in found for member in family.members]
        prefix = _common(images)
        is_open = few or len(listed) == 1 or any(image is chosen for image in images)
        groups.append(Group(title, prefix, [draw.card(family, prefix) for family in found], is_open))
    return groups


def _common(images: list[Image]) -> str:
    """The directory in which all of a group's images are; "" where it is not worth telling once."""
    places = [place for image in images for place in (image.places or [image.oci or ""])]
    directory = _shared(places).rpartition("/")[0]
    return directory + "/" if len(places) > 1 and "/" in directory.strip("/") else ""


def _shared(texts: list[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)
    same = next((i for i, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:same]


class _Cards:
    """Draws families as cards. What is the same for all members is said once: a page holds thousands of them."""

    def __init__(self, offer: Offer, states: Mapping[str, Standing]):
        self.states = states
        self.numbers = {name: str(i) for i, name in enumerate(offer.backends)}
        self.titles = {name: config.title or name for name, config in offer.backends.items()}

    def card(self, family: Family, prefix: str) -> tuple[Any, ...]:
        """Name (of an image alone), title, class, badge, tags, description, place, backends by number, where it runs
        in words, what is wrong, what else is known, facets, members.

        A class has letters: ``x`` cannot be started, ``n`` and ``r`` the GPU rule, ``p`` packages are known."""
        images = [member.image for member in family.members]
        standings = [self.states.get(image.name) or _FINE for image in images]
        first, alone = images[0], len(images) == 1
        gpu = first.gpu if len({image.gpu for image in images}) == 1 else ""
        same_backends = len({tuple(image.backends or "*") for image in images}) == 1
        wrong = _wrong(standings[0]) if len({_wrong(standing) for standing in standings}) == 1 else ""
        only, where = self._only(first) if same_backends else ("", "")
        classes = ["x"] * (not any(standing.ok for standing in standings)) + _RULES.get(gpu, [])
        classes += ["p"] * any(standing.packages for standing in standings) + ["f"] * (not alone)
        members = [] if alone else [
            self._member(member, standing, first, not gpu, same_backends, not wrong)
            for member, standing in zip(family.members, standings, strict=True)
        ]  # fmt: skip
        return (
            first.name if alone else "",
            family.title,
            " ".join(classes),
            gpu,
            [tag for tag in first.tags if all(tag in image.tags for image in images)],
            first.description,
            _place(images, prefix),
            only,
            where,
            wrong,
            standings[0].about if alone else "",
            [(facet.name, facet.values) for facet in family.facets],
            members,
        )

    def _member(
        self, member: Member, standing: Standing, first: Image, own_gpu: bool, same_backends: bool, own_wrong: bool
    ) -> tuple[Any, ...]:
        """Name, label, class, backends by number, what is wrong, description where it is one of its own."""
        image = member.image
        classes = ["x"] * (not standing.ok) + (_RULES.get(image.gpu, []) if own_gpu else [])
        text = _wrong(standing) if own_wrong else ""
        own = image.description if image.description != first.description else ""
        only = "" if same_backends else self._only(image)[0]
        return image.name, member.label, " ".join(classes), only, text, own

    def _only(self, image: Image) -> tuple[str, str]:
        """On which backends it runs where not on all of them: by number, and in words."""
        if image.backends is None or self.numbers.keys() <= set(image.backends):
            return "", ""
        able = [name for name in self.numbers if name in image.backends]
        return " ".join(self.numbers[name] for name in able), " or ".join(self.titles[name] for name in able)


def _wrong(standing: Standing) -> str:
    return standing.text or ("" if standing.ok else "cannot be used now")


def _place(images: list[Image], prefix: str) -> str:
    """Where images are, below what is said above them; of several what they share."""
    places = [place for image in images for place in (image.places or [image.oci or ""])]
    if len(images) > 1:
        places = [_shared(places)]
        if len(places[0]) <= len(prefix):
            return ""
        places = [places[0].rstrip(":-_.")]
    place = " or ".join([one[len(prefix) :] for one in places] if prefix else places)
    return f"{place} (no container)" if images[0].prefix else place
