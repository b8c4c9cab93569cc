"""The API server is away, hangs, forgets, or refuses: nothing that runs is taken for dead."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from hepspawner.backends.base import BackendError, Phase
from hepspawner.backends.kubernetes import KubernetesBackend, client
from hepspawner.backends.kubernetes import backend as module
from tests.faults.kube import SPACE, Join, Relay, Server
from tests.kubernetes import Kubernetes
from tests.machine import eventually

pytestmark = pytest.mark.needs("kubernetes")


async def happens(condition: Any, what: str) -> Any:
    """`eventually`, while the backend goes on."""
    return await asyncio.to_thread(eventually, condition, what, 60)


def feed(backend: KubernetesBackend) -> Any:
    """The watch of the backend's pods."""
    assert backend._cluster
    return backend._cluster.feed


def blind() -> float | None:
    """What the metric says."""
    return REGISTRY.get_sample_value("hepspawner_kubernetes_blind", {"backend": "cluster", "what": "pods"})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hub waits for longer than a test should."""
    monkeypatch.setattr(client, "_DEADLINE", 6.0)


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_the_api_server_is_away(
    join: Join, cluster: Kubernetes, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    server = await (await Server(join()).submit()).running()
    assert blind() == 0
    if how == "killed":
        cluster.kill("apiserver")
    else:
        cluster.signal("apiserver", signal.SIGSTOP)
    status = await server.until(lambda status: status.phase is not Phase.RUNNING)
    assert status.phase is Phase.UNKNOWN and "cannot be seen at the moment" in status.reason
    assert blind() == 1
    assert [one for one in caplog.records if one.levelno == logging.ERROR and "BLIND" in one.getMessage()]
    with pytest.raises(BackendError, match="cannot be seen"):
        await server.backend.find(server.tag)
    if how == "killed":
        await asyncio.to_thread(cluster.start)
    else:
        cluster.signal("apiserver", signal.SIGCONT)
    await server.running()
    assert blind() == 0 and "sees its pods again" in caplog.text
    await server.cancel()


async def test_a_submission_while_the_api_server_hangs_is_made_once(join: Join, cluster: Kubernetes) -> None:
    backend = join()
    await Server(backend).submit()
    cluster.signal("apiserver", signal.SIGSTOP)
    server = Server(backend, "bob")
    start = asyncio.ensure_future(server.submit())
    await asyncio.wait([start], timeout=8)  # the request's deadline is over, and it is tried again
    assert not start.done()
    cluster.signal("apiserver", signal.SIGCONT)
    await (await start).running()
    assert len(cluster.pods(server.tag.session, SPACE)) == 1


async def test_a_watch_that_is_cut_goes_on_where_it_was(join: Join, relay: Relay, cluster: Kubernetes) -> None:
    server = await (await Server(join()).submit()).running()
    for _ in range(3):
        relay.cut()
        await happens(lambda: feed(server.backend)._watching, "it watches again")
    cluster.kubectl("delete", "pod", "-n", SPACE, server.pod, "--grace-period=1", "--wait=false")
    assert "its pod was deleted" in (await server.ended()).reason
    assert feed(server.backend).lists == 1


async def test_what_the_api_server_forgot_is_listed_again(
    join: Join, relay: Relay, cluster: Kubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    backend = join()
    server, keeps = await Server(backend).submit(), await Server(backend, "bob").submit()
    await server.running()
    await keeps.running()
    await relay.close()
    await asyncio.to_thread(cluster.kubectl, "delete", "pod", "-n", SPACE, server.pod, "--grace-period=1")
    # what is compacted away, an API server that has just been started knows nothing of
    cluster.kill("apiserver")
    cluster.compact()
    await asyncio.to_thread(cluster.start)
    await relay.listen()
    assert "its pod was deleted" in (await server.ended()).reason
    await keeps.running()
    assert feed(backend).lists == 2 and "too much happened" in caplog.text


async def test_a_right_that_is_taken_away(join: Join, cluster: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_END_SPARE", 3.0)
    backend = join()
    server = await (await Server(backend).submit()).running()
    cluster.kubectl("delete", "rolebinding", "-n", SPACE, "hub")
    status = await server.until(lambda status: status.phase is not Phase.RUNNING)
    assert status.phase is Phase.UNKNOWN and "forbidden" in status.reason
    with pytest.raises(BackendError, match="the hub may not do that in Kubernetes"):
        await Server(backend, "bob").submit()
    with pytest.raises(BackendError, match="cannot be told whether"):
        await server.cancel()
    assert cluster.pods(server.tag.session, SPACE)
    cluster.namespace(SPACE)
    monkeypatch.undo()
    await server.running()
    await server.cancel()


async def test_credentials_that_are_worth_nothing_any_more(join: Join, cluster: Kubernetes, tmp_path: Path) -> None:
    """New ones in the file are taken up."""
    backend = join()
    server = await (await Server(backend).submit()).running()
    cluster.kubectl("delete", "serviceaccount", "-n", SPACE, "hub")
    status = await server.until(lambda status: status.phase is not Phase.RUNNING)
    assert status.phase is Phase.UNKNOWN and "Unauthorized" in status.reason
    fresh = yaml.safe_load(cluster.namespace(SPACE).read_text())
    path = tmp_path / "kubeconfig"  # the one of `join`
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "users": fresh["users"]}))
    await server.running()
    await server.cancel()
    assert feed(backend).lists == 1


async def test_all_is_seen_by_one_list_and_one_watch(join: Join) -> None:
    """However often somebody asks."""
    backend = join()
    servers = [await (await Server(backend, user).submit()).running() for user in ("alice", "bob")]
    for _ in range(100):
        assert [(await one.status()).phase for one in servers] == [Phase.RUNNING] * 2
    assert backend._cluster and (feed(backend).lists, backend._cluster.happenings.lists) == (1, 1)
