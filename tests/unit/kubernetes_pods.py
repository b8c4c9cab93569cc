"""Pods as the Kubernetes backend builds them of sessions."""

from types import SimpleNamespace
from typing import Any

from hepspawner.backends.base import Tag
from hepspawner.backends.kubernetes import KubernetesConfig
from hepspawner.backends.kubernetes.config import Identity
from hepspawner.backends.kubernetes.pod import Wanted, patched, pod

TAG = Tag("0123456789ab", "alice", "", "f" * 32)


def session(**more: Any) -> Any:
    plain = {
        "user": "alice",
        "cpus": None,
        "memory": None,
        "gpu": None,
        "gpus": 0,
        "mounts": [],
        "groups": (),
        "claim": None,
    }
    return SimpleNamespace(**{**plain, "name": "lab", "container_image": "quay.io/jupyter/base:1", **more})


def built(settings: KubernetesConfig, one: Any, tag: Tag = TAG) -> dict[str, Any]:
    who = settings.run_as if isinstance(settings.run_as, Identity) else None
    return patched(pod(settings, one, tag, who, 10), settings.pod_patch, tag, Wanted(one.name, one.gpu, one.groups))
