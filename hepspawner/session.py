"""One server to be started: choice + image + site + user, resolved to argv, environment, mounts, resources.

Pure functions on plain data: `hepspawner preview` shows exactly what these make, and tests read as golden files.
"""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import quote

from . import apptainer
from .catalog.examine import PLACE
from .catalog.layouts import layout_of, places_of, short
from .catalog.references import in_registry, is_reference
from .choice import Choice
from .site.model import BackendConfig, Gpu, Image, Mount, Site
from .units import format_size, format_time

SECRET = "<secret: handed over by claim>"
GRACE = 10
"""Seconds between the polite request to end and the kill."""

# What schedulers and people set on a node to say which GPUs are theirs: --nv alone would show all of the host's.
GPU_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ZE_AFFINITY_MASK",
)
_SECRET_WORDS = ("TOKEN", "SECRET", "PASSW", "PASSPHRASE", "CREDENTIAL", "PRIVATE", "KEY")


@dataclass(frozen=True)
class Request:
    """All that a session is made of."""

    site: Site
    backend: BackendConfig
    choice: Choice
    user: str
    server: str
    """Name of the server, empty for the default one."""
    base_url: str
    """Path of the server, with slashes at both ends."""
    hub_environment: Mapping[str, str]
    """What JupyterHub wants in the server's environment, the secrets among it."""
    args: Sequence[str] = ()
    """JupyterHub's own arguments of the server (Spawner.args)."""
    command: Sequence[str] = ("jupyterhub-singleuser",)
    """The server's command (Spawner.cmd) where the image names none."""
    bind: str = "127.0.0.1"
    """Address that the server listens on."""
    directory: str = "~"
    """Working directory of the server."""
    session: str = ""
    """Id of the session: a mark by which its processes are known."""
    places: Sequence[str] = ()
    """Where the node looks for the image, in this order; empty: the places of the image as it is today."""
    also: Sequence[str] = ()
    """Places of which the node tells what is there where the image is not."""
    inherit: Sequence[str] = ()
    """Variables of the job that the server sees, too."""
    warning: int | None = None
    """Seconds before the end of the runtime at which the batch system, which keeps the time, warns the launcher."""
    runs_images: Literal["", "places", "references"] = ""
    """The backend itself runs such images as containers, and the launcher in them (`Backend.runs_images`)."""
    groups: Collection[str] = ()
    """The user's JupyterHub groups."""


@dataclass(frozen=True)
class Session:
    """What the launcher is told, and what the backend asks its scheduler for."""

    user: str
    image: str
    """What people call the image."""
    argv: list[Any]
    environment: dict[str, str]
    inherit: dict[str, str]
    requires: list[dict[str, str]]
    found: dict[str, Any] | None
    """Where the launcher finds the image (docs/protocol.md, `image`); None for a prefix."""
    mounts: list[Mount]
    directory: str
    log: str
    ready: str
    cpus: int | None
    memory: int | None
    gpu: str | None
    gpus: int
    runtime: int | None
    extra: Mapping[str, Any]
    container: bool
    """Whether its command runs a container."""
    warning: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that the launcher makes in the scratch directory: name → text."""
    container_image: str | None = None
    """The image that the backend itself runs as a container, and the launcher in it."""
    name: str | None = None
    """The site's name of the image; None for a user's own."""
    groups: Collection[str] = ()
    auth_state: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """For a backend that needs it."""
    claim: str | None = None
    """The claim that KubeSpawner had made for the server's home, where it was the spawner before."""

    def order(self) -> dict[str, Any]:
        """The answer to a claim, without the key that authorises reports (docs/protocol.md, section 2)."""
        return {
            "argv": self.argv,
            "files": dict(self.files),
            "environment": self.environment,
            "inherit": self.inherit,
            "requires": self.requires,
            "image": self.found,
            "directory": self.directory,
            "log": self.log,
            "ready": self.ready,
            "runtime": self.runtime,
            "warning": self.warning,
            "grace": GRACE,
        }

    def without_secrets(self) -> "Session":
        """The same with secret values left out, to be shown."""
        shown = {name: SECRET if is_secret(name) else value for name, value in self.environment.items()}
        return replace(self, environment=shown)


def literal(text: str) -> str:
    """Text that is data, so written that the launcher puts nothing in for what looks like a placeholder."""
    return re.sub("@(?=(?:PORT|SCRATCH|HOME|DEADLINE|IMAGE|DIGEST|AT)@)", "@AT@", text)


def is_secret(name: str) -> bool:
    """True for a variable whose value is not to be shown. Rather one too many."""
    return any(word in name.upper() for word in _SECRET_WORDS)


