"""What a pod needs of its cluster, and several clusters side by side."""

from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

from hepspawner.backends.base import BackendError, Phase
from hepspawner.backends.kubernetes import backend as module
from tests.faults.kube import SPACE, Join, Relay, Server
from tests.kubernetes import Kubernetes

pytestmark = pytest.mark.needs("kubernetes")


async def test_several_clusters_side_by_side(join: Join, relay: Relay, cluster: Kubernetes, tmp_path: Path) -> None:
    """Two ways to the one cluster there is: what happens to one is nothing to the other."""
    config = yaml.safe_load((cluster.directory / f"{SPACE}.kubeconfig").read_text())
    (near,) = config["clusters"]
    far = {"name": "far", "cluster": {**near["cluster"], "server": f"https://127.0.0.1:{relay.port}"}}
    config["clusters"].append(far)
    (context,) = config["contexts"]
    config["contexts"].append({"name": "far", "context": {**context["context"], "cluster": "far"}})
    path = tmp_path / "two.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    backends = [join(name=name, kubeconfig=str(path), context=name) for name in (context["name"], "far")]
    here, there = [
        await (await Server(one, user).submit()).running() for one, user in zip(backends, ("a", "b"), strict=True)
    ]
    await relay.close()
    assert (await there.until(lambda status: status.phase is not Phase.RUNNING)).phase is Phase.UNKNOWN
    blind = [
        REGISTRY.get_sample_value("hepspawner_kubernetes_blind", {"backend": one.name, "what": "pods"})
        for one in backends
    ]
    assert blind == [0, 1]
    await here.running()
    await (await Server(backends[0], "c").submit()).running()
    await relay.listen()
    await there.running()


async def test_gpus_are_given_out_and_come_to_an_end(join: Join, cluster: Kubernetes) -> None:
    backend = join(gpus={"a100": {"max": 2}}, scale_up_timeout="1s")
    cluster.add_to_node("nvidia.com/gpu", 2)
    try:
        first = await (await Server(backend, gpu="a100", gpus=2).submit()).running()
        second = await Server(backend, "bob", gpu="a100", gpus=1).submit()
        assert "1 have no nvidia.com/gpu free" in await second.hopeless()
        await first.cancel()
    finally:
        cluster.add_to_node("nvidia.com/gpu", 0)


async def test_two_users_whose_names_are_long_and_nearly_alike(join: Join, cluster: Kubernetes) -> None:
    backend = join(labels={"user": "{username}"}, connect="service")
    servers = [await Server(backend, user).submit() for user in ("ü" * 200, "ü" * 199 + "U")]
    for server in servers:
        await server.running()
    assert len({server.job for server in servers}) == 2
    for server in servers:
        (pod,) = cluster.pods(server.tag.session, SPACE)
        assert await backend.find(server.tag) == f"{SPACE}/{pod['metadata']['name']}"


async def test_a_namespace_that_the_hub_may_not_look_into(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SYNC_PATIENCE", 5.0)
    with pytest.raises(BackendError, match="forbidden"):
        await Server(join(namespace="elsewhere")).submit()
