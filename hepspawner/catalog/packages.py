"""Which packages images have: an index that stays small, and who fills it in the background."""

import asyncio
import time
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

from ..backends.base import Log
from . import inside
from .child import Child, Silent
from .repository import file_system_of, mount_points
from .search import Term, holds, plain

_DEADLINE = 20.0
"""Seconds that one image may take; a cold CVMFS is slow."""
_PAUSE = 600.0
"""Seconds until a place is tried again that did not answer."""
_MAX_PAIRS = 50_000
"""Versions of packages, of all images together. A site has some ten thousand; hostile lists could have millions."""
_MAX_VERSIONS = 500
"""Of one package. Of what a site has there are some ten."""
_MAX_COMPARED = 1000
"""Versions that are compared for one term."""
_NAMES = 50
"""How many names a beginning may mean: the shortest ones. Beyond that nobody looks for a package yet."""
_SHOWN = 2
"""How many packages tell of a term why it was found."""


class Index:
    """Packages by image and images by package. Each version of a package is kept once, with a bit for each image."""

    def __init__(self) -> None:
        self.left_out = False
        """Whether there was ever more than is kept."""
        self._pairs: list[tuple[str, str]] = []
        self._ids: dict[tuple[str, str], int] = {}
        self._masks: list[int] = []
        self._by_name: dict[str, list[int]] = {}
        self._lists: dict[str, array[int]] = {}
        self._bits: dict[str, int] = {}
        self._free: list[int] = []
        """Bits of images that were forgotten."""
        self._unused: list[int] = []
        """Places in `_pairs` of what no image has any more."""

    def __contains__(self, root: str) -> bool:
        return root in self._lists

    def __len__(self) -> int:
        return len(self._lists)

    def knows(self, root: str) -> bool:
        """Whether packages are known of an image."""
        return bool(self._lists.get(root))

    def add(self, root: str, packages: Iterable[tuple[str, str]]) -> None:
        """Note the packages of the image at a directory, which is new."""
        bit = self._free.pop() if self._free else len(self._bits)
        self._bits[root] = bit
        ids = dict.fromkeys(one for pair in packages if (one := self._id(pair)) is not None)
        for one in ids:
            self._masks[one] |= 1 << bit
        self._lists[root] = array("I", ids)

    def _id(self, pair: tuple[str, str]) -> int | None:
        known = self._ids.get(pair)
        if known is not None:
            return known
        name = plain(pair[0])
        if len(self._ids) >= _MAX_PAIRS or len(self._by_name.get(name, ())) >= _MAX_VERSIONS:
            self.left_out = True
            return None
        if self._unused:
            known = self._unused.pop()
            self._pairs[known] = pair
        else:
            known = len(self._pairs)
            self._pairs.append(pair)
            self._masks.append(0)
        self._ids[pair] = known
        self._by_name.setdefault(name, []).append(known)
        return known

    def forget(self, root: str) -> None:
        """Drop what is known of an image."""
        bit = self._bits.pop(root)
        others = ~(1 << bit)
        for one in self._lists.pop(root):
            self._masks[one] &= others
            if not self._masks[one]:
                self._drop(one)
        self._free.append(bit)

    def _drop(self, one: int) -> None:
        pair = self._pairs[one]
        name = plain(pair[0])
        del self._ids[pair]
        self._by_name[name].remove(one)
        if not self._by_name[name]:
            del self._by_name[name]
        self._unused.append(one)

    def roots(self) -> list[str]:
        """The images that were read."""
        return list(self._lists)

    def packages(self, root: str) -> list[tuple[str, str]]:
        """All packages of an image, by name; of names that are spelled in two ways (``asdf_standard``) one."""
        found: dict[tuple[str, str], tuple[str, str]] = {}
        for one in self._lists.get(root, ()):
            name, version = self._pairs[one]
            found.setdefault((plain(name), version), (name, version))
        return [found[key] for key in sorted(found)]

    def search(self, terms: list[Term], images: Iterable[tuple[str, str, str]]) -> dict[str, list[str]]:
        """The images for which all terms hold, with the packages that tell why (``torch 2.5.1``).

        `images`: the name of each, its directory, and its text in small letters, in which a term may be found too.
        """
        images = list(images)
        offered = _union(1 << self._bits[root] for root in {root for _, root, _ in images} if root in self._bits)
        matches = [self._match(term, offered) for term in terms]
        needs = [(_union(self._masks[one] for one in ids), term) for ids, term in zip(matches, terms, strict=True)]
        found: dict[str, list[str]] = {}
        bits: dict[int, list[str]] = {}
        for name, root, text in images:
            bit = self._bits.get(root)
            mine = 0 if bit is None else 1 << bit
            for mask, term in needs:
                if not (mask & mine or term.in_text(text)):
                    break
            else:
                found[name] = []
                if bit is not None:
                    bits.setdefault(bit, []).append(name)
        wanted = _union(1 << bit for bit in bits)
        for ids in matches:
            self._tell(ids, wanted, bits, found)
        return found

    def _match(self, term: Term, offered: int) -> list[int]:
        """The versions of packages that a term means, the nearest names first; only of images on offer."""
        meant = [term.name] if term.bounds and self._there(term.name, offered) else []
        if not meant:
            names = (name for name in term.among(self._by_name) if self._there(name, offered))
            meant = list(islice(names, _NAMES))
        ids = (one for name in meant for one in self._by_name[name] if self._masks[one] & offered)
        if not term.bounds:
            return list(ids)
        return [
            one
            for one in islice(ids, _MAX_COMPARED)
            if all(holds(self._pairs[one][1], *bound) for bound in term.bounds)
        ]

    def _there(self, name: str, offered: int) -> bool:
        return any(self._masks[one] & offered for one in self._by_name.get(name, ()))

    def _tell(self, ids: list[int], wanted: int, bits: dict[int, list[str]], found: dict[str, list[str]]) -> None:
        """Name the first packages of each image that a term means."""
        told: dict[int, int] = {}
        for one in ids:
            label = " ".join(self._pairs[one])
            for bit in _bits(self._masks[one] & wanted):
                for name in bits[bit]:
                    if label not in found[name]:
                        found[name].append(label)
                told[bit] = told.get(bit, 0) + 1
                if told[bit] == _SHOWN:
                    wanted &= ~(1 << bit)
            if not wanted:
                return


