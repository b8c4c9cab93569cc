"""What a user has of a hub whose servers are pods: a real cluster before a real hub."""

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.conformance.kubernetes_rig import HOST_IMAGE, NAMESPACE, KubernetesRig
from tests.kubernetes import HOST
from tests.machine import eventually
from tests.realhub import RealHub

pytestmark = pytest.mark.needs("kubernetes", "hub6")
HOME = "/home/jovyan"
# A claim of the rig belongs to root.
CHOWN: dict[str, Any] = {
    "name": "chown",
    "image": "rig.local/busybox:1",
    "command": ["chmod", "1777", HOME],
    "securityContext": {"runAsUser": 0},
    "volumeMounts": [{"name": "home", "mountPath": HOME}],
}


@pytest.fixture(scope="module")
def rig(engines: dict[str, Any]) -> Iterator[KubernetesRig]:
    one = KubernetesRig(engines)
    yield one
    one.close()


@pytest.fixture(scope="module")
def site(rig: KubernetesRig) -> dict[str, Any]:
    part = {**rig.part(), "home": {"mount": HOME, "pvc": {"size": "1G", "delete": True}}}
    patch = {"spec": {"initContainers": [CHOWN]}}
    backends = {
        "pods": {**part, "pod_patch": patch},
        "services": {**part, "pod_patch": patch, "connect": "service"},
        "unprepared": {**part, "pvc_name_template": "bare-{username}"},
    }
    return {"images": rig.images(), "custom_images": {"allow": ["docker://rig.local/*"]}, "backends": backends}


@pytest.fixture(scope="module")
def one_hub(site: dict[str, Any], engines: dict[str, Any]) -> Iterator[RealHub]:
    one = RealHub(engines["hub6"], site, address=HOST).start()
    yield one
    one.stop()


@pytest.fixture
def hub(one_hub: RealHub) -> Iterator[RealHub]:
    one_hub.mark_log()
    yield one_hub
    one_hub.stop_servers()


@contextmanager
def proxied(rig: KubernetesRig) -> Iterator[str]:
    """What a kube-proxy does, which the rig lacks: the address of the one Service leads to its pod."""
    spec = eventually(lambda: rig.cluster.get("services", NAMESPACE), "there is a Service")[0]["spec"]

    def pods() -> list[str]:
        subsets = [one for each in rig.cluster.get("endpoints", NAMESPACE) for one in each.get("subsets", [])]
        return [address["ip"] for one in subsets for address in one.get("addresses", [])]

    (leads,) = eventually(pods, "it leads to a pod")
    address, (port,) = spec["clusterIP"], spec["ports"]
    pod = f"TCP:{leads}:{port['targetPort']}"
    subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], check=True)
    process = subprocess.Popen(["socat", f"TCP-LISTEN:{port['port']},bind={address},fork,reuseaddr", pod])
    try:
        yield f"http://{address}:{port['port']}"
    finally:
        process.terminate()
        process.wait()
        subprocess.run(["ip", "addr", "del", f"{address}/32", "dev", "lo"], check=True)


def claims(rig: KubernetesRig) -> set[str]:
    return {one["metadata"]["name"] for one in rig.cluster.get("persistentvolumeclaims", NAMESPACE)}


def test_a_server_behind_a_service(hub: RealHub, rig: KubernetesRig) -> None:
    user = rig.users[0]
    start = hub.begin(user, {"image": "tiny", "backend": "services"})
    with proxied(rig) as url:
        assert start.result(60).status_code in (201, 202)
        hub.ready(user)
        assert hub.state(user)["url"] == url
        facts = hub.server_get(user, "facts").json()
        assert facts["environment"]["HOME"] == facts["cwd"] == HOME
        hub.stop_server(user)
        hub.gone(user)
    eventually(lambda: not rig.cluster.get("services", NAMESPACE), "the Service is removed")


def test_an_image_of_a_users_own(hub: RealHub, rig: KubernetesRig) -> None:
    user = rig.users[0]
    for own in ("docker://docker.io/a/b", "/cvmfs/unpacked.cern.ch/rig.local/host:1"):
        answer = hub.start_server(user, {"custom_image": own, "backend": "pods"})
        assert answer.status_code == 400 and "allowed: docker://rig.local/*" in answer.json()["message"]
    # the image has no server of its own: that is found out in the pod
    answer = hub.start_server(user, {"custom_image": f"docker://{HOST_IMAGE}", "backend": "pods"})
    assert answer.status_code == 422 and "jupyterhub-singleuser" in answer.json()["message"]


def test_a_home_that_cannot_be_written_is_not_replaced_by_another_one(hub: RealHub, rig: KubernetesRig) -> None:
    answer = hub.start_server(rig.users[0], {"image": "tiny", "backend": "unprepared"})
    assert answer.status_code == 422 and f"home {HOME} cannot be written" in answer.json()["message"]


def test_a_home_that_kubespawner_remembers(hub: RealHub, rig: KubernetesRig) -> None:
    """The spawner before left its name in JupyterHub's database: whatever the template says, that is the home."""
    user, name = rig.users[0], "claim-of-another-template"
    marks = {"hub.jupyter.org/username": user, "hub.jupyter.org/kubespawner-version": "7.1.0"}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name, "namespace": NAMESPACE, "annotations": marks}
    rig.cluster.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    hub.kill()
    state = {"kubespawner_version": "7.1.0", "pod_name": f"jupyter-{user}", "dns_name": "x", "pvc_name": name}
    database = sqlite3.connect(hub.database)
    with database:
        database.execute("delete from spawners where user_id = (select id from users where name = ?)", [user])
        made = "insert into spawners (user_id, name, state) select id, '', ? from users where name = ?"
        database.execute(made, [json.dumps(state), user])
    database.close()
    hub.start()
    before = claims(rig)
    for _ in range(2):  # and what JupyterHub saves at the end of the first has it, too
        assert hub.start_server(user, {"image": "tiny", "backend": "pods"}).status_code in (201, 202)
        hub.ready(user)
        (pod,) = rig.cluster.pods(hub.state(user)["session"])
        assert name in json.dumps(pod["spec"]["volumes"])
        hub.stop_server(user)
        hub.gone(user)
    assert claims(rig) == before
    assert hub.api("DELETE", f"/users/{user}").status_code == 204
    assert name in claims(rig)  # it is not one of the template's, and so nobody's to remove
    hub.add_user(user)


def test_a_home_goes_with_its_user(hub: RealHub, rig: KubernetesRig) -> None:
    user = rig.users[1]
    before = claims(rig)
    assert hub.start_server(user, {"image": "tiny", "backend": "pods"}).status_code in (201, 202)
    hub.ready(user)
    hub.stop_server(user)
    hub.gone(user)
    (claim,) = claims(rig) - before
    assert claim == f"claim-{user}"
    assert hub.api("DELETE", f"/users/{user}").status_code == 204
    eventually(lambda: claim not in claims(rig), "the claim is removed")
    assert claims(rig) == before
