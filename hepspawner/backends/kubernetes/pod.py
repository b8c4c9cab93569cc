"""From a session to a pod and what belongs to it, as plain dicts. Pure. Only the Secret holds anything secret."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base import Tag
from ..tags import write_tag
from .config import WHERE, Claim, Identity, KubernetesConfig, Patch
from .names import HUB, LABEL, OWNER, SESSION, TAG, fill, label_value, labels, pod_name
from .patch import merged
from .volumes import claim_name, quantity, volumes

if TYPE_CHECKING:
    from ...session import Session

CONTAINER = "server"
SPARE = 15
"""Seconds that the launcher has beyond the server's own: it tells the hub of the end."""


@cache
def launcher() -> str:
    """The launcher's text. Reads a file."""
    return (Path(__file__).parents[2] / "node" / "launcher.py").read_text()


@cache
def launcher_name() -> str:
    """The name of the launcher's ConfigMap. Another text is another map: pods of an older hub keep theirs."""
    return f"hepspawner-launcher-{sha256(launcher().encode()).hexdigest()[:16]}"


def launcher_map() -> dict[str, Any]:
    """The ConfigMap that holds the launcher."""
    metadata = {"name": launcher_name(), "labels": {LABEL: "hepspawner"}}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {"launcher.py": launcher()},
    }


def pod(config: KubernetesConfig, session: "Session", tag: Tag, who: Identity | None, grace: int) -> dict[str, Any]:
    """The pod of a session, before the admin's patches. `who`: whose numbers it has, None as its image says;
    `grace`: seconds that its server has to end. Raises ValueError for what no pod can be."""
    ours, mounts = volumes(config, session.mounts, tag, session.claim)
    gpu = config.gpus[session.gpu] if session.gpu else None
    # Without a group of the pod's own the file is root's, and the image's user could not read it; nobody else is there.
    mode = 0o444 if who is None else 0o400
    files = [
        {"configMap": {"name": launcher_name()}},
        {"secret": {"name": pod_name(tag), "items": [{"key": "job", "path": "job", "mode": mode}]}},
    ]
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": session.container_image,
        "command": [config.python or "python3", "-I", "-S", f"{WHERE}/launcher.py", f"{WHERE}/job"],
        "resources": _resources(config, session),
        "securityContext": {"allowPrivilegeEscalation": False, "privileged": False},
        "volumeMounts": [{"name": "hepspawner", "mountPath": WHERE, "readOnly": True}, *mounts],
        # The last words of what ended without a report.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if config.image_pull_policy:
        container["imagePullPolicy"] = config.image_pull_policy
    if gpu is None:
        # On a node that shares its GPUs the images' own setting, all, would show them.
        container["env"] = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    if config.connect == "service":
        container["ports"] = [{"name": "server", "containerPort": config.port}]
    selector = {**config.node_selector, **(gpu.node_selector if gpu else {})}
    tolerations = [*config.tolerations, *(gpu.tolerations if gpu else [])]
    spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": grace + SPARE,
        "enableServiceLinks": False,
        "automountServiceAccountToken": config.service_account is not None,
        "serviceAccountName": config.service_account,
        "priorityClassName": config.priority_class,
        "nodeSelector": selector,
        "tolerations": tolerations,
        "imagePullSecrets": [{"name": name} for name in config.images_pull_secrets],
        "securityContext": _security(who),
        "containers": [container],
        "volumes": [{"name": "hepspawner", "projected": {"sources": files, "defaultMode": 0o444}}, *ours],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(config, tag),
        "spec": {name: value for name, value in spec.items() if value not in (None, {}, [])},
    }


def _metadata(config: KubernetesConfig, tag: Tag) -> dict[str, Any]:
    return {
        "name": pod_name(tag),
        "labels": {**_labels(config.labels, tag), **labels(tag)},
        "annotations": {**_filled(config.annotations, tag), TAG: write_tag(tag)},
    }


def _filled(texts: Mapping[str, str], tag: Tag) -> dict[str, str]:
    return {name: fill(text, tag.user, tag.server) for name, text in texts.items()}


def _labels(texts: Mapping[str, str], tag: Tag) -> dict[str, str]:
    return {name: label_value(text, tag.user, tag.server) for name, text in texts.items()}


