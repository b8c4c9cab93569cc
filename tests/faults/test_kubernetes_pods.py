"""What Kubernetes does to pods, and what is told of it."""

import asyncio
import base64
import json
import subprocess
from typing import Any

import pytest

from hepspawner.backends.base import BackendError, Phase, Tag
from hepspawner.backends.kubernetes import KubernetesBackend
from hepspawner.backends.kubernetes import backend as module
from hepspawner.backends.kubernetes.client import Client
from hepspawner.backends.kubernetes.pod import launcher_name
from tests.faults.kube import SPACE, Join, Relay, Server
from tests.kubernetes import NODE, Kubernetes
from tests.machine import eventually

pytestmark = pytest.mark.needs("kubernetes")


def container(**more: Any) -> dict[str, Any]:
    """A patch of the server's container."""
    return {"spec": {"containers": [{"name": "server", **more}]}}


async def happens(condition: Any, what: str) -> Any:
    """`eventually`, while the backend goes on."""
    return await asyncio.to_thread(eventually, condition, what, 60)


# --- what belongs to a pod


async def test_the_ticket_is_in_a_secret_that_goes_with_the_pod(join: Join, cluster: Kubernetes) -> None:
    server = await Server(join()).submit()
    await server.running()
    (secret,) = [one for one in cluster.get("secrets", SPACE) if one["metadata"]["name"] == server.pod]
    assert f"{server.tag.session}.secret" in base64.b64decode(secret["data"]["job"]).decode()
    for kind in ("pods", "events", "configmaps"):
        assert f"{server.tag.session}.secret" not in json.dumps(cluster.get(kind, SPACE))
    # the hub itself may not read it, nor any other
    config = str(cluster.directory / f"{SPACE}.kubeconfig")
    may = lambda *what: cluster.kubectl("--kubeconfig", config, "auth", "can-i", *what, "-n", SPACE, check=False)  # noqa: E731
    assert may("create", "secrets").startswith("yes")
    assert all(may(verb, "secrets").startswith("no") for verb in ("get", "list", "watch", "patch", "delete"))
    await server.cancel()
    await happens(lambda: server.pod not in str(cluster.get("secrets", SPACE)), "the Secret is removed")


