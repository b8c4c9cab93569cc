"""How the images of a CVMFS repository lie: a tag is a link to a directory that is named by the image's digest. Pure.

    DUCC (unpacked.cern.ch)   REGISTRY/REPOSITORY:TAG -> ../../.flat/HH/DIGEST       (HH: the digest's first two)
    OSG                       NAMESPACE/REPOSITORY:TAG -> /cvmfs/REPO/.images/HH/REST (the digest is HHREST)

A server runs from the directory, so that a tag which moves does not change its files below it. But what no tag points
to any more is removed some time after: that is `Layout.grace`.
"""

import re
from dataclasses import dataclass

from ..units import format_time
from .examine import PLACE

DIGEST = re.compile(r"[0-9a-f]{12,128}")
"""A digest as it stands in a name: ``ml-base@8e1e32f4…``."""

_REPOSITORY = re.compile(r"/cvmfs/[^/]+")

DUCC_GRACE = 0
OSG_GRACE = 2 * 86400


@dataclass(frozen=True)
class Layout:
    """What an image's place tells of it."""

    name: str
    """As its repository calls it: ``ghcr.io/cern/root:latest``; the path where it has no such name."""
    digest: str
    """Hexadecimal digits; empty where the place tells none: a SIF, a plain sandbox."""
    grace: int | None
    """Seconds that its directory is kept after no tag points to it any more; None: nothing is removed by itself."""


def layout_of(path: str, real: str) -> Layout:
    """What is told by an image's path, and by the same with all links resolved (empty where that is not known)."""
    if found := re.search(PLACE, real):
        root, digest = real[: found.start()], found[1].replace("/", "")
        return Layout(_name(path, root), digest, OSG_GRACE if "/" in found[1] else DUCC_GRACE)
    return Layout(path, "", None)


def _name(path: str, root: str) -> str:
    """The path in its repository, whose real place may be another than the one it is reached at."""
    tail = "/" + root.rsplit("/", 1)[-1] + "/"
    name = path.partition(tail)[2]
    return path if not name or name.startswith(".") else name


def short(digest: str) -> str:
    """The beginning of a digest, by which people tell one from another."""
    return digest[:12]


def places_of(path: str, digest: str) -> list[str]:
    """Where the image of a digest can be that is, or once was, behind a path. Nothing is looked at."""
    # Below /cvmfs only the repository itself: anything else there would be asked for as a repository.
    repository = _REPOSITORY.match(path)
    parents = [path[:i] for i, character in enumerate(path) if character == "/" and i]
    roots = [repository.group()] if repository else parents[::-1]
    head, rest = digest[:2], digest[2:]
    return [place for root in roots for place in (f"{root}/.flat/{head}/{digest}", f"{root}/.images/{head}/{rest}")]


def directory_of(path: str, real: str) -> str:
    """Where any machine has what a path leads to here, with its digest; the path itself where its layout has none."""
    digest = layout_of(path, real).digest
    repository = _REPOSITORY.match(path)
    if repository is None or not digest:
        return real if digest else path
    # A machine may have /cvmfs somewhere else, and a link to it.
    own = (place for place in places_of(path, digest) if real.endswith(place[repository.end() :]))
    return next(own, path)


def is_within(path: str, real: str) -> bool:
    """Whether an image's real place can be told of the image at a path: from its repository of CVMFS no link of it
    leads to another, and from elsewhere to none."""
    repository = _REPOSITORY.match(path)
    if repository is None:
        return not real.startswith("/cvmfs/")
    return repository.group().removeprefix("/cvmfs") + "/" in real


def may_outlive(layout: Layout, runtime: int | None) -> bool:
    """Whether a server of so many seconds (None: without limit) may still run when its image has been removed."""
    return layout.grace is not None and (runtime is None or runtime > layout.grace)


def outlive_words(layout: Layout, runtime: int | None) -> str:
    """The warning against a runtime, in words for the user; empty where there is none."""
    if layout.grace is None or not may_outlive(layout, runtime):
        return ""
    when = f"{format_time(layout.grace)} after" if layout.grace else "soon after"
    return (
        f"if its tag is moved to a newer image meanwhile, CVMFS may remove this one {when}, "
        "and the server would lose its files: take a shorter time, or save often"
    )
