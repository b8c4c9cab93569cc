"""What lists of images say. Pure: texts and names in, what they list out; what is not understood is told, by line."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from ..site.load import SiteError, parse_yaml
from ..site.model import Image, absolute_path

_REGISTRY = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?")
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_TAG = re.compile(r"[A-Za-z0-9_*.?\[][A-Za-z0-9_.*+?\[\]!-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,128}")
_MAX_REFERENCE = 1000
_MAX_ENTRIES = 20_000
_DOCKER_HUB = ("registry.hub.docker.com", "index.docker.io", "docker.io", "")

CATALOG_KEYS = (
    "name", "title", "description", "group", "family", "level", "tags", "path", "oci", "gpu", "jupyter_path",
    "default_url",
)  # fmt: skip
"""What is taken of an image of another site's catalog: what it is called and where it is. What would run or mount
something, or tell who may use it where, is this site's to say, for the source."""


@dataclass(frozen=True)
class Listed:
    """An image on a list."""

    path: str
    """Where it is, below the directory of the list's images, or absolute."""
    registry: str = ""
    repository: str = ""
    tag: str = ""
    """Its tag or its digest."""
    fallbacks: tuple[str, ...] = ()
    """Other places of the same image."""
    keys: dict[str, Any] = field(default_factory=dict)
    """What the list itself says of it, by keys of `Image`."""

    @property
    def reference(self) -> str:
        """As people write it: ``ghcr.io/atlas/base:v1``."""
        colon = "@" if _DIGEST.fullmatch(self.tag) else ":"
        return "/".join(filter(None, (self.registry, self.repository))) + (f"{colon}{self.tag}" if self.tag else "")

    @property
    def oci(self) -> str | None:
        """The reference for backends that pull it, where it came from a registry."""
        if not self.repository:
            return None
        registry = "docker.io" if self.registry in _DOCKER_HUB else self.registry
        return replace(self, registry=registry).reference


@dataclass
class Listing:
    """All that a list says."""

    images: list[Listed] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    repository: str = ""
    """The repository on CVMFS that the list names itself, e.g. ``unpacked.cern.ch``."""

    def add(self, image: Listed) -> None:
        """Take an image, once. Raises ValueError where there are too many."""
        if len(self.images) >= _MAX_ENTRIES:
            raise ValueError(f"lists more than {_MAX_ENTRIES} images; the others are left out")
        self.images.append(image)


def shown(value: Any) -> str:
    """Something given, in a line that is not long."""
    text = ascii(value)
    return text if len(text) < 80 else text[:77] + "..."


def read_wishlist(raw: bytes, name: str) -> Listing:
    """DUCC's wish list, ``recipe.yaml``. Raises ValueError where it is none at all."""
    data, lines, problems = _yaml(raw, name)
    wishes = data.get("input") if isinstance(data, dict) else None
    if not isinstance(wishes, list):
        raise ValueError("is no wish list: it has no list called input")
    repository = data.get("cvmfs_repo")
    plain = isinstance(repository, str) and _REGISTRY.fullmatch(repository)
    listing = Listing([], problems, str(repository) if plain else "")
    _fill(listing, ((lines.get(("input", i)), wish) for i, wish in enumerate(wishes)), wish_of)
    return listing


def wish_of(wish: Any) -> Listed:
    """The image of an entry of a wish list. Raises ValueError."""
    registry, _, rest = _without_scheme(wish).partition("/")
    if not _REGISTRY.fullmatch(registry):
        raise ValueError(f"{shown(wish)} names no registry")
    repository, tag = _split(rest, wish)
    return Listed(f"{registry}/{repository}:{tag}", registry, repository, tag)


