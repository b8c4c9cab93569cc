"""What a pod sees of the world: home, CVMFS, directories of the node, scratch, shared memory. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ...site.model import Mount
from ...units import format_size
from ..base import Tag
from .config import KubernetesConfig
from .names import NAME, object_name, slug

Volume = tuple[dict[str, Any], dict[str, Any]]
"""A volume without its name, and how the container mounts it."""

_DIRECTORY = re.compile(r"[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]{0,200}")


def claim_name(config: KubernetesConfig, tag: Tag, kept: str | None = None) -> str:
    """The claim of a user's home; `kept`: the one that KubeSpawner had made for it."""
    return kept if kept and NAME.fullmatch(kept) else object_name(config.pvc_name_template, tag.user, tag.server)


def home_of(config: KubernetesConfig, user: str) -> str:
    """Where the server finds its home; where none is mounted, on the pod's own scratch."""
    if config.home is None:
        return config.scratch or "/tmp"
    return config.home.mount.replace("{username}", user if _DIRECTORY.fullmatch(user) else slug(user))


def _of_user(path: str, user: str) -> str:
    """A directory of the node or a server. Raises ValueError: a name must not lead to another one's."""
    if "{username}" in path and not _DIRECTORY.fullmatch(user):
        raise ValueError(f"the user name {user[:60]!r} cannot be the name of a directory")
    return path.replace("{username}", user)


def volumes(
    config: KubernetesConfig, mounts: Iterable[Mount], tag: Tag, claim: str | None = None
) -> tuple[list[Any], list[Any]]:
    """The volumes of a pod and their mounts in its container. Raises ValueError."""
    pod, container = [], []
    for number, (volume, mount) in enumerate(_all(config, mounts, tag, claim)):
        name = volume.pop("name", f"mount-{number}")
        pod.append({"name": name, **volume})
        container.append({"name": name, **mount})
    return pod, container


def _all(config: KubernetesConfig, mounts: Iterable[Mount], tag: Tag, claim: str | None) -> Iterator[Volume]:
    shm = {"sizeLimit": quantity(config.shm)} if config.shm else {}
    yield {"name": "shm", "emptyDir": {"medium": "Memory", **shm}}, {"mountPath": "/dev/shm"}
    size = {"sizeLimit": quantity(config.scratch_size)} if config.scratch_size else {}
    yield {"name": "scratch", "emptyDir": size}, {"mountPath": config.scratch or "/tmp"}
    if config.home is not None:
        yield {"name": "home", **_home(config, tag, claim)}, {"mountPath": home_of(config, tag.user)}
    taken = {*config.places, home_of(config, tag.user)}
    if config.cvmfs is not None:
        # What is mounted on the node later, by autofs or the CSI driver, must come into the pod, too.
        into = {"mountPath": "/cvmfs", "readOnly": True, "mountPropagation": "HostToContainer"}
        if config.cvmfs.claim:
            yield {"name": "cvmfs", "persistentVolumeClaim": {"claimName": config.cvmfs.claim, "readOnly": True}}, into
        else:
            yield {"name": "cvmfs", "hostPath": {"path": config.cvmfs.host_path, "type": "Directory"}}, into
    for mount in mounts:
        # Kubernetes cannot leave out what a node lacks: it would make an empty directory there. Nor does it take two
        # mounts in one place, and what a site mounts for all backends may be where a pod has its own.
        if mount.optional or mount.target in taken:
            continue
        into = {"mountPath": mount.target, "readOnly": mount.read_only, "mountPropagation": "HostToContainer"}
        yield {"hostPath": {"path": mount.source, "type": "Directory"}}, into


def _home(config: KubernetesConfig, tag: Tag, claim: str | None) -> dict[str, Any]:
    home = config.home
    assert home is not None
    if home.pvc is not None:
        return {"persistentVolumeClaim": {"claimName": claim_name(config, tag, claim)}}
    if home.nfs is not None:
        return {"nfs": {"server": home.nfs.server, "path": _of_user(home.nfs.path, tag.user)}}
    return {"hostPath": {"path": _of_user(str(home.host_path), tag.user), "type": "Directory"}}


def quantity(size: int) -> str:
    """Bytes as Kubernetes has them: ``8G`` of ours are its ``8Gi``."""
    return f"{format_size(size)}i"
