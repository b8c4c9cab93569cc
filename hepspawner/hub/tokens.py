"""The server's API token where JupyterHub lost sight of it: after a restart it knows only a hash."""

from typing import TYPE_CHECKING, Any

from jupyterhub import orm
from jupyterhub.utils import url_escape_path, url_path_join
from sqlalchemy import inspect

if TYPE_CHECKING:
    from ..spawner import HEPSpawner


async def renew(spawner: "HEPSpawner") -> None:
    """A new token for a server that had not claimed its own when the hub was restarted; the old one is revoked."""
    db = inspect(spawner.orm_spawner).session
    old = _tokens(spawner)
    scopes = old[-1].scopes if old else orm.Role.find(db, "server").scopes
    spawner.api_token = spawner.user.new_api_token(note=_note(spawner), scopes=scopes)
    client = db.query(orm.OAuthClient).filter_by(identifier=spawner.oauth_client_id).one_or_none()
    spawner.user.settings["oauth_provider"].add_client(
        spawner.oauth_client_id,
        spawner.api_token,
        url_path_join(spawner.server.base_url, "oauth_callback"),
        allowed_scopes=client.allowed_scopes if client else await spawner._get_oauth_client_allowed_scopes(),
        description=_note(spawner),
    )
    for token in old:
        db.delete(token)
    db.commit()


def revoke(spawner: "HEPSpawner") -> None:
    """Take away the tokens of a server that ended. The caller commits."""
    db = inspect(spawner.orm_spawner).session
    for token in _tokens(spawner):
        db.delete(token)


def _tokens(spawner: "HEPSpawner") -> list[Any]:
    return [token for token in spawner.user.api_tokens if token.note == _note(spawner)]


def _note(spawner: "HEPSpawner") -> str:
    # The words by which JupyterHub marks a server's token.
    base_url = url_path_join(spawner.user.base_url, url_escape_path(spawner.name), "/")
    return f"Server at {base_url}"
