"""The keys of a Kubernetes backend."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ...catalog.references import in_registry, is_reference
from ...site.model import BackendConfig, Gpu, Groups, Image, Line, Model, Name, Number, Path, Size, Text, Time
from .names import OF_USER, PLACEHOLDERS

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def _object(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("a name in Kubernetes has small letters, digits, - and . only")
    return value


def _template(value: str) -> str:
    if unknown := set(re.findall(r"\{(.*?)\}", value)) - set(PLACEHOLDERS):
        raise ValueError(f"{{{unknown.pop()}}} is not known; there are: {', '.join(f'{{{n}}}' for n in PLACEHOLDERS)}")
    _object(re.sub(r"\{.*?\}", "x", value))
    return value


def _of_user(value: str) -> str:
    if not OF_USER & set(re.findall(r"\{(.*?)\}", value)):
        raise ValueError("all users would share one: put {username} in it")
    return value


Object = Annotated[Text, AfterValidator(_object)]
Template = Annotated[Text, AfterValidator(_template)]


def _texts(value: Any) -> Any:
    if isinstance(value, dict) and not all(isinstance(one, str) for one in value.values()):
        raise ValueError("labels, annotations and selectors are texts: put numbers and yes in quotes")
    return value


Texts = Annotated[dict[Text, Text], BeforeValidator(_texts)]


class KubernetesGpu(Gpu):
    """One kind of GPU, and how Kubernetes is asked for it."""

    resource: Line = ""
    """``nvidia.com/gpu``, ``nvidia.com/mig-1g.5gb``; absent: the vendor's."""
    node_selector: Texts = {}
    tolerations: list[dict[str, Any]] = []

    @property
    def name(self) -> str:
        """The resource that is asked for."""
        return self.resource or f"{self.vendor}.com/gpu"


class Claim(Model):
    """How a user's claim is made where there is none yet."""

    size: Size
    storage_class: Line | None = None
    """Absent: the cluster's default one."""
    access_modes: list[Literal["ReadWriteOnce", "ReadWriteMany", "ReadWriteOncePod"]] = ["ReadWriteOnce"]
    labels: Texts = {}
    annotations: Texts = {}
    delete: bool = False
    """Whether it goes when JupyterHub deletes its user (or server)."""


class Nfs(Model):
    """A directory of an NFS server."""

    server: Line
    path: Line


class Home(Model):
    """Where homes come from: exactly one of `pvc`, `host_path`, `nfs`."""

    mount: Line = "/home/{username}"
    """Where it is seen in the pod, and HOME of the server; ``{username}`` is the user's name."""
    pvc: Claim | None = None
    host_path: Line | None = None
    nfs: Nfs | None = None

    @model_validator(mode="after")
    def _one(self) -> "Home":
        if sum(one is not None for one in (self.pvc, self.host_path, self.nfs)) != 1:
            raise ValueError("must have exactly one of pvc, host_path and nfs")
        paths = [self.mount, *([self.host_path] if self.host_path else []), *([self.nfs.path] if self.nfs else [])]
        for path in paths:
            if not path.startswith("/") or ".." in path.split("/"):
                raise ValueError(f"{path} must be an absolute path without ..")
            if unknown := set(re.findall(r"\{(.*?)\}", path)) - {"username"}:
                raise ValueError(f"{{{unknown.pop()}}} in {path} is not known; there is {{username}}")
        return self


class Cvmfs(Model):
    """How pods see /cvmfs: by a claim (of CVMFS' CSI driver), or as the node does."""

    claim: Object | None = None
    host_path: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> "Cvmfs":
        if (self.claim is None) == (self.host_path is None):
            raise ValueError("must have exactly one of claim and host_path")
        return self


class Identity(Model):
    """Numbers of an account."""

    uid: Annotated[int, Field(ge=0)]
    gid: Annotated[int, Field(ge=0)]
    groups: list[Annotated[int, Field(ge=0)]] = []


Part = Annotated[float, Field(gt=0, le=1)]


class Requests(Model):
    """The parts of what was asked for that a node must have free; up to all of it may be used."""

    cpus: Part = 1.0
    memory: Part = 1.0


class Patch(Model):
    """A change to pods: for all, or for some images, kinds of GPU or groups of users."""

    patch: dict[str, Any]
    """A part of a pod, merged strategically, as by ``kubectl patch``."""
    images: list[Name] | None = None
    gpus: list[Name] | None = None
    groups: Groups | None = None


def _patches(value: Any) -> Any:
    plain = isinstance(value, dict) and "patch" not in value
    return [{"patch": value}] if plain else [value] if isinstance(value, dict) else value


class KubernetesConfig(BackendConfig):
    """Keys of a Kubernetes backend."""

    gpus: dict[Name, KubernetesGpu] = {}  # type: ignore[assignment]
    probe: Literal["hub", "none"] = "none"
    kubeconfig: Path | None = None
    """Absent: as a pod of the cluster, else the usual file."""
    context: Line | None = None
    namespace: Template | None = None
    """``{username}`` in it: one for each user. Absent: the hub's own."""
    labels: Texts = {}
    annotations: Texts = {}
    images_pull_secrets: list[Object] = []
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    node_selector: Texts = {}
    tolerations: list[dict[str, Any]] = []
    priority_class: Object | None = None
    service_account: Object | None = None
    """Absent: none, and no token of one."""
    run_as: Literal["image", "account", "auth_state"] | Identity = "image"
    """Whose numbers servers have: as the image says, the account that is called like the user, auth_state's
    ``uid``, ``gid`` and ``groups``, or these."""
    requests: Requests = Requests()
    shm: Size | None = None
    """The most that is in /dev/shm; absent: as much as the memory allows."""
    scratch_size: Size | None = None
    home: Home | None = None
    pvc_name_template: Annotated[Template, AfterValidator(_of_user)] = "claim-{username}"
    cvmfs: Cvmfs | None = None
    pod_patch: Annotated[list[Patch], BeforeValidator(_patches)] = []
    connect: Literal["pod-ip", "service"] = "pod-ip"
    port: Annotated[Number, Field(le=65535)] = 8888
    scale_up_timeout: Time = 600
    """How long a pod may wait for a node or a volume."""

    @field_validator("namespace")
    @classmethod
    def _short(cls, value: str | None) -> str | None:
        if value is not None and len(value) > 63:
            raise ValueError("has more than 63 characters")
        return value

    @model_validator(mode="after")
    def _kinds(self) -> "KubernetesConfig":
        for patch in self.pod_patch:
            for kind in patch.gpus or []:
                if kind not in self.gpus:
                    raise ValueError(f"pod_patch: {kind} is none of the backend's gpus: {', '.join(self.gpus)}")
        return self

    def runs(self, image: Image | str) -> bool:
        if isinstance(image, str):
            # That a path may be taken does not say that everything may that would be called so in a registry.
            return is_reference(image) and in_registry(image) is not None
        return image.reference is not None
