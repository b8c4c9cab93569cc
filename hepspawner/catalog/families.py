"""Families: images that are one thing in several makings, shown as one card with choices. Pure.

Tags of one repository (``ml-base:alma9-python311``, ``ml-base:centos7-python38``) tell apart the operating system, the
Python, CPU or GPU, and a version. A collection such as ESCAPE's has a repository for each of its levels.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..site.model import Image

LEVELS = ("mercury", "venus", "earth", "mars", "jupiter", "saturn")
"""ESCAPE's, from small to large."""
_SPELLINGS = {"jupyter": "jupiter"}
_NONE = "–"
_BETWEEN = " · "
_OTHER_OS = "centos|ubuntu|debian|fedora|alpine|opensuse|alma|almalinux|rocky|rockylinux"
_OS = re.compile(rf"(?:{_OTHER_OS}|cc|cs|el|rhel|slc|sl|ubi)\d+(?:\.\d+)*|{_OTHER_OS}")
_PYTHON = re.compile(r"(?:python|py|cp)(\d)\.?(\d[\d.]*)?")
_CUDA = re.compile(r"(?:cuda|cu)(\d+)(?:\.(\d+))?[\d.]*")
_ROCM = re.compile(r"rocm(\d[\d.]*)?")
_VARIANT = re.compile(r"[-_ ](?:cpu|gpu|cuda)$")
_TAKES_NUMBER = re.compile(rf"{_OTHER_OS}|python|py|cuda|rocm")
_NUMBER = re.compile(r"\d[\d.]*")
_PARTS = re.compile(r"[-_]")
_EDGES = " :-–·,()/"


@dataclass(frozen=True)
class Facet:
    """In what members of a family differ, with the values that there are, in the order to show them."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Member:
    """An image of a family, and its value of each facet."""

    image: Image
    values: tuple[str, ...]

    @property
    def label(self) -> str:
        """What tells it from the others, for people; empty where it is alone."""
        return _BETWEEN.join(self.values)


@dataclass(frozen=True)
class Family:
    """Images to be shown as one. An image that stands for itself is a family of one member without facets."""

    title: str
    facets: tuple[Facet, ...]
    members: tuple[Member, ...]


def families(images: Iterable[Image]) -> list[Family]:
    """The families of images, in the order in which the first of each comes.

    Members agree in group, repository and title (tags left aside), or in their key `family`. No two members have the
    same values.
    """
    images = list(images)
    collections = _collections(images)
    found: dict[tuple[str, ...], list[Image]] = {}
    for i, image in enumerate(images):
        key = _key(image, collections) or (str(i),)  # alone
        found.setdefault(key, []).append(image)
    return [_family(key, members) for key, members in found.items()]


def _key(image: Image, collections: set[tuple[str, str]]) -> tuple[str, ...] | None:
    if image.family:
        return "family", image.group, image.family
    if image.prefix:
        return None
    place = _Place.of(image)
    if (image.group, place.collection) in collections:
        return "collection", image.group, place.collection
    if not place.tag:
        return None
    return "repository", image.group, place.stem, _stem_title(image.title, place)


def _collections(images: list[Image]) -> set[tuple[str, str]]:
    """Repositories that differ in a level alone: those with two levels at least, since a "jupyter" may be alone."""
    levels: dict[tuple[str, str], set[str]] = {}
    for image in images:
        place = _Place.of(image)
        if place.level and not image.family and not image.prefix:
            levels.setdefault((image.group, place.collection), set()).add(_level_word(place.level))
    return {key for key, words in levels.items() if len(words) > 1}


def _family(key: tuple[str, ...], images: list[Image]) -> Family:
    if len(images) == 1:
        return Family(images[0].label, (), (Member(images[0], ()),))
    place = _Place.of(images[0])
    if key[0] == "family":
        title = key[2]
    elif key[0] == "collection":
        title = place.collection.replace("*", "").strip("-_./").rpartition("/")[2].strip("-_.")
    else:
        title = key[3] or place.stem.rpartition("/")[2]
    known = [_facets(image, key[0] == "collection") for image in images]
    names = [name for name in _ORDER if len({facets.get(name, _NONE) for facets in known}) > 1]
    values = [tuple(facets.get(name, _NONE) for name in names) for facets in known]
    if len(set(values)) < len(images):
        names, values = ["Image"], [(word,) for word in _words(images)]
    facets = tuple(
        Facet(name, tuple(_sorted(name, dict.fromkeys(value[i] for value in values)))) for i, name in enumerate(names)
    )
    rank = [{value: i for i, value in enumerate(facet.values)} for facet in facets]
    members = [Member(image, value) for image, value in zip(images, values, strict=True)]
    members.sort(key=lambda member: [ranks[value] for ranks, value in zip(rank, member.values, strict=True)])
    return Family(title, facets, tuple(members))


def _words(images: list[Image]) -> list[str]:
    """What tells images apart of which the tags do not: the first kind of word that is another for each."""
    for words in ([_Place.of(image).tag for image in images], [_neat(image.title) for image in images]):
        if all(words) and len(set(words)) == len(words):
            return words
    return [image.name for image in images]


def _neat(text: str) -> str:
    """As browsers read a choice: spaces are one space."""
    return " ".join(text.split())


# --- what a place and its tags say

_ORDER = ("Level", "Operating system", "Python", "Processor", "Version")


@dataclass(frozen=True)
class _Place:
    """Where an image lies, taken apart. `stem` is the repository without cpu or gpu at its end."""

    stem: str
    variant: str
    tag: str
    level: str
    collection: str
    """The stem with ``*`` for its level."""

    @staticmethod
    def of(image: Image) -> "_Place":
        return _take_apart(image.path[0] if image.path else image.oci or "")


@lru_cache(maxsize=1 << 14)
def _take_apart(place: str) -> _Place:
    head, slash, last = place.partition("@")[0].rpartition("/")
    name, _, tag = last.partition(":")
    tag = _neat(tag.replace(_BETWEEN, " "))
    variant = found[0][1:] if (found := _VARIANT.search(name.lower())) else ""
    name = name[: len(name) - len(variant) - 1] if variant else name
    level = next((part for part in re.split(r"[-_.]", name) if _level_word(part) in LEVELS), "")
    return _Place(
        head + slash + name, variant, tag, level, head + slash + (name.replace(level, "*", 1) if level else name)
    )


def _level_word(text: str) -> str:
    word = text.lower()
    return _SPELLINGS.get(word, word)


def _stem_title(title: str, place: _Place) -> str:
    """A title without what only one member is: its tag, and CPU or GPU."""
    plain = title.replace(place.tag, "").strip(_EDGES)
    return plain[: found.start()] if place.variant and (found := _VARIANT.search(plain.lower())) else plain


def _facets(image: Image, collection: bool) -> dict[str, str]:
    place = _Place.of(image)
    found = dict(_read(place.tag, place.variant, tuple(image.tags)))
    if "Processor" not in found and image.gpu != "optional":
        found["Processor"] = "GPU" if image.gpu == "required" else "CPU"
    level = _neat(image.level.replace(_BETWEEN, " ")) or (place.level.capitalize() if collection else "")
    return {**found, "Level": level} if level else found


@lru_cache(maxsize=1 << 14)
def _read(tag: str, variant: str, tags: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """What a tag says, and where it does not, what an image's own tags say."""
    found: dict[str, str] = {}
    rest = []
    for part in _parts(tag):
        name, value = _meaning(part)
        if name:
            found[name] = max(found.get(name, ""), value, key=len)  # "cuda12.4" says more than "gpu"
        else:
            rest.append(part)
    for word in (variant, *tags):
        name, value = _meaning(re.sub(r"[\s:=]+", "", word))
        if name:
            found.setdefault(name, value)
    if rest:
        found["Version"] = "-".join(rest)
    return tuple(found.items())


