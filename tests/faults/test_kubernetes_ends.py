"""Ends that are not just one container's, and a store that forgot what happened."""

import asyncio
import logging
from typing import Any

import pytest

from hepspawner.site.model import Mount
from tests.faults.kube import Join, Relay, Server
from tests.kubernetes import NODE, Kubernetes
from tests.machine import eventually

pytestmark = pytest.mark.needs("kubernetes")

SIDECAR = {"name": "proxy", "image": "rig.local/busybox:1", "imagePullPolicy": "Never", "command": ["sleep", "999"]}


def runs(script: str, *beside: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A patch that has the server's container run a script, beside others."""
    server = {"name": "server", "command": ["python3", "-c", script]}
    return {"spec": {"containers": [server, *beside], **more}}


async def happens(condition: Any, what: str) -> Any:
    """`eventually`, while the backend goes on."""
    return await asyncio.to_thread(eventually, condition, what, 60)


async def test_what_ends_again_and_again_is_told_with_its_last_lines(join: Join) -> None:
    patch = runs("print('no space left'); raise SystemExit(3)", restartPolicy="Always")
    server = await Server(join(pod_patch=patch)).submit()
    assert "ends again and again" in await server.hopeless()
    assert await server.backend.last_words(server.job, server.tag) == ["no space left"]
    await server.cancel()


async def test_a_server_that_ends_beside_a_sidecar(join: Join) -> None:
    server = await Server(join(pod_patch=runs("print('no space left'); raise SystemExit(3)", SIDECAR))).submit()
    status = await server.ended()
    assert "the server's container ended with exit code 3" in status.reason and status.exit_code == 3
    assert await server.backend.last_words(server.job, server.tag) == ["no space left"]
    await server.cancel()


async def test_events_that_the_store_forgot_are_listed_again(
    join: Join, relay: Relay, cluster: Kubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    """Events are watched in etcd itself: the API server keeps none, as it does of pods."""
    caplog.set_level(logging.INFO)
    backend = join()
    server = await (await Server(backend).submit()).running()
    assert backend._cluster
    feed, pods = backend._cluster.happenings, backend._cluster.feed
    await happens(lambda: feed._watching, "it watches")
    await relay.close()
    for _ in range(2):
        cluster.cordon()
        cluster.cordon(False)
    cluster.compact()
    await relay.listen()
    await happens(lambda: feed.lists == 2 and feed._watching, "they are listed again")
    assert "too much happened to follow its events" in caplog.text
    await server.running()
    assert pods.lists == 1
    # and what happens from now on is heard of
    other = await Server(backend, "bob", mounts=[Mount(source="/no/such", target="/x", read_only=True)]).submit()
    assert "/no/such is not a directory" in await other.hopeless()


async def test_a_node_goes_away(join: Join, cluster: Kubernetes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes removes the pods of such a node by itself, after a minute."""
    monkeypatch.setattr("tests.faults.server.PATIENCE", 150)
    server = await (await Server(join()).submit()).running()
    cluster.kill("kubelet")
    cluster.kubectl("delete", "node", NODE)
    assert "its pod was deleted" in (await server.ended()).reason
