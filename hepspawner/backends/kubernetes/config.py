"""The keys of a Kubernetes backend."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from ...catalog.references import in_registry, is_reference
from ...site.model import (
    BackendConfig,
    Gpu,
    Groups,
    Image,
    Line,
    Model,
    Name,
    Number,
    Path,
    Site,
    Size,
    Source,
    Text,
    Time,
)
from . import patch as patches
from .names import NAME, OF_USER, PLACEHOLDERS

_WORD = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([a-z0-9]([a-z0-9.-]{{0,251}}[a-z0-9])?/)?{_WORD}")
_VALUE = re.compile(rf"({_WORD})?")
_NUMBERS = "say account, auth_state or {uid, gid}"
WHERE = "/run/hepspawner"
"""Where the launcher and its job are in the pod."""
_TOLERATION = ("key", "operator", "value", "effect", "tolerationSeconds")


def _object(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("a name in Kubernetes has small letters, digits, - and . only")
    return value


def _placeholders(value: str) -> list[str]:
    return re.findall(r"\{(.*?)\}", value)


def _template(value: str) -> str:
    if unknown := set(_placeholders(value)) - set(PLACEHOLDERS):
        raise ValueError(f"{{{unknown.pop()}}} is not known; there are: {', '.join(f'{{{n}}}' for n in PLACEHOLDERS)}")
    _object(re.sub(r"\{.*?\}", "x", value))
    if not re.search("[a-z0-9]", re.sub(r"\{.*?\}", "", value)):
        raise ValueError("a user could be called like anything that is there: put a word of its own before it")
    return value


def _of_user(value: str) -> str:
    if not OF_USER & set(_placeholders(value)):
        raise ValueError("all users would share one: put {username} in it")
    return value


def _told_apart(value: str) -> str:
    """alice-b's c must not be alice's b-c."""
    both = re.search(r"\{(username|slug|escaped)\}--\{servername\}", value)
    if "servername" in _placeholders(value) and not both:
        raise ValueError("has a server without -- between it and its user: write {username}--{servername}")
    return value


Object = Annotated[Text, AfterValidator(_object)]
Template = Annotated[Text, AfterValidator(_template)]


def _texts(value: Any) -> Any:
    if isinstance(value, dict) and not all(isinstance(one, str) for one in value.values()):
        raise ValueError("labels, annotations and selectors are texts: put numbers and yes in quotes")
    return value


def _keys(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _KEY.fullmatch(name):
            raise ValueError(f"{name!r} is no key in Kubernetes: letters, digits, - _ . and one / at the most")
    return value


def _values(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not _VALUE.fullmatch(re.sub(rf"\{{({'|'.join(PLACEHOLDERS)})\}}", "x", text)):
            raise ValueError(f"{name!r}: {text!r} is no value in Kubernetes: 63 letters, digits and - _ . at the most")
    return value


def _tolerations(value: Any) -> Any:
    for one in value if isinstance(value, list) else ():
        for name in one if isinstance(one, dict) else ():
            if name not in _TOLERATION:
                raise ValueError(f"{name!r} is no part of a toleration; there are: {', '.join(_TOLERATION)}")
    return value


Texts = Annotated[dict[Text, Text], BeforeValidator(_texts), AfterValidator(_keys)]
Labels = Annotated[Texts, AfterValidator(_values)]
Tolerations = Annotated[list[dict[str, Any]], BeforeValidator(_tolerations)]


class KubernetesGpu(Gpu):
    """One kind of GPU, and how Kubernetes is asked for it."""

    resource: Line = ""
    """``nvidia.com/gpu``, ``nvidia.com/mig-1g.5gb``; absent: the vendor's."""
    node_selector: Labels = {}
    tolerations: Tolerations = []

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
    labels: Labels = {}
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
        for path in paths[1:]:
            if "{username}" not in path:
                raise ValueError(f"{path}: all users would share one: put {{username}} in it")
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


def _no_answer(value: Any) -> Any:
    if isinstance(value, bool):  # Python takes yes for 1
        raise ValueError("must be a whole number")
    return value


