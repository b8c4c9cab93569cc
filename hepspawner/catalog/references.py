"""References to images in registries: ``docker://ghcr.io/org/name:tag``, ``oras://…``. Pure.

A reference is what a user types: only what surely is one gets through, in its full form, so that no two readings of it
can differ between what is allowed here and what Apptainer asks for.
"""

import re
from fnmatch import fnmatchcase

_SCHEME = re.compile(r"(docker|oras)://")
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:localhost|[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*)(?::[0-9]{1,5})?"
_REFERENCE = re.compile(
    rf"(?P<scheme>docker|oras)://(?:(?P<host>{_HOST})/)?(?P<name>{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_MOST = 512
_HUB = "docker.io"
_DOCKER, _UNPACKED = "docker://", "/cvmfs/unpacked.cern.ch/"
_REGISTRIES = {"registry.hub.docker.com": _HUB}
"""What unpacked.cern.ch calls registries otherwise than others do."""


def is_reference(text: str) -> bool:
    """Whether a text is meant as a reference, not as a path."""
    return _SCHEME.match(text) is not None


def full_reference(text: str) -> str:
    """A reference with all its parts said. Raises ValueError, whose text goes after the reference, quoted."""
    if len(text) > _MOST:
        raise ValueError(f"is longer than {_MOST} characters")
    scheme, _, rest = text.partition("://")
    if "@" in rest.split("/")[0]:
        raise ValueError("holds credentials: a reference may not; put them into ~/.docker/config.json")
    host, slash, name = rest.partition("/")
    # As Docker reads it: what could not be a host is the first part of a name.
    if not slash or not (set(".:") & set(host) or host == "localhost"):
        host, name = _HUB, rest if slash or scheme != "docker" else f"library/{rest}"
    match = _REFERENCE.fullmatch(f"{scheme}://{host}/{name}")
    if match is None or match["host"] is None:
        raise ValueError("is no reference to an image; write docker://registry/name:tag")
    tail = f"@{match['digest']}" if match["digest"] else f":{match['tag'] or 'latest'}"
    return f"{scheme}://{match['host']}/{match['name']}{tail}"


def in_registry(image: str) -> str | None:
    """What engines that ask registries themselves call an image, by its path below unpacked.cern.ch or its full
    reference for Docker; None where they can know none.

    ``/cvmfs/unpacked.cern.ch/registry.hub.docker.com/a/b:c`` and ``docker://docker.io/a/b:c`` are ``docker.io/a/b:c``.
    """
    if image.startswith(_DOCKER):
        return image.removeprefix(_DOCKER)
    host, slash, name = image.removeprefix(_UNPACKED).partition("/")
    if not image.startswith(_UNPACKED) or not slash or not name or host.startswith("."):
        return None
    return f"{_REGISTRIES.get(host, host)}/{name}"


def without_credentials(text: str) -> str:
    """What a user typed, fit to be shown."""
    return re.sub(r"(?<=://)[^/]*@(?=[^/]*(/|$))", "…@", text)


def check_glob(glob: str) -> str:
    """A site's glob for references, as it stands. Raises ValueError where it could match nothing, or too much."""
    rest = glob.partition("://")[2]
    host = rest.split("/")[0]
    if not re.fullmatch(r"[a-z0-9.:*?\[\]-]+", host) or (rest != "*" and "/" not in rest):
        raise ValueError("write docker://registry/name, in which * stands for anything")
    return glob


def matches(reference: str, glob: str) -> bool:
    """Whether a full reference is one of a glob, of which one without tag allows them all.

    Registry and name are compared apart: a ``*`` in the one does not reach into the other.
    """
    scheme, _, rest = reference.partition("://")
    wanted, _, pattern = glob.partition("://")
    host, _, name = rest.partition("/")
    glob_host, _, glob_name = pattern.partition("/")
    if scheme != wanted or not fnmatchcase(host, glob_host):
        return False
    bare = re.split("[:@]", name, maxsplit=1)[0]
    return any(fnmatchcase(one, glob_name or "*") for one in (name, bare))