async def test_a_service_stands_before_a_pod(join: Join, cluster: Kubernetes) -> None:
    server = await Server(join(connect="service")).submit()
    await server.running()
    (service,) = cluster.get("services", SPACE)
    job = json.loads(
        base64.b64decode(
            cluster.get("secrets", SPACE, f"-l=hepspawner.io/session={server.tag.session}")[0]["data"]["job"]
        )
    )
    assert (job["address"], job["port"]) == (service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"])
    address = cluster.pods(server.tag.session)[0]["status"]["podIP"]
    await happens(lambda: address in json.dumps(cluster.get("endpoints", SPACE)), "the Service leads to the pod")
    await server.cancel()
    await happens(lambda: not cluster.get("services", SPACE), "the Service is removed")


async def test_a_home_is_made_once_and_kept(join: Join, cluster: Kubernetes) -> None:
    home = {"mount": "/home/jovyan", "pvc": {"size": "1G"}}
    backend = join(home=home)

    def claims() -> set[str]:
        return {one["metadata"]["name"] for one in cluster.get("persistentvolumeclaims", SPACE)}

    users = ("alice", "ü" * 200, "ü" * 199 + "U")
    for server in [await Server(backend, user).submit() for user in users]:
        await server.running()
        await server.cancel()
    names = claims()
    assert len(names) == len(users) and "claim-alice" in names
    server = await Server(backend).submit()
    await server.running()
    await server.cancel()
    assert claims() == names
    await backend.delete_forever("alice", "")  # the site does not say so
    allowed = join(home={**home, "pvc": {"size": "1G", "delete": True}})
    await allowed.delete_forever("alice", "second")  # a server of hers, not she
    assert claims() == names
    await allowed.delete_forever("alice", "")
    await happens(lambda: claims() == names - {"claim-alice"}, "it is removed")


async def test_another_ones_home_is_not_mounted(join: Join, cluster: Kubernetes) -> None:
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": "claim-alice", "namespace": SPACE, "annotations": {"hub.jupyter.org/username": "Alice"}}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim})
    with pytest.raises(BackendError, match="another user's home"):
        await Server(join(home={"pvc": {"size": "1G"}})).submit()


async def test_a_pod_has_its_users_numbers(join: Join, cluster: Kubernetes) -> None:
    for run_as, state in (({"uid": 1234, "gid": 99}, {}), ("auth_state", {"uid": 1234, "gid": 99, "groups": [7]})):
        script = (
            "import os,time; print(os.getuid(), os.getgid(), open('/run/hepspawner/job').read()[:1]); time.sleep(99)"
        )
        backend = join(run_as=run_as, pod_patch=container(command=["python3", "-u", "-c", script]))
        server = await Server(backend, auth_state=state).submit()
        await server.running()
        logs = lambda: cluster.kubectl("logs", "-n", SPACE, server.pod)  # noqa: B023, E731
        await happens(lambda: "1234 99 {" in logs(), "it reads its job")  # noqa: B023
        await server.cancel()
    with pytest.raises(BackendError, match="no uid and gid"):
        await Server(backend, auth_state={"uid": "root"}).submit()


async def test_what_is_mounted_later_comes_into_a_pod(join: Join, cluster: Kubernetes) -> None:
    place = cluster.directory / "cvmfs/atlas"  # as autofs mounts a repository when somebody looks at it
    place.mkdir(parents=True)
    look = "while not os.listdir('/cvmfs/atlas'): time.sleep(0.1)"
    script = f"import os, time\n{look}\nprint('seen', flush=True); time.sleep(99)"
    backend = join(cvmfs={"host_path": str(place.parent)}, pod_patch=container(command=["python3", "-c", script]))
    server = await (await Server(backend).submit()).running()
    subprocess.run(["mount", "-t", "tmpfs", "repository", str(place)], check=True)
    try:
        (place / "release").touch()
        await happens(lambda: "seen" in cluster.kubectl("logs", "-n", SPACE, server.pod), "the pod sees it")
        await server.cancel()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_namespace_for_each_user(join: Join, cluster: Kubernetes) -> None:
    config = cluster.namespace("per-user", "rbac-per-user.yaml")
    home = {"pvc": {"size": "1G", "delete": True}}
    backend = join(kubeconfig=str(config), namespace="own-{username}", home=home, connect="service")
    servers = [await Server(backend, user).submit() for user in ("alice", "Bob")]
    spaces = [server.job.partition("/")[0] for server in servers]
    try:
        for server, space in zip(servers, spaces, strict=True):
            await server.running()
            assert [pod["metadata"]["name"] for pod in cluster.get("pods", space)] == [server.pod]
            await server.cancel()
        assert spaces[0] == "own-alice" and spaces[1].startswith("own-bob---")
        await backend.delete_forever("alice", "")
        await happens(lambda: not cluster.get("persistentvolumeclaims", spaces[0]), "her home is removed")
        assert cluster.get("persistentvolumeclaims", spaces[1])
    finally:
        cluster.kubectl("delete", "namespace", *spaces, "per-user", "--wait=false")
        cluster.kubectl("delete", "clusterrole,clusterrolebinding", "jupyter-hub")


async def test_a_launcher_that_somebody_removed(join: Join, cluster: Kubernetes) -> None:
    backend = join()
    await (await Server(backend).submit()).running()
    cluster.kubectl("delete", "configmap", "-n", SPACE, launcher_name())
    await (await Server(backend, "bob").submit()).running()


# --- what keeps a pod from starting

NO_ROOM = {"cpus": 1000}
NEVER: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no cores": ({"scale_up_timeout": "1s"}, NO_ROOM, "none of 1 nodes has room: 1 have too few free cores"),
    "image that cannot be pulled": (
        {},
        {"container_image": "127.0.0.1:5999/nosuch:1"},
        "its image cannot be pulled (ImagePullBackOff",
    ),
    "image that is not there": (
        {"image_pull_policy": "Never"},
        {"container_image": "rig.local/nosuch:1"},
        "its image is not on the node",
    ),
    "claim that is not there": (
        {"scale_up_timeout": "1s", "cvmfs": {"claim": "nosuch"}},
        {},
        "its volume nosuch is not there",
    ),
    "claim that is not bound": (
        {"scale_up_timeout": "1s", "home": {"pvc": {"size": "1G", "storage_class": "nosuch"}}},
        {},
        "its volume is not made yet",
    ),
    "directory that is not there": ({"cvmfs": {"host_path": "/no/such"}}, {}, "/no/such is not a directory"),
    "broken container": (
        {"pod_patch": container(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "nosuch", "key": "a"}}}])},
        {},
        'secret "nosuch" not found',
    ),
}


@pytest.mark.parametrize("why", NEVER)
async def test_what_will_never_start_is_told(join: Join, why: str) -> None:
    part, session, words = NEVER[why]
    server = await Server(join(**part), **session).submit()
    assert words in await server.hopeless()
    await server.cancel()