def build_session(request: Request) -> Session:
    """The session of a request. Raises ValueError where the site has no such image, or the image no place."""
    choice, site, backend = request.choice, request.site, request.backend
    image = site.image(choice.image) if choice.image else None
    if choice.image and image is None:
        raise ValueError(f"the site has no image {choice.image}")
    places = [*request.places] or places_of_choice(choice, image)
    reference = choice.custom_image if choice.custom_image and is_reference(choice.custom_image) else None
    prefix = image.prefix if image else None
    gpu = backend.gpus[choice.gpu] if choice.gpu else None
    theirs = _container_image(request, image, places)
    variables = _variables(request, image, container=prefix is None and not theirs)
    seen = (*(GPU_VARIABLES if gpu else ()), *request.inherit)
    argv = _server(request, image)
    mounts = _mounts(site, backend, image)
    found: dict[str, Any] | None = None
    requires = [{"path": mount.source, "what": "mount"} for mount in mounts if not mount.optional]
    if prefix is not None:
        environment, inherit = variables, {name: name for name in seen}
        requires = [{"path": prefix, "what": "prefix"}]
        mounts = []
    elif theirs:
        # The launcher is in the container: what the image and the backend set there is the server's, too.
        if request.runs_images == "references":
            own = {"HEPSPAWNER_IMAGE_PATH": "", "HEPSPAWNER_IMAGE_DIGEST": theirs.partition("@sha256:")[2]}
        else:
            digest = layout_of(theirs, theirs).digest
            own = {"HEPSPAWNER_IMAGE_PATH": literal(theirs), "HEPSPAWNER_IMAGE_DIGEST": digest}
        environment, inherit = {"HOME": "@HOME@", "TMPDIR": "@SCRATCH@", **variables, **own}, {"*": "*"}
        requires = [{"path": mount.target, "what": "mount"} for mount in mounts if not mount.optional]
    elif not places:
        raise ValueError(f"image {choice.image} has no path, and this backend needs one")
    else:
        environment = apptainer.environment({**(apptainer.PULLING if reference else {}), **variables})
        inherit = apptainer.inherited(seen)
        inherit |= {name: name for name in apptainer.PROXIES} if reference else {}
        vendor = gpu.vendor if gpu else None
        called = literal(reference) if reference else None
        argv = apptainer.command(called, argv, mounts=mounts, vendor=vendor, apptainer=backend.apptainer)
        if reference:
            found = {"pull": reference}
        else:
            found = {"places": places, "digest": PLACE, **({"also": [*request.also]} if request.also else {})}
    return Session(
        user=request.user,
        image=image.label if image else choice.custom_image or "",
        argv=argv,
        environment=environment,
        inherit=inherit,
        requires=requires,
        found=found,
        mounts=mounts,
        directory=request.directory,
        log=log_path(request.server),
        ready=request.base_url + "api",
        cpus=choice.cpus,
        memory=choice.memory,
        gpu=choice.gpu,
        gpus=choice.gpus,
        runtime=choice.runtime,
        extra=choice.extra,
        container=prefix is None and not theirs,
        warning=request.warning,
        files=apptainer.FILES if prefix is None and not theirs else {},
        container_image=theirs,
        name=image.name if image else None,
        groups=request.groups,
    )


def _container_image(request: Request, image: Image | None, places: Sequence[str]) -> str | None:
    """What the backend itself runs as a container; None: nothing. Raises ValueError where no registry has it."""
    if not request.runs_images or (image and image.prefix):
        return None
    if request.runs_images == "places":
        return places[0] if places else None
    reference = image.reference if image else in_registry(str(request.choice.custom_image))
    if reference is None:
        raise ValueError(f"the image {image.label if image else request.choice.custom_image} is in no registry")
    return reference


def places_of_choice(choice: Choice, image: Image | None) -> list[str]:
    """Where the image of a choice can be, by what is said of it alone."""
    if image is None:
        return [choice.custom_image] if choice.custom_image else []
    if choice.digest is None:
        return list(image.path)
    return list(dict.fromkeys(place for path in image.path for place in places_of(path, choice.digest)))


def log_path(server: str) -> str:
    """Where a server's log is: ``~`` is the home of its account."""
    name = f"server-{quote(server, safe='')}" if server else "server"
    return f"~/.local/state/hepspawner/{name[:200]}.log"


