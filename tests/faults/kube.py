"""The Kubernetes backend alone, before a real cluster. Its pods' launchers find no hub, so they wait for one."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from hepspawner.backends.base import Phase, Tag
from hepspawner.backends.kubernetes import KubernetesBackend, KubernetesConfig
from hepspawner.site.model import Mount
from tests.faults.server import Server as AnyServer
from tests.kubernetes import DAEMONS, Kubernetes

HUB = "0123456789ab"
SPACE = "faults"
IMAGE = "rig.local/host:1"


class Relay:
    """Stands between a backend and the API server: connections can be cut, and kept from being made."""

    def __init__(self) -> None:
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Nobody gets through any more."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        """End all connections, as a firewall does."""
        for one in list(self._open):
            one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, away = await asyncio.open_connection("127.0.0.1", 643)
        self._open |= {writer, away}
        await asyncio.gather(_copy(reader, away), _copy(there, writer), return_exceptions=True)
        self._open -= {writer, away}


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    finally:
        target.close()


class Server(AnyServer):
    """A job of a user, as a spawner has it."""

    plain: ClassVar[dict[str, Any]] = {
        "name": "tiny",
        "image": "tiny",
        "container_image": IMAGE,
        "cpus": None,
        "memory": None,
        "gpu": None,
        "gpus": 0,
        "mounts": [Mount(source="/usr", target="/usr", read_only=True)],
        "groups": (),
        "auth_state": {},
        "claim": None,
    }

    @property
    def pod(self) -> str:
        """The name of its pod."""
        return self.job.partition("/")[2]

    async def hopeless(self) -> str:
        """Wait until it is told that it will never start; why."""
        status = await self.until(lambda status: status.hopeless)
        assert status.phase is Phase.QUEUED and status.advice
        return status.reason


class Owners:
    """Which sessions somebody's server hangs on."""

    def __init__(self) -> None:
        self.disowned: set[str] = set()

    def __call__(self, tag: Tag) -> bool:
        return tag.session not in self.disowned


Join = Callable[..., KubernetesBackend]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kubernetes]:
    with Kubernetes() as one:
        one.namespace(SPACE)
        yield one


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    one = Relay()
    await one.listen()
    yield one
    await one.close()


@pytest.fixture
async def join(cluster: Kubernetes, relay: Relay, tmp_path: Path) -> AsyncIterator[Join]:
    """Makes a backend of the cluster, with a hub's rights and through the relay. Afterwards all is mended."""
    made: list[KubernetesBackend] = []
    config = yaml.safe_load((cluster.directory / f"{SPACE}.kubeconfig").read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{relay.port}"
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))

    def new(hub: str = HUB, name: str = "cluster", **more: Any) -> KubernetesBackend:
        part = {"type": "kubernetes", "title": "The cluster", "poll_interval": "2s", "kubeconfig": str(path), **more}
        part.setdefault("image_pull_policy", "IfNotPresent")
        one = KubernetesBackend(name, KubernetesConfig.model_validate(part), logging.getLogger("test"))
        one.hub, one.owned = hub, Owners()
        one.open()
        made.append(one)
        return one

    yield new
    for one in made:
        await one.close()
    await asyncio.to_thread(mend, cluster)


def mend(cluster: Kubernetes) -> None:
    """All runs as it should, and nothing of a test is left."""
    for daemon in cluster.daemons():
        cluster.signal(daemon, 18)  # SIGCONT
    if len(cluster.daemons()) < DAEMONS:
        cluster.start()
    cluster.cordon(False)
    cluster.namespace(SPACE)
    away = ["delete", "-n", SPACE, "--ignore-not-found", "--all", "--timeout=90s"]
    # the kubelet ends what runs soon after; nobody need wait for that
    cluster.kubectl(*away, "pods", "--force", "--grace-period=0")
    cluster.kubectl(*away, "resourcequotas,persistentvolumeclaims")
