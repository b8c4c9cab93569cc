"""The manifests of examples/kubernetes, brought up on a real cluster."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests
import yaml

from tests.conformance.rig import prefix_of
from tests.kubernetes import MANIFESTS, Kubernetes
from tests.machine import eventually

pytestmark = pytest.mark.needs("kubernetes", "hub6")
PATIENCE = 120.0
SPACE = "jupyter"


@pytest.fixture
def cluster() -> Iterator[Kubernetes]:
    with Kubernetes() as one:
        yield one


def fitted(thing: dict[str, Any], environment: str) -> dict[str, Any]:
    """A manifest for a cluster without registries, names and addresses of Services: what an admin changes, too."""
    if thing["kind"] == "Deployment":
        spec = thing["spec"]["template"]["spec"]
        container = spec["containers"][0]
        container |= {"image": "rig.local/host:1", "command": [f"{environment}/bin/{container['command'][0]}"]}
        container["command"] += ["-f", "/etc/jupyterhub/jupyterhub_config.py"]
        container["env"] = [{"name": "PATH", "value": f"{environment}/bin:/usr/bin:/bin"}]
        container["readinessProbe"]["timeoutSeconds"] = 30
        for path in ("/usr", environment):
            name = path.strip("/").replace("/", "-").lower()
            spec["volumes"].append({"name": name, "hostPath": {"path": path}})
            container["volumeMounts"].append({"name": name, "mountPath": path, "readOnly": True})
    if thing["metadata"]["name"] == "hub-config":
        extra = """
c.JupyterHub.services = [{"name": "tests", "api_token": "just-for-this-test"}]
scopes = ["admin:users", "admin:servers", "access:servers"]
c.JupyterHub.load_roles = [{"name": "tests", "services": ["tests"], "scopes": scopes}]
import os, socket
c.JupyterHub.hub_connect_ip = socket.gethostbyname(socket.gethostname())
"""
        thing["data"]["jupyterhub_config.py"] += extra
    if thing["metadata"]["name"] == "site":
        site = yaml.safe_load(thing["data"]["site.yaml"])
        backend = site["backends"]["k8s"]
        del backend["hub_url"], backend["requests"]
        backend |= {"poll_interval": "2s", "memory": {"default": "512M", "max": "1G"}}
        backend["mounts"] = [{"source": "/usr"}, {"source": environment}]
        site["images"][0] |= {"oci": "rig.local/host:1", "command": [f"{environment}/bin/jupyterhub-singleuser"]}
        # the rig's claims are root's
        chown = {"name": "chown", "image": "rig.local/busybox:1", "command": ["chown", "1000:100", "/home/jovyan"]}
        chown |= {"securityContext": {"runAsUser": 0}, "volumeMounts": [{"name": "home", "mountPath": "/home/jovyan"}]}
        backend["pod_patch"] = {"spec": {"initContainers": [chown]}}
        thing["data"]["site.yaml"] = yaml.safe_dump(site)
    return thing


def test_hub_rights_and_site_come_up_by_kubectl_apply(cluster: Kubernetes, engines: dict[str, Any]) -> None:
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}})
    for name in ("rbac", "site", "hub"):
        things = yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text())
        cluster.apply(*(fitted(thing, prefix_of(engines["hub6"])) for thing in things))

    def hub() -> Any:
        (pod,) = cluster.get("pods", SPACE, "-l=app=hub") or [{}]
        ready = [one.get("ready") for one in pod.get("status", {}).get("containerStatuses", [])]
        return pod["status"]["podIP"] if ready == [True] else None

    try:
        address = eventually(hub, "the hub is ready", PATIENCE)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cluster.kubectl('logs', '-n', SPACE, '-l=app=hub', check=False)}") from None
    http = requests.Session()
    http.trust_env = False
    http.headers["Authorization"] = "token just-for-this-test"
    api = f"http://{address}:8000/hub/api"
    assert http.post(f"{api}/users/ann.b", timeout=60).status_code == 201
    started = http.post(f"{api}/users/ann.b/server", json={"image": "scipy"}, timeout=60)
    assert started.status_code in (201, 202), started.text
    model = lambda: http.get(f"{api}/users/ann.b", timeout=60).json()["servers"].get("", {})  # noqa: E731
    eventually(lambda: model().get("ready"), "the server is ready", PATIENCE)
    answer = http.get(f"http://{address}:8000/user/ann.b/api/status", timeout=60)
    assert answer.ok and "kernels" in answer.json(), answer.text
    claims = [one["metadata"]["name"] for one in cluster.get("persistentvolumeclaims", SPACE)]
    assert any(name.startswith("claim-ann-b---") for name in claims)
    assert http.delete(f"{api}/users/ann.b/server", timeout=60).status_code in (202, 204)
    eventually(lambda: not model(), "the server is gone", PATIENCE)
    kept = [one["metadata"]["name"] for one in cluster.get("persistentvolumeclaims", SPACE)]
    assert kept == claims