def _resources(config: KubernetesConfig, session: "Session") -> dict[str, Any]:
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    if session.cpus:
        limits["cpu"], requests["cpu"] = str(session.cpus), _millis(session.cpus * config.requests.cpus)
    if session.memory:
        limits["memory"] = quantity(session.memory)
        requests["memory"] = quantity(max(1, int(session.memory * config.requests.memory)))
    if session.gpu:
        name = config.gpus[session.gpu].name
        limits[name] = requests[name] = str(session.gpus)
    return {"limits": limits, "requests": requests} if limits else {}


def _millis(cores: float) -> str:
    return str(int(cores)) if cores == int(cores) else f"{max(1, round(cores * 1000))}m"


def _security(who: Identity | None) -> dict[str, Any]:
    if who is None:
        return {}
    groups = [one for one in who.groups if one != who.gid]
    return {
        "runAsUser": who.uid,
        "runAsGroup": who.gid,
        "fsGroup": who.gid,
        # Not every file of a large home at each start.
        "fsGroupChangePolicy": "OnRootMismatch",
        **({"supplementalGroups": groups} if groups else {}),
    }


def patched(pod: dict[str, Any], patches: Iterable[Patch], tag: Tag, wanted: "Wanted") -> dict[str, Any]:
    """A pod with the admin's changes, as far as they are for it. What it is found by stays."""
    result = pod
    for one in patches:
        if wanted.meets(one):
            result = merged(result, _put_in(one.patch, tag))
    metadata = result["metadata"]
    kept = {name: pod["metadata"]["labels"][name] for name in (LABEL, HUB, SESSION)}
    return {
        **result,
        "metadata": {
            **metadata,
            "name": pod["metadata"]["name"],
            "labels": {**_labels(metadata.get("labels") or {}, tag), **kept},
            "annotations": {**(metadata.get("annotations") or {}), TAG: pod["metadata"]["annotations"][TAG]},
        },
    }


class Wanted:
    """What was chosen, and by whom: which patches are meant."""

    def __init__(self, image: str | None, gpu: str | None, groups: Iterable[str] = ()):
        self.image, self.gpu, self.groups = image, gpu, frozenset(groups)

    def meets(self, patch: Patch) -> bool:
        """Whether a patch is for it."""
        return (
            (patch.images is None or self.image in patch.images)
            and (patch.gpus is None or self.gpu in patch.gpus)
            and (patch.groups is None or not self.groups.isdisjoint(patch.groups))
        )


def _put_in(value: Any, tag: Tag) -> Any:
    """Texts of a patch with ``{username}`` and the like filled in."""
    if isinstance(value, str):
        return fill(value, tag.user, tag.server)
    if isinstance(value, dict):
        return {name: _put_in(one, tag) for name, one in value.items()}
    return [_put_in(one, tag) for one in value] if isinstance(value, list) else value


def _owned(kind: str, tag: Tag, owner: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """An object that goes when a session's pod, as the API server answered it, does."""
    reference = {"apiVersion": "v1", "kind": "Pod", "name": owner["name"], "uid": owner["uid"]}
    metadata = {"name": pod_name(tag), "labels": labels(tag), "ownerReferences": [reference]}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **more}


def secret(tag: Tag, owner: dict[str, Any], job_input: dict[str, Any]) -> dict[str, Any]:
    """The Secret with the launcher's job, and the ticket in it."""
    return _owned("Secret", tag, owner, {"immutable": True, "stringData": {"job": json.dumps(job_input)}})


def namespace(name: str) -> dict[str, Any]:
    """A user's namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {LABEL: "hepspawner"}}}


def service(config: KubernetesConfig, tag: Tag, owner: dict[str, Any]) -> dict[str, Any]:
    """The Service through which the hub and the proxy reach a pod."""
    spec = {"selector": labels(tag), "ports": [{"port": config.port, "targetPort": config.port}]}
    return _owned("Service", tag, owner, {"spec": spec})


def claim(config: KubernetesConfig, made: Claim, tag: Tag, kept: str | None = None) -> dict[str, Any]:
    """The claim of a user's home, as it is made where there is none; `kept`: see `claim_name`."""
    spec: dict[str, Any] = {
        "accessModes": list(made.access_modes),
        "resources": {"requests": {"storage": quantity(made.size)}},
    }
    if made.storage_class is not None:
        spec["storageClassName"] = made.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(config, tag, kept),
            # The hub: another one in the namespace must not remove it.
            "labels": {**_labels(made.labels, tag), LABEL: "hepspawner", HUB: tag.hub},
            "annotations": {**_filled(made.annotations, tag), OWNER: tag.user},
        },
        "spec": spec,
    }