def _parts(tag: str) -> Iterator[str]:
    """The parts of a tag; a name whose number is the next part is one with it (``ubuntu-24.04``)."""
    parts = [part for part in _PARTS.split(tag) if part]
    while parts:
        part = parts.pop(0)
        if parts and _TAKES_NUMBER.fullmatch(part.lower()) and _NUMBER.fullmatch(parts[0]):
            part += parts.pop(0)
        yield part


def _meaning(part: str) -> tuple[str, str]:
    """The facet that a word tells, and its value; an empty one where it tells none."""
    word = part.lower()
    if _OS.fullmatch(word):
        return "Operating system", word
    if found := _PYTHON.fullmatch(word):
        return "Python", f"Python {found[1]}.{found[2]}" if found[2] else f"Python {found[1]}"
    if found := _CUDA.fullmatch(word):
        major, minor = (found[1], found[2]) if found[2] or len(found[1]) < 3 else (found[1][:-1], found[1][-1])
        return "Processor", f"CUDA {major}.{minor}" if minor else f"CUDA {major}"
    if found := _ROCM.fullmatch(word):
        return "Processor", f"ROCm {found[1]}" if found[1] else "ROCm"
    return ("Processor", "CPU" if word == "cpu" else "GPU") if word in ("cpu", "gpu", "cuda", "nvidia") else ("", "")


# --- in which order


def _sorted(name: str, values: Iterable[str]) -> list[str]:
    """Levels as they grow, others by name; of numbers the greatest first; what has no value last.

    Levels that are none of ESCAPE's stay as they come."""
    if name == "Level":
        return sorted(values, key=_level_rank)
    return sorted(values, key=lambda value: (value == _NONE, _natural(value)))


def _level_rank(value: str) -> int:
    word = _level_word(value)
    return LEVELS.index(word) if word in LEVELS else len(LEVELS)


@lru_cache(maxsize=1 << 12)
def _natural(text: str) -> tuple[tuple[int, int, str], ...]:
    parts = re.split(r"([0-9]{1,18})", text)
    return tuple((1, 0, part.lower()) if i % 2 == 0 else (0, -int(part), "") for i, part in enumerate(parts))
