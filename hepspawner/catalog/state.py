"""What the catalog says of an image."""

import time
from dataclasses import dataclass
from typing import Any

PRESENT = ("sandbox", "sif", "prefix")

_BAD = {
    "missing": "does not exist",
    "not yet published": "is not published yet: it is on the list, but not there",
    "vanished": "is not there any more",
    "unreadable": "may not be read",
    "not an image": "is not an image: neither a SIF nor the root directory of a system",
}


@dataclass(frozen=True)
class State:
    """What is known of an image, and since when. Times are seconds since the epoch, 0 for never or unknown."""

    kind: str
    """Present: ``sandbox``, ``sif``, ``prefix``. Why it is not: ``missing``, ``not yet published`` (a list has it),
    ``vanished`` (it was present), ``unreadable``, ``not an image``. Not known: ``no answer``, ``on the node`` (the hub
    does not look, nodes may have told), ``not looked at``."""
    path: str = ""
    """Of the places of the image, the one that this is about: the first that is present, else the first."""
    real: str = ""
    """The path with its links resolved."""
    digest: str = ""
    """What identifies the content, where the layout of its repository tells: the image's id."""
    published: float = 0
    """When it was put there, as far as it can be told."""
    size: int = 0
    """Bytes: of a SIF, or of the compressed layers that its manifest lists."""
    since: float = 0
    """Since when it is so, as far as this hub knows."""
    at: float = 0
    """When it was looked at."""
    why: str = ""
    """More of it in words, such as an inconsistency that was found, or what a node said."""

    @property
    def ok(self) -> bool:
        """False where a start must fail. What is not known is not known to be bad."""
        return self.kind not in _BAD

    @property
    def root(self) -> str:
        """Where the hub itself saw the image; what a node told is a user's word, and may be the place of another."""
        return "" if self.kind == "on the node" else self.real

    @property
    def text(self) -> str:
        """The state in words, to follow the name of the image; empty where there is nothing to say."""
        if self.kind == "no answer":
            return f"{silence(self.path, self.since)}{f': {self.why}' if self.why else ''}"
        if self.kind in _BAD:
            return f"{_BAD[self.kind]}{f' ({self.why})' if self.why else ''}"
        return self.why


def described(state: State) -> dict[str, Any]:
    """A state as data for the API and the command line; what is not known is null, times are since the epoch."""
    return {
        "state": state.kind,
        "note": state.text,
        "place": state.path or None,
        "digest": state.digest or None,
        "published": state.published or None,
        "size": state.size or None,
        "since": state.since or None,
        "at": state.at or None,
        "age": round(max(time.time() - state.at, 0), 1) if state.at else None,
    }


def silence(path: str, since: float) -> str:
    """That a file system does not answer: ``CVMFS does not answer since 14:02``."""
    what = "CVMFS" if path.startswith("/cvmfs/") else "its file system"
    return f"{what} does not answer{f' since {clock(since)}' if since else ''}"


def clock(at: float) -> str:
    """A time in the hub's own zone, with its date where that was not within the last day."""
    return time.strftime("%H:%M" if time.time() - at < 86400 else "%Y-%m-%d %H:%M", time.localtime(at))