async def test_what_waits_for_a_node_waits_on(join: Join, cluster: Kubernetes) -> None:
    cluster.cordon()
    server = await Server(join()).submit()
    status = await server.until(lambda status: "closed by an admin" in status.reason)
    assert status.phase is Phase.QUEUED and not status.hopeless
    cluster.cordon(False)
    await server.running()


async def test_a_pod_whose_hub_ended_before_it_made_the_secret(
    join: Join, relay: Relay, cluster: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = Client.create

    async def comes_to_the_secret(self: Client, namespace: str | None, thing: dict[str, Any]) -> Any:
        if thing["kind"] == "Secret":
            await asyncio.Event().wait()
        return await create(self, namespace, thing)

    monkeypatch.setattr(Client, "create", comes_to_the_secret)
    server = Server(join())
    start = asyncio.ensure_future(server.submit())
    await happens(lambda: cluster.pods(server.tag.session, SPACE), "there is a pod")
    await relay.close()  # a process that is gone asks for nothing any more
    for work in server.backend._starts:
        work.cancel()
    await server.backend.close()
    monkeypatch.undo()
    monkeypatch.setattr(KubernetesBackend, "_made", {})
    await relay.listen()
    server.backend = join()
    server.job = str(await server.backend.find(server.tag))
    assert "the hub ended before" in await server.hopeless()
    await server.cancel()
    start.cancel()


async def test_a_quota_is_told(join: Join, cluster: Kubernetes) -> None:
    quota = {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q", "namespace": SPACE}}
    cluster.apply({**quota, "spec": {"hard": {"pods": "0"}}})
    await happens(lambda: cluster.get("resourcequotas", SPACE)[0].get("status"), "the quota counts")
    with pytest.raises(BackendError, match="as much as the namespace allows is in use") as refused:
        await Server(join()).submit()
    assert "Stop a server of yours" in str(refused.value)


# --- how pods end


async def test_the_python_that_is_not_there(join: Join) -> None:
    status = await (await Server(join(python="/no/such/python")).submit()).ended()
    assert "could not be started" in status.reason and "/no/such/python" in status.reason


async def test_too_much_memory(join: Join) -> None:
    eats = [
        "python3",
        "-c",
        "print('eats', flush=True); a = bytearray(b'x') * 300_000_000; import time; time.sleep(99)",
    ]
    server = await Server(join(pod_patch=container(command=eats)), memory=64 * 2**20).submit()
    status = await server.ended()
    assert "needed more memory than was asked for" in status.reason and status.exit_code == 137
    assert await server.backend.last_words(server.job, server.tag) == ["eats"]


async def test_too_much_in_the_scratch_directory(join: Join) -> None:
    fills = ["python3", "-c", "open('/tmp/x', 'wb').write(b'x' * 20_000_000); import time; time.sleep(999)"]
    server = await Server(join(scratch_size="1M", pod_patch=container(command=fills))).submit()
    status = await server.ended()
    assert "evicted it" in status.reason and "scratch" in status.reason and "disk" in status.advice


async def test_an_admin_deletes_a_pod(join: Join, cluster: Kubernetes) -> None:
    server = await (await Server(join()).submit()).running()
    cluster.kubectl("delete", "pod", "-n", SPACE, server.pod, "--grace-period=1", "--wait=false")
    status = await server.ended()
    assert "its pod was deleted" in status.reason and "if it was not you" in status.advice
    assert (await server.backend.verdict(server.job)) == status


async def test_a_pod_without_an_owner_is_removed(join: Join, cluster: Kubernetes) -> None:
    first = join()
    server, keeps = await Server(first).submit(), await Server(first, "bob").submit()
    other = await Server(join(hub="ba9876543210")).submit()
    await first.close()
    # the next hub knows of one of them alone, and nothing of another hub's
    second = join()
    second.owned.disowned.add(server.tag.session)  # type: ignore[attr-defined]
    await happens(lambda: not cluster.pods(server.tag.session, SPACE), "it is removed")
    assert cluster.pods(keeps.tag.session, SPACE) and cluster.pods(other.tag.session, SPACE)
    assert await second.find(server.tag) is None
    assert await second.find(keeps.tag) == keeps.job
    assert await second.find(Tag(second.hub, "bob", "", "0" * 32)) is None


# --- nodes


async def test_a_node_that_does_not_answer_is_no_end(
    join: Join, cluster: Kubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END_SPARE", 3.0)
    server = await (await Server(join()).submit()).running()
    cluster.kill("kubelet")
    assert (await server.status()).phase is Phase.RUNNING
    with pytest.raises(BackendError, match=f"stuck in Terminating on node {NODE}"):
        await server.cancel()
    monkeypatch.undo()
    await asyncio.to_thread(cluster.start)
    await server.cancel()  # it ends after all, and now that is known