def read_docker_images(raw: bytes, name: str) -> Listing:
    """OSG's ``docker_images.txt``. Raises ValueError where it is no text."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is no text: line {raw[: error.start].count(10) + 1}") from None
    if "\0" in text:
        raise ValueError("is no text")
    entries = ((number, line.partition("#")[0].strip()) for number, line in enumerate(text.split("\n"), 1))
    listing = Listing()
    _fill(listing, ((number, entry) for number, entry in entries if entry), docker_image_of)
    return listing


def docker_image_of(entry: Any) -> Listed:
    """The image of a line of docker_images.txt: its path has no registry. Raises ValueError."""
    text = _without_scheme(entry)
    head, slash, rest = text.partition("/")
    registry = head if slash and ("." in head or ":" in head or head == "localhost") else ""
    if registry and not _REGISTRY.fullmatch(registry):
        raise ValueError(f"{shown(entry)} names no registry")
    repository, tag = _split(rest if registry else text, entry)
    if ":" in tag:
        raise ValueError(f"{shown(entry)} has a digest, for which this layout has no place")
    repository = repository if "/" in repository else f"library/{repository}"
    return Listed(f"{repository}:{tag}", registry, repository, tag)


def read_catalog(raw: bytes, name: str) -> Listing:
    """The images of another site: its site file, or its list of images alone. Only `CATALOG_KEYS` are taken.

    Raises ValueError where it is neither.
    """
    data, lines, problems = _yaml(raw, name)
    entries, key = (data.get("images"), ("images",)) if isinstance(data, dict) else (data, ())
    if not isinstance(entries, list):
        raise ValueError("is no catalog: it has no list called images")
    listing = Listing([], problems)
    numbered = ((lines.get((*key, i)), entry) for i, entry in enumerate(entries))
    # their sources are theirs: which images those would find here is not what they publish
    own = ((line, entry) for line, entry in numbered if not (isinstance(entry, dict) and "from" in entry))
    _fill(listing, own, _catalog_entry)
    return listing


def _catalog_entry(entry: Any) -> Listed:
    if not isinstance(entry, dict):
        raise ValueError(f"{shown(entry)} is no image")
    kept = {key: entry[key] for key in CATALOG_KEYS if key in entry}
    if not kept.get("path"):
        raise ValueError(f"{shown(entry.get('name'))} has no path")
    image = Image.model_validate(kept)  # a ValidationError is a ValueError
    if not (image.default_url or "/").startswith("/") or (image.default_url or "").startswith("//"):
        raise ValueError(f"{shown(image.name)} has a default_url that leads elsewhere")
    keys = image.model_dump(mode="json", exclude_unset=True, exclude={"path"})
    return Listed(image.path[0], keys=keys, fallbacks=tuple(image.path[1:]))


def read_directory(names: Iterable[str]) -> Listing:
    """The entries of a directory."""
    listing = Listing()

    def one(name: Any) -> Listed:
        if not str(name).isprintable():
            raise ValueError(f"{shown(name)} has control characters in its name")
        return Listed(str(name), tag=str(name).removesuffix(".sif").partition(":")[2])

    _fill(listing, ((None, name) for name in sorted(names) if not name.startswith(".")), one)
    return listing


def _fill(listing: Listing, entries: Iterable[tuple[int | None, Any]], read: Callable[[Any], Listed]) -> None:
    """Read entries, each once; what is wrong with one does not keep the others away."""
    seen = set()
    for line, entry in entries:
        try:
            image = read(entry)
            if image.path not in seen:
                seen.add(image.path)
                listing.add(image)
        except ValueError as error:
            where = f"line {line}: " if line else ""
            listing.problems.append(where + " ".join(str(error).split())[:300])
            if len(listing.images) >= _MAX_ENTRIES:
                break


def _yaml(raw: bytes, name: str) -> tuple[Any, dict[Any, int], list[str]]:
    try:
        data, _, lines, problems = parse_yaml(raw, name)
    except SiteError as error:
        first = error.problems[0]
        raise ValueError(f"line {first.line}: {first.message}" if first.line else first.message) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return data, lines, [f"line {one.line}: {one.key}: {one.message}" for one in problems]


def _without_scheme(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _MAX_REFERENCE:
        raise ValueError(f"{shown(value)} is no reference of an image")
    return re.sub(r"^[a-z]+://", "", value.strip())


def _split(text: str, given: Any) -> tuple[str, str]:
    """Repository, and tag or digest. Raises ValueError."""
    text, at, digest = text.partition("@")
    repository, _, tag = text.partition(":")
    # DUCC calls an image by its tag where it has both
    tag = tag or digest or "latest"
    fits = _DIGEST.fullmatch(tag) if at and tag == digest else _TAG.fullmatch(tag)
    if "*" in repository or "?" in repository:
        raise ValueError(f"{shown(given)}: wildcards can stand in a tag only")
    if not _REPOSITORY.fullmatch(repository) or not fits or (at and not _DIGEST.fullmatch(digest)):
        raise ValueError(f"{shown(given)} is no reference of an image")
    return repository, tag


# --- wildcards


def is_wild(image: Listed, kind: str) -> bool:
    """Whether an entry of a list stands for all tags of a pattern."""
    return any(char in image.tag for char in ("*" if kind == "wishlist" else "*?["))


def expand(image: Listed, kind: str, names: Iterable[str]) -> Iterator[Listed]:
    """The images that an entry with a wildcard stands for, of the names in its directory.

    For DUCC it is a regular expression, in which ``*`` was replaced by ``.*``: a dot is any character. Matched as a
    glob, for which no pattern takes more than a moment.
    """
    pattern = image.tag
    if kind == "wishlist":
        pattern = pattern.replace("[", "[[]").replace("?", "[?]").replace(".", "?")
    start = image.path.rpartition("/")[2][: -len(image.tag)]
    for name in sorted(names):
        tag = name[len(start) :]
        if name.startswith(start) and _TAG.fullmatch(tag) and fnmatchcase(tag, pattern):
            yield replace(image, path=image.path[: -len(image.tag)] + tag, tag=tag)


def parent_of(image: Listed) -> str:
    """The directory whose names tell what a wildcard stands for."""
    return image.path.rpartition("/")[0]


def places_of(root: str, image: Listed) -> list[str]:
    """The absolute paths of an image. Raises ValueError where one is not below `root`."""
    places = []
    for path in (image.path, *image.fallbacks):
        places.append(absolute_path(path if path.startswith("/") else f"{root}/{path}"))
        if not places[-1].startswith(root.rstrip("/") + "/"):
            raise ValueError(f"{shown(path)} is not below {root}")
    return places
