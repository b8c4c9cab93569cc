"""Tags as batch systems' jobs carry them. Pure."""

from urllib.parse import quote, unquote

from .base import Tag

_NAME_LENGTH = 400


def write_tag(tag: Tag) -> str:
    """A tag as text of letters, digits and ``.-_~%:``, which every batch system takes as it is, and not too long."""
    return ":".join(("hepspawner", tag.hub, tag.session, _short(tag.user), _short(tag.server)))


def _short(name: str) -> str:
    # Slurm takes 1024 characters; names of people may have 255, of 12 characters each. The session tells jobs apart.
    quoted = quote(name, safe="")
    return quoted if len(quoted) <= _NAME_LENGTH else f"{quoted[:_NAME_LENGTH].rpartition('%')[0]}~"


def read_tag(text: str) -> Tag | None:
    """The tag that `write_tag` wrote; None for any other text. A very long name comes back cut short."""
    parts = text.split(":")
    if len(parts) != 5 or parts[0] != "hepspawner":
        return None
    return Tag(hub=parts[1], session=parts[2], user=unquote(parts[3]), server=unquote(parts[4]))


def as_written(tag: Tag) -> Tag:
    """A tag as a job carries it."""
    return read_tag(write_tag(tag)) or tag