def _union(masks: Iterable[int]) -> int:
    union = 0
    for mask in masks:
        union |= mask
    return union


def _bits(mask: int) -> Iterator[int]:
    digits = bin(mask)[:1:-1]  # the lowest first
    place = digits.find("1")
    while place >= 0:
        yield place
        place = digits.find("1", place + 1)


class Packages:
    """The packages of a site's images, each read once, by a child that can be killed."""

    def __init__(self, log: Log):
        self.index = Index()
        self._log = log
        self._left_alone: dict[str, float] = {}
        self._stuck: dict[str, Child] = {}
        """By file system: the child that hangs there, though it was killed."""
        self._told_full = False

    async def follow(self, roots: Collection[str]) -> None:
        """Read the images at some directories that were not read yet, and forget all others. One call at a time.

        A directory is that of one digest, so what is in it does not change. Raises OSError where this machine has no
        room for another process.
        """
        now = time.monotonic()
        self._left_alone = {place: until for place, until in self._left_alone.items() if until > now}
        self._stuck = {place: child for place, child in self._stuck.items() if child.stuck}
        for root in set(self.index.roots()) - set(roots):
            self.index.forget(root)
            await asyncio.sleep(0)
        mounts = mount_points()
        places = {root: file_system_of(root, mounts) for root in roots}
        while left := self._unread(places):
            child = await self._read(left)
            if unread := self._unread({root: places[root] for root in left}):
                place = places[unread[0]]  # answers come in order: there is the one that gave none
                self._leave_alone(place)
                if child.stuck:
                    self._stuck[place] = child

    async def _read(self, roots: list[str]) -> Child:
        """Have a child read images, until it is done or one takes too long. Returns it, closed."""
        child = await Child.start(["-S", inside.__file__], roots)
        try:
            async for root, packages in child.lines(_DEADLINE):
                self._take(root, packages and [(name, version) for name, version in packages])
                await asyncio.sleep(0)  # each may have thousands
        except (Silent, ConnectionError, ValueError, TypeError):
            pass  # what was not told is left alone
        finally:
            await child.close()
        return child

    def _unread(self, places: Mapping[str, str]) -> list[str]:
        closed = self._left_alone.keys() | self._stuck.keys()
        return [
            root
            for root, place in places.items()
            if not (root in self.index or root in self._left_alone or place in closed)
        ]

    def _take(self, root: str, packages: list[tuple[str, str]] | None) -> None:
        if packages is None:
            self._leave_alone(root)
        elif root not in self.index:
            self.index.add(root, packages)
        if self.index.left_out and not self._told_full:
            self._told_full = True
            self._log.warning("hepspawner: not all packages of %.500r are kept: there are too many versions", root)

    def _leave_alone(self, place: str) -> None:
        self._log.warning("hepspawner: no packages are read at %.500r for a while: it does not answer", place)
        self._left_alone[place] = time.monotonic() + _PAUSE