Id = Annotated[int, BeforeValidator(_no_answer), Field(ge=0)]


class Identity(Model):
    """Numbers of an account."""

    uid: Id
    gid: Id
    groups: list[Id] = []

    @classmethod
    def of_login(cls, auth_state: Mapping[str, Any]) -> "Identity":
        """What a login says. Raises ValueError where that is too little, or root: only the site may say so."""
        try:
            one = cls.model_validate({name: auth_state[name] for name in cls.model_fields if name in auth_state})
        except ValidationError:
            raise ValueError("the login gave no uid and gid (auth_state), which this backend wants") from None
        if 0 in (one.uid, one.gid, *one.groups):
            raise ValueError("the login says that you are root, or of root's group (auth_state)")
        return one


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

    @field_validator("patch")
    @classmethod
    def _applies(cls, value: dict[str, Any]) -> dict[str, Any]:
        patches.check(value)
        for field, check in (("labels", _values), ("annotations", dict)):
            given = value.get("metadata", {}).get(field) or {}
            check(_keys({name: text or "" for name, text in given.items() if name != patches.DIRECTIVE}))
        return value


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
    labels: Labels = {}
    annotations: Texts = {}
    images_pull_secrets: list[Object] = []
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    node_selector: Labels = {}
    tolerations: Tolerations = []
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
    pvc_name_template: Annotated[Template, AfterValidator(_of_user), AfterValidator(_told_apart)] = "claim-{username}"
    cvmfs: Cvmfs | None = None
    pod_patch: Annotated[list[Patch], BeforeValidator(_patches)] = []
    connect: Literal["pod-ip", "service"] = "pod-ip"
    port: Annotated[Number, Field(le=65535)] = 8888
    scale_up_timeout: Time = 600
    """How long a pod may wait for a node or a volume."""

    @field_validator("namespace")
    @classmethod
    def _label(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if len(value) > 63 or "." in value:
            raise ValueError("a namespace has 63 characters at the most, and no dot")
        return _of_user(value) if _placeholders(value) else value

    @model_validator(mode="after")
    def _kinds(self) -> "KubernetesConfig":
        for patch in self.pod_patch:
            for kind in patch.gpus or []:
                if kind not in self.gpus:
                    raise ValueError(f"pod_patch: {kind} is none of the backend's gpus: {', '.join(self.gpus)}")
        return self

    @model_validator(mode="after")
    def _places(self) -> "KubernetesConfig":
        if self.run_as == "image" and self.home and not self.home.pvc:
            raise ValueError(f"run_as: an image may say that it is root, and could read every home: {_NUMBERS}")
        for mount in self.mounts:
            if mount.target in self.places and not mount.optional:
                raise ValueError(f"mounts: {mount.target} is in each pod already: home, scratch, /dev/shm or cvmfs")
        return self

    @property
    def places(self) -> set[str]:
        """Where a pod has something of its own, whoever's it is."""
        home = {self.home.mount} if self.home else set()
        return {"/dev/shm", self.scratch or "/tmp", WHERE, *home, *(["/cvmfs"] if self.cvmfs else [])}

    def objections(self, site: Site, name: str) -> list[str]:
        if self.run_as != "image":
            return []
        entries = [one for one in site.entries if one.backends is None or name in one.backends]
        mounts = [*site.mounts, *self.mounts, *(mount for one in entries if self._may_run(one) for mount in one.mounts)]
        writable = dict.fromkeys(one.source for one in mounts if not (one.read_only or one.optional))
        why = "an image may say that it is root, and could write"
        return [f"run_as: {why} {source} on the node: mount it read_only, or {_NUMBERS}" for source in writable]

    def _may_run(self, entry: Image | Source) -> bool:
        return isinstance(entry, Source) or self.runs(entry)

    def runs(self, image: Image | str) -> bool:
        if isinstance(image, str):
            # That a path may be taken does not say that everything may that would be called so in a registry.
            return is_reference(image) and in_registry(image) is not None
        return image.reference is not None