def _variables(request: Request, image: Image | None, container: bool) -> dict[str, str]:
    """The server's environment, the later over the earlier: what works anywhere, the admin's from general to special,
    what was asked for, and what JupyterHub needs."""
    scratch = apptainer.SCRATCH_TARGET if container else "@SCRATCH@"
    variables = {
        "USER": literal(request.user),
        "LOGNAME": literal(request.user),
        "SHELL": "/bin/bash",
        "HEPSPAWNER_SESSION": request.session,
        "HEPSPAWNER_IMAGE": literal(request.choice.image or request.choice.custom_image or ""),
        # Kernels' connection files must be seen by the server and the kernel: /run/user is not, in a container.
        "JUPYTER_RUNTIME_DIR": f"{scratch}/jupyter-runtime",
    }
    if image and image.prefix:
        path = f"{image.prefix}/bin:{apptainer.HOST_PATH}"
        variables |= {"HOME": "@HOME@", "TMPDIR": scratch, "PATH": path, "LANG": "C.UTF-8"}
    elif request.choice.custom_image and is_reference(request.choice.custom_image):
        variables["HEPSPAWNER_IMAGE_DIGEST"] = request.choice.custom_image.partition("@sha256:")[2]
    else:
        variables |= {"HEPSPAWNER_IMAGE_PATH": apptainer.IMAGE, "HEPSPAWNER_IMAGE_DIGEST": "@DIGEST@"}
    if image and image.jupyter_path:
        variables["JUPYTER_PATH"] = image.jupyter_path
    variables |= {**request.site.environment, **request.backend.environment, **(image.environment if image else {})}
    choice = request.choice
    if choice.cpus:
        variables |= {
            "CPU_LIMIT": str(choice.cpus),
            "OMP_NUM_THREADS": variables.get("OMP_NUM_THREADS", str(choice.cpus)),
        }
    if choice.memory:
        variables["MEM_LIMIT"] = str(choice.memory)
    if choice.runtime:
        variables["HEPSPAWNER_DEADLINE"] = "@DEADLINE@"
    variables |= {name: literal(value) for name, value in request.hub_environment.items()}
    variables["JUPYTERHUB_SERVICE_URL"] = f"http://{request.bind}:@PORT@{literal(request.base_url)}"
    if image and image.default_url:
        variables["JUPYTERHUB_DEFAULT_URL"] = image.default_url
    return variables


def _server(request: Request, image: Image | None) -> list[str]:
    """The server's own command, after the image's setup lines."""
    own = image.command if image and "command" in image.model_fields_set else request.command
    command = [*own, *request.args]
    if image and image.setup:
        # A login shell would read the image's profile and undo the environment.
        return ["/bin/bash", "-c", image.setup.rstrip("\n") + '\nexec "$@"', "setup", *command]
    return command


def _mounts(site: Site, backend: BackendConfig, image: Image | None) -> list[Mount]:
    """All mounts, in the order of their targets' depth; of several with one target the most special."""
    by_target = {mount.target: mount for mount in (*site.mounts, *backend.mounts, *(image.mounts if image else []))}
    return sorted(by_target.values(), key=lambda mount: mount.target.count("/"))


def describe(session: Session) -> str:
    """A session in words, for `preview`: the command, mounts and environment; no secret's value."""
    session = session.without_secrets()
    lines = ["# command (what stands between two @ is put in on the node)", _command_text(session.argv)]
    if session.found and "places" in session.found:
        lines += ["", "# image: @IMAGE@ is the real path of the first that is there"]
        lines += session.found["places"]
    lines += ["", "# resources"]
    asked = {
        "cores": session.cpus,
        "memory": session.memory and format_size(session.memory),
        "GPU": session.gpu and f"{session.gpus} x {session.gpu}",
        "time": session.runtime and format_time(session.runtime),
        **session.extra,
    }
    lines += [f"{name}: {value}" for name, value in asked.items() if value] or ["none asked for"]
    if session.container:
        lines += ["", "# mounts", "@SCRATCH@ -> /tmp (made for the session, removed at its end)", "the user's home"]
        for mount in session.mounts:
            notes = [word for word, on in (("read only", mount.read_only), ("where present", mount.optional)) if on]
            lines.append(f"{mount.source} -> {mount.target}{' (' + ', '.join(notes) + ')' if notes else ''}")
    lines += ["", "# environment"]
    lines += [f"{name}={value}" for name, value in sorted(session.environment.items())]
    lines += [f"{'the rest' if name == '*' else name}: as the node sets it" for name in session.inherit]
    return "\n".join(lines) + "\n"


def _command_text(argv: Sequence[Any]) -> str:
    words = []
    for word in argv:
        if isinstance(word, str):
            words.append(shlex.quote(word))
        else:
            unless = f" and {word['unless']} does not" if "unless" in word else ""
            words.append(f"[{shlex.join(word['argv'])}  # where {word['when']} exists{unless}]")
    return " ".join(words)


def summary(choice: Choice, site: Site) -> str:
    """A choice in a line, for people: ``ATLAS ML base on SDCC HTC with 1 × NVIDIA A100, 4 cores, 16G, 8h``."""
    image = site.image(choice.image) if choice.image else None
    backend = site.backends[choice.backend]
    gpu: Gpu | None = backend.gpus.get(choice.gpu) if choice.gpu else None
    parts = [f"{choice.gpus} × {gpu.title or choice.gpu}"] if gpu else []
    if choice.cpus:
        parts.append(f"{choice.cpus} core{'s' if choice.cpus > 1 else ''}")
    parts += [format_size(choice.memory)] if choice.memory else []
    parts += [format_time(choice.runtime)] if choice.runtime else []
    parts += [f"{name} {value}" for name, value in choice.extra.items()]
    what = image.label if image else choice.custom_image
    what = f"{what} ({short(choice.digest)})" if choice.digest else what
    return f"{what} on {backend.title or choice.backend}{' with ' + ', '.join(parts) if parts else ''}"
