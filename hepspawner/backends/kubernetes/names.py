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
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_MOST = 63
PLACEHOLDERS = ("username", "servername", "user_server", "slug", "escaped")
OF_USER = frozenset(PLACEHOLDERS) - {"servername"}


def slug(text: str, digits: int = 20, most: int = 48) -> str:
    """A text as a part of a name: itself where that may be, else what can be kept of it and a hash.

    With 8 digits and 32 characters it is what KubeSpawner since 7 makes; so few can be found by trying.
    """
    if _PLAIN.fullmatch(text) and "--" not in text and len(text) <= most:
        return text
    most -= digits + 3
    kept = re.sub(r"[^a-z0-9]+", "-", text.lower()).lstrip("-")[:most].rstrip("-")
    if kept and not kept[0].isalpha():
        kept = f"x-{kept[: most - 2]}"
    return f"{kept or 'x'}---{sha256(text.encode()).hexdigest()[:digits]}"


def escaped(text: str) -> str:
    """A text as KubeSpawner before 7 writes it: ``alice-40example-2eorg``."""
    plain = "abcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(one if one in plain else "".join(f"-{byte:02x}" for byte in one.encode()) for one in text).lower()


def fill(template: str, user: str, server: str = "") -> str:
    """A template with a user's and a server's names put in, each so that it can stand in a name.

    ``{username}``, ``{servername}``, ``{user_server}``: as we write them; ``{slug}``, ``{escaped}``: the user as
    KubeSpawner does since 7, and did before.
    """
    parts = {
        "username": slug(user),
        "servername": slug(server) if server else "",
        "user_server": f"{slug(user)}--{slug(server)}" if server else slug(user),
        "slug": user if _is_short(user) else slug(user, 8, 32),
        "escaped": escaped(user),
    }
    return re.sub(r"\{(\w+)\}", lambda match: parts.get(match.group(1), match.group(0)), template)


def _is_short(user: str) -> bool:
    return bool(_PLAIN.fullmatch(user)) and "--" not in user and len(user) <= _MOST


def object_name(template: str, user: str, server: str = "", most: int = 253) -> str:
    """The name of a claim or a namespace (`most` 63) that a template makes; a hash where that would be none."""
    name = fill(template, user, server).rstrip("-")
    if _NAME.fullmatch(name) and len(name) <= most:
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
