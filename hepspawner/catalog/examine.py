"""What lies at paths: this file is run by a child process that can be killed, under the hub's Python with nothing but
the standard library, so that it starts in some 15 ms. CVMFS and users' homes can hang, also in ways that no signal
interrupts: the hub never touches them.

Input is one JSON object: ``paths``, each with the mark that it had when it was last examined, or null; and ``root``, a
directory without which none of them can be there, or null. Output is a line of JSON for each path, at once:
``[index]`` where nothing has changed, else ``[index, fact…]``; and ``"absent"`` where there is no root.
"""

import errno
import json
import os
import re
import stat
import sys
import threading
from dataclasses import astuple, dataclass
from typing import Any

_SIF_MAGIC = b"SIF_MAGIC"
_SIF_MAGIC_AT = 32
_ROOT_OF_A_SYSTEM = ("usr", ".singularity.d")
_MAX_MANIFEST = 4 * 2**20

PLACE = r"/\.(?:flat/[0-9a-f]{2}/(?!../)|images/(?=../))([0-9a-f]{2}/?[0-9a-f]{10,126})\Z"
"""What a resolved path ends with: DUCC names the directory of an image by the image's id, OSG's scripts by a hash of
their own. Without its slash the group is the digest. The launcher gets it with the claim."""


@dataclass(frozen=True)
class Fact:
    """What is known of a path."""

    kind: str
    """``sandbox``, ``sif``, ``prefix`` (a directory with bin/ that is no system), or why it is none of them:
    ``missing``, ``unreadable``, ``not an image``, ``no answer``."""
    real: str = ""
    """The path with its links resolved."""
    digest: str = ""
    published: float = 0
    size: int = 0
    why: str = ""
    mark: "tuple[int, ...] | None" = None
    """What changes when that which lies at the path does; costs one call to find out."""

    @property
    def ok(self) -> bool:
        """False where a start must fail. That nothing answered is not known to be bad."""
        return self.kind in ("sandbox", "sif", "prefix", "no answer")

    @property
    def text(self) -> str:
        """The fact in words; empty where there is nothing to say."""
        return {
            "missing": "does not exist",
            "unreadable": "may not be read",
            "not an image": "is not an image: neither a SIF nor the root directory of a system",
            "no answer": "the file system does not answer",
        }.get(self.kind, "")


NO_ANSWER = Fact("no answer")


def digest_of(real: str) -> str:
    """The digest in the name of an image's real directory; empty where the layout has none."""
    found = re.search(PLACE, real)
    return found[1].replace("/", "") if found else ""


def examine(path: str) -> Fact:
    """The fact about one path. Blocks for as long as the file system likes: only for the child."""
    real = ""
    try:
        found = os.stat(path)
        real = os.path.realpath(path)
        # A link is as old as what it was last made to point to; a directory that was unpacked is as old as its origin.
        published = os.lstat(path).st_mtime
        mark = mark_of(found)
        if stat.S_ISDIR(found.st_mode):
            if not os.access(real, os.X_OK):
                return Fact("unreadable", real, mark=mark)
            # No listing: on CVMFS it costs more than some stats.
            if any(os.path.lexists(os.path.join(real, name)) for name in _ROOT_OF_A_SYSTEM):
                size, why = _manifest(path, real)
                return Fact("sandbox", real, digest_of(real), published, size, why, mark)
            is_prefix = os.path.isdir(os.path.join(real, "bin"))
            return Fact("prefix" if is_prefix else "not an image", real, mark=mark)
        if not stat.S_ISREG(found.st_mode):
            return Fact("not an image", real, mark=mark)
        with open(real, "rb") as file:
            head = file.read(_SIF_MAGIC_AT + len(_SIF_MAGIC))
        if head[_SIF_MAGIC_AT:] != _SIF_MAGIC:
            return Fact("not an image", real, mark=mark)
        return Fact("sif", real, "", published, found.st_size, "", mark)
    except (OSError, ValueError) as error:
        return _trouble(error, path, real)


def _trouble(error: Exception, path: str, real: str) -> Fact:
    if isinstance(error, PermissionError):
        return Fact("unreadable", real)
    if isinstance(error, (FileNotFoundError, NotADirectoryError, ValueError)):  # ValueError: what can be no path
        return Fact("missing")
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.ENAMETOOLONG:
        return Fact("missing")
    if number == errno.ELOOP and _stands(os.path.dirname(path)):
        return Fact("missing", why="its links lead in a circle")
    # EIO, ENOTCONN, ELOOP… of a sick file system: it may be well again on the node, or in a minute
    return Fact("no answer", why=os.strerror(number) if number else "")


def mark_of(found: os.stat_result) -> "tuple[int, ...]":
    """What changes when that which lies at a path does."""
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _manifest(path: str, real: str) -> "tuple[int, str]":
    """Bytes of the compressed layers that DUCC's manifest of an image lists, and what is wrong with it."""
    ducc = re.search(PLACE, real)
    root = real[: ducc.start()] if ducc else ""
    if not ducc or "/" in ducc[1] or not path.startswith(root + "/"):
        return 0, ""
    try:
        file = os.open(
            os.path.join(root, ".metadata", path[len(root) + 1 :], "manifest.json"),
            os.O_RDONLY | os.O_NONBLOCK,
        )
        try:
            raw = os.read(file, _MAX_MANIFEST + 1)
        finally:
            os.close(file)
    except OSError:
        return 0, ""  # the image runs without it
    try:
        if len(raw) > _MAX_MANIFEST:
            raise ValueError
        manifest = json.loads(raw)
        told = str(manifest["config"]["digest"])
        size = sum(int(layer["size"]) for layer in manifest.get("layers", []))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return 0, "its manifest.json cannot be read"
    if told.split(":")[-1] != ducc[1]:
        return 0, f"its manifest.json tells of another image, {ascii(told)[1:-1][:19]}"
    return (size if 0 <= size < 2**60 else 0), ""


def _stands(path: str) -> bool:
    try:
        os.stat(path)
    except OSError:
        return False
    return True


def _is_absent(root: str) -> bool:
    try:
        os.stat(root)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def read_request() -> Any:
    """What a child is asked: the first line of its input. The hub keeps that open: its end is the child's, too."""
    asked = json.loads(sys.stdin.readline())

    def watch() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    return asked


def main() -> None:
    """The child."""
    asked = read_request()
    seen = asked["root"] is None
    for index, (path, mark) in enumerate(asked["paths"]):
        fact = None
        if mark is not None:
            try:
                if list(mark_of(os.stat(path))) == mark:
                    print(json.dumps([index]), flush=True)
                    continue
            except (OSError, ValueError) as error:
                fact = _trouble(error, path, "")
        fact = fact or examine(path)
        if not seen and fact.kind == "missing" and _is_absent(asked["root"]):
            print(json.dumps("absent"), flush=True)
            break
        seen = True
        print(json.dumps([index, *astuple(fact)]), flush=True)
    os._exit(0)  # the thread that waits for the hub holds standard input, which Python would close


if __name__ == "__main__":
    main()
