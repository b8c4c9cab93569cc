"""Reads a source of images. Run in a child process: the file may be huge, broken, or on a file system that hangs.

Input is the source as JSON. Output is lines of JSON: ``{"images": [keys…]}``, ``{"problem": text}`` for what is left
out, ``{"failed": text}`` where there is no list at all, and last ``{"done": true}``.
"""

import json
import os
import resource
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..site.model import Source
from . import found, sources
from .examine import examine, read_request
from .sources import Listed, Listing

MAX_BYTES = 20 * 2**20
_MAX_NAMES = 200_000
_MAX_WILDCARDS = 500
_MAX_MEMORY = 2 * 2**30
_MAX_CPU = 60
_PORTION = 50
_MAX_PROBLEMS = 20

_READERS: dict[str, Callable[[bytes, str], Listing]] = {
    "wishlist": sources.read_wishlist,
    "docker_images": sources.read_docker_images,
    "catalog": sources.read_catalog,
}

# The package as this process has it, which need not be the one that is installed.
COMMAND = [
    "-c",
    "import sys; sys.path.insert(0, sys.argv[1]); from hepspawner.catalog.read import main; main()",
    str(Path(__file__).parents[2]),
]


def read(source: Source) -> Iterator[dict[str, Any]]:
    """What the child tells. Blocks."""
    try:
        listing, root = _listing(source)
    except OSError as error:
        yield {"failed": f"cannot be read: {error.strerror}"}
        return
    except ValueError as error:
        yield {"failed": str(error)}
        return
    problems = list(listing.problems)
    portion: list[dict[str, Any]] = []
    for image in _expanded(listing, source.kind, root, problems):
        try:
            places = sources.places_of(root, image)
            if found.taken(source, image, places[0]) and _is_image(source, places[0]):
                portion.append(found.keys_of(source, image, places))
        except ValueError as error:
            problems.append(str(error))
        if len(portion) == _PORTION:
            yield {"images": portion}
            portion = []
    yield {"images": portion}
    for problem in problems[:_MAX_PROBLEMS]:
        yield {"problem": problem}
    if len(problems) > _MAX_PROBLEMS:
        yield {"problem": f"and {len(problems) - _MAX_PROBLEMS} more"}
    yield {"done": True}


def _listing(source: Source) -> tuple[Listing, str]:
    if source.kind == "directory":
        return sources.read_directory(_names(source.place)), source.place
    listing = _READERS[source.kind](read_file(source.place), source.place)
    if source.kind == "catalog":
        return listing, source.repository or "/cvmfs"
    root = source.repository or (f"/cvmfs/{listing.repository}" if listing.repository else source.root)
    if root is None:
        raise ValueError("does not say which repository its images are in: give the key repository")
    return listing, root


def read_file(path: str) -> bytes:
    """All of a file. Raises OSError, and ValueError where it is none or too large."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(file, "rb") as stream:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ValueError("is no file")
        raw = stream.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES >> 20} MiB")
    return raw


def _names(directory: str) -> list[str]:
    """The names in a directory. Raises OSError, and ValueError where there are too many."""
    names = []
    with os.scandir(directory) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > _MAX_NAMES:
                raise ValueError(f"{directory} has more than {_MAX_NAMES} entries")
    return names


def _is_image(source: Source, path: str) -> bool:
    """Of a directory's entries the images, and what may be one and cannot be looked at; of a list's all."""
    if source.kind != "directory":
        return True
    fact = examine(path)
    if fact.kind == "missing":
        return os.path.islink(path)  # a tag whose image is gone
    return fact.kind in ("sandbox", "sif", "unreadable", "no answer")


def _expanded(listing: Listing, kind: str, root: str, problems: list[str]) -> Iterator[Listed]:
    """All images, wildcards expanded last: what needs no listing is there even where one hangs."""
    if kind not in ("wishlist", "docker_images"):
        yield from listing.images
        return
    wild: list[Listed] = []
    known = {image.path for image in listing.images}
    for image in listing.images:
        if sources.is_wild(image, kind):
            wild.append(image)
        else:
            yield image
    if len(wild) > _MAX_WILDCARDS:
        problems.append(f"has more than {_MAX_WILDCARDS} entries with wildcards; the others are left out")
    names: dict[str, list[str]] = {}
    for image in wild[:_MAX_WILDCARDS]:
        parent = sources.parent_of(image)
        if parent not in names:
            names[parent] = []
            try:
                names[parent] = _names(f"{root}/{parent}")
            except FileNotFoundError:
                pass  # nothing of it is published yet
            except (OSError, ValueError) as error:
                problems.append(f"{root}/{parent} cannot be listed: {getattr(error, 'strerror', None) or error}")
        for one in sources.expand(image, kind, names[parent]):
            if one.path not in known:
                known.add(one.path)
                yield one


def main() -> None:
    """The child."""
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU, _MAX_CPU))
    try:
        for line in read(Source.model_validate(read_request())):
            print(json.dumps(line), flush=True)
    except MemoryError:
        print(json.dumps({"failed": "needs too much memory to be read"}), flush=True)
    os._exit(0)  # as in examine.py
