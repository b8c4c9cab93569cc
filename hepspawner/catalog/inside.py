"""The packages of images, as a child process that can be killed reads them: see `catalog.packages`.

Run by the hub's Python with nothing but the standard library. An image is hostile: its links are followed inside of it
only, and what it says is bounded and checked, before it leaves the child.
"""

import errno
import json
import os
import re
import stat
import sys

Packages = list[tuple[str, str]]

LIST = "list-of-pkgs-inside.txt"
_PREFIXES = ("", "usr", "usr/local", "opt/conda", "opt/venv", "venv", "opt/miniconda3", "opt/mamba", "opt/micromamba")
_MAX_BYTES = 2 << 20
_MAX_ENTRIES = 20_000
_MAX_PACKAGES = 5000
_MAX_LINKS = 40
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!~-]{0,59}")
_PYTHON = re.compile(r"python3(?:\.\d+)?")
# What the file system says of itself, not of the image: it may be well again in a while.
_SICK = (errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN)


def packages_of(root: str) -> Packages:
    """The packages of the image at a directory: those of its list, else what conda and pip noted. Blocks: only for
    the child. Empty where nothing is known. Raises OSError where the file system is sick."""
    found = _listed(root) or [one for prefix in _PREFIXES for one in _installed(root, prefix)]
    return list(dict.fromkeys(found))[:_MAX_PACKAGES]


def _listed(root: str) -> Packages:
    """Of lines such as ``numpy 1.26.4``; others are passed over."""
    try:
        path = inside(root, LIST)
        # to open a pipe would wait for ever
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return []
            raw = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        _unless_sick(error)
        return []
    if len(raw) > _MAX_BYTES:
        return []
    words = (line.split() for line in raw.decode("ascii", "replace").splitlines())
    return [pair for word in words if len(word) >= 2 and (pair := _pair(word[0], word[1]))]


def _installed(root: str, prefix: str) -> Packages:
    """What conda and pip note below a prefix, by the names of their files: none of them is opened."""
    conda = [name[:-5].rsplit("-", 2) for name in _names(root, f"{prefix}/conda-meta") if name.endswith(".json")]
    found = [_pair(parts[0], parts[1]) for parts in conda if len(parts) == 3]
    for below in ("lib", "lib64"):
        for python in _names(root, f"{prefix}/{below}"):
            if not _PYTHON.fullmatch(python):
                continue
            for folder in ("site-packages", "dist-packages"):
                for name in _names(root, f"{prefix}/{below}/{python}/{folder}"):
                    stem, dot, kind = name.rpartition(".")
                    if dot and kind in ("dist-info", "egg-info"):
                        package, _, version = stem.partition("-")
                        found.append(_pair(package.replace("_", "-"), version.partition("-py")[0]))
    return [pair for pair in found if pair]


def _pair(name: str, version: str) -> tuple[str, str] | None:
    return (name, version) if _NAME.fullmatch(name) and _VERSION.fullmatch(version) else None


def _names(root: str, path: str) -> list[str]:
    """The names in a directory of an image; none where it has no such directory."""
    names = []
    try:
        with os.scandir(inside(root, path)) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) == _MAX_ENTRIES:
                    break
    except (OSError, ValueError) as error:
        _unless_sick(error)
        return []
    return sorted(names)


def _unless_sick(error: Exception) -> None:
    if isinstance(error, OSError) and error.errno in _SICK:
        raise error


def inside(root: str, path: str) -> str:
    """Where a path of an image is, each link followed as if `root` were the root directory, so that none leads out.

    Raises OSError where there are too many links."""
    left = [part for part in path.split("/") if part]
    here: list[str] = []
    links = 0
    while left:
        part = left.pop(0)
        if part in (".", "..", ""):
            here = here[:-1] if part == ".." else here
            continue
        try:
            target = os.readlink("/".join([root, *here, part]))
        except OSError:  # no link; where it is missing the caller finds out
            here.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(f"too many links at {path}")
        here = [] if target.startswith("/") else here
        left = target.split("/") + left
    return "/".join([root, *here])


def main() -> None:
    """The child: directories as a line of JSON on standard input, one for each on standard output, at once."""
    for root in json.loads(sys.stdin.readline()):
        try:
            packages: Packages | None = packages_of(root)
        except OSError:
            packages = None
        print(json.dumps([root, packages]), flush=True)


if __name__ == "__main__":
    main()
