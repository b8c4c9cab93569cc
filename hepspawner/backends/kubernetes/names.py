"""Names of pods, claims and namespaces: valid and unique whatever users and servers are called. Pure."""

import re
from hashlib import sha256

from ..base import Tag

LABEL = "app.kubernetes.io/managed-by"
HUB, SESSION = "hepspawner.io/hub", "hepspawner.io/session"
TAG = "hepspawner.io/tag"
OWNER = "hub.jupyter.org/username"
"""The annotation of a claim that says whose it is: KubeSpawner's, too."""

PREFIX = "jupyter-"
"""Of the names of pods."""
_PLAIN = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""Of most objects."""
_LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?")
_MOST = 63
_KUBESPAWNER = 48
"""Characters of what KubeSpawner since 7 puts into names."""
OF_SERVER = frozenset({"servername", "user_server", "slug_server", "escaped_server"})
PLACEHOLDERS = ("username", "servername", "user_server", "slug", "slug_server", "escaped", "escaped_server")
OF_USER = frozenset(PLACEHOLDERS) - {"servername"}


def slug(text: str, digits: int = 20, most: int = 48) -> str:
    """A text as a part of a name: itself where that may be, else what can be kept of it and a hash.

    With 8 digits it is what KubeSpawner since 7 makes; so few can be found by trying.
    """
    if _PLAIN.fullmatch(text) and "--" not in text and len(text) <= most:
        return text
    return f"{_kept(text, most - digits - 3)}---{sha256(text.encode()).hexdigest()[:digits]}"


def _kept(text: str, most: int) -> str:
    kept = re.sub(r"[^a-z0-9]+", "-", text.lower()).lstrip("-")[:most].rstrip("-")
    if kept and not kept[0].isalpha():
        kept = f"x-{kept[: most - 2]}"
    return kept or "x"


def _slug_server(user: str, server: str) -> str:
    """KubeSpawner's ``{user_server}`` since 7. It takes the two characters between them for a default server, too."""
    first, second = slug(user, 8, _KUBESPAWNER), slug(server, 8, _KUBESPAWNER) if server else ""
    if len(first) + len(second) + 2 <= _KUBESPAWNER:
        return f"{first}--{second}" if server else first
    both = b"\xff".join(name.encode() for name in (user, server))
    most = (_KUBESPAWNER - 9) // 2 - 2
    return f"{_kept(user, most)}--{_kept(server, most)}---{sha256(both).hexdigest()[:8]}"


def escaped(text: str) -> str:
    """A text as KubeSpawner before 7 writes it: ``alice-40example-2eorg``."""
    plain = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(one if one in plain else "".join(f"-{byte:02x}" for byte in one.encode()) for one in text).lower()


def fill(template: str, user: str, server: str = "") -> str:
    """A template with a user's and a server's names put in, each so that it can stand in a name.

    ``{username}``, ``{user_server}``: as we write them; ``{servername}``, ``{slug}``, ``{slug_server}``: a server, a
    user and both as KubeSpawner does since 7; ``{escaped}``, ``{escaped_server}``: as it did before.
    """
    second = slug(server, 8, _KUBESPAWNER) if server else ""
    parts = {
        "username": slug(user),
        "servername": second,
        "user_server": f"{slug(user)}--{second}" if server else slug(user),
        "slug": slug(user, 8, _KUBESPAWNER),
        "slug_server": _slug_server(user, server),
        "escaped": escaped(user),
        "escaped_server": f"{escaped(user)}--{escaped(server)}" if server else escaped(user),
    }
    return re.sub(r"\{(\w+)\}", lambda match: parts.get(match.group(1), match.group(0)), template)


def label_value(template: str, user: str, server: str = "") -> str:
    """What a template makes of a label; with a hash where that would be none."""
    value = fill(template, user, server).strip("-_.")
    return value if _LABEL.fullmatch(value) and len(value) <= _MOST else slug(value)


def object_name(template: str, user: str, server: str = "", most: int = 253) -> str:
    """The name of a claim or a namespace (`most` 63) that a template makes; a hash where that would be none."""
    name = fill(template, user, server).rstrip("-")
    if NAME.fullmatch(name) and len(name) <= most:
        return name
    return slug(f"{template}\n{user}\n{server}", most=min(most, _MOST))


def pod_name(tag: Tag) -> str:
    """The name of a session's pod, Secret and Service. Another session is another pod: the last one may still end."""
    return f"{PREFIX}{slug(tag.user, 8, 30)}-{tag.session[:16]}"


def labels(tag: Tag) -> dict[str, str]:
    """What all that belongs to a session is found by."""
    return {LABEL: "hepspawner", HUB: tag.hub, SESSION: tag.session}


def selector(hub: str) -> str:
    """The label selector of a hub's pods."""
    return f"{LABEL}=hepspawner,{HUB}={hub}"
