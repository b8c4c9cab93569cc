"""The session of a spawner: what its server is started with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from jupyterhub.utils import url_escape_path, url_path_join

from ..choice import Choice
from ..session import SECRET, Request, Session, build_session, is_secret
from .run import Run

if TYPE_CHECKING:
    from ..spawner import HEPSpawner


def hub_environment(spawner: "HEPSpawner", backend: str) -> dict[str, str]:
    """What JupyterHub wants in the server's environment, with the addresses that the backend's nodes reach."""
    environment = {name: str(value) for name, value in spawner.get_env().items() if value is not None}
    url = environment["JUPYTERHUB_API_URL"] = api_url(spawner, backend)
    environment["JUPYTERHUB_ACTIVITY_URL"] = url_path_join(url, "users", spawner.user.escaped_name, "activity")
    return environment


def masked(environment: Mapping[str, str]) -> dict[str, str]:
    """The same, to be shown."""
    return {name: SECRET if is_secret(name) else value for name, value in environment.items()}


def api_url(spawner: "HEPSpawner", backend: str) -> str:
    """The hub's API as a backend's nodes reach it."""
    base = spawner.runtime.backend(backend).config.hub_url or spawner.hub_connect_url
    return url_path_join(base, urlparse(spawner.hub.api_url).path) if base else str(spawner.hub.api_url)


def session_of(spawner: "HEPSpawner", choice: Choice, environment: Mapping[str, str], run: Run | None) -> Session:
    """The session of a choice; without a run for a preview."""
    runtime, server = spawner.runtime, spawner.server
    backend = runtime.backend(choice.backend)
    base_url = url_path_join(spawner.user.base_url, url_escape_path(spawner.name), "/")
    return build_session(
        Request(
            site=(run and run.site) or runtime.site or spawner.offer().site,
            backend=backend.config,
            choice=choice,
            user=spawner.user.name,
            server=spawner.name,
            base_url=server.base_url if server else base_url,
            hub_environment=environment,
            args=spawner.get_args(),
            command=spawner.cmd,
            bind=backend.bind,
            directory=spawner.format_string(spawner.notebook_dir) if spawner.notebook_dir else "~",
            session=run.tag.session if run else "",
            places=run.places if run else (),
            also=run.also if run else (),
            inherit=backend.inherit,
            warning=backend.warning(choice.runtime),
            runs_images=backend.runs_images,
            groups=spawner.who.groups,
        )
    )
