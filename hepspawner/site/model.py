"""What a site file says, as models. Reading one, with line numbers, is `hepspawner.site.load`."""

import posixpath
import re
from datetime import date
from functools import cached_property
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    SerializeAsAny,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from ..catalog.references import check_glob, in_registry, is_reference
from ..units import format_size, format_time, parse_size, parse_time

# Names stand in links, in HTML attributes, in job names and in logs.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@-]{0,127}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _name(value: Any) -> Any:
    if isinstance(value, str) and not NAME.fullmatch(value):
        raise ValueError("a name has up to 128 letters, digits and . _ : + @ -, and begins with a letter or digit")
    return value


def _text(value: Any) -> Any:
    # YAML reads `on: 3.11` or `tag: 1e3` as numbers; a person meant the text, but which one is not to be told.
    if isinstance(value, bool | int | float | date):
        what = "yes or no" if isinstance(value, bool) else "a date" if isinstance(value, date) else "a number"
        raise ValueError(f"is read by YAML as {what}, not as text: put it in quotes")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("contains a NUL character")
    return value


def absolute_path(value: str) -> str:
    """A path in its plain form. Raises ValueError where it is not absolute or climbs with ``..``."""
    if not value.startswith("/"):
        raise ValueError("must be an absolute path")
    if ".." in value.split("/"):
        raise ValueError("may not contain ..")
    if not value.isprintable():
        raise ValueError("may not contain control characters")
    return "/" + posixpath.normpath(value).lstrip("/")


def _path(value: Any) -> Any:
    return absolute_path(value) if isinstance(value, str) else value


def _allowed(value: Any) -> Any:
    if isinstance(value, str) and is_reference(value):
        return check_glob(value)
    return _path(value)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _units(parse: Any, example: str) -> Any:
    def read(value: Any) -> Any:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, int | float):
            raise ValueError(f"has no unit: write {example}")
        return value

    return read


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


Number = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Text = Annotated[str, BeforeValidator(_text)]
Line = Annotated[Text, StringConstraints(pattern=r"^[^\r\n]*$", max_length=2000)]
Name = Annotated[str, BeforeValidator(_text), BeforeValidator(_name)]
Path = Annotated[str, BeforeValidator(_text), BeforeValidator(_path)]
Size = Annotated[int, BeforeValidator(_units(parse_size, "512M or 8G")), PlainSerializer(format_size)]
Time = Annotated[int, BeforeValidator(_units(parse_time, "30m or 8h")), PlainSerializer(format_time)]
Groups = list[Text]


class Model(BaseModel):
    """Base of all: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Mount(Model):
    """A directory of the node inside the container."""

    source: Path
    target: Path = ""
    read_only: bool = False
    optional: bool = False
    """Left out, with a note, where the node does not have it. A required one that is missing fails the start."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            source, *rest = value.split(":")
            if len(rest) > 2 or (len(rest) == 2 and rest[1] not in ("ro", "rw")):
                raise ValueError("write source[:target[:ro]], or {source, target, read_only} for a path with a colon")
            return {"source": source, "target": rest[0] if rest else source, "read_only": rest[1:] == ["ro"]}
        if isinstance(value, dict) and not value.get("target") and "source" in value:
            return {**value, "target": value["source"]}
        return value


def _environment(value: Any) -> Any:
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str) or not VARIABLE.fullmatch(key):
                raise ValueError(f"{key!r} is no name of an environment variable")
    return value


Environment = Annotated[dict[str, Text], BeforeValidator(_environment)]


class ImageKeys(Model):
    """What an image says beside its place: a source says it for all of its images."""

    name: Line
    title: Line = ""
    description: Text = ""
    group: Line = ""
    family: Line = ""
    """Images of one family are one card of the form; absent: told by repository and title."""
    level: Line = ""
    """Its place in a collection such as ESCAPE's (Mercury…Saturn)."""
    tags: list[Line] = []
    gpu: Literal["none", "optional", "required"] = "optional"
    groups: Groups | None = None
    backends: list[Name] | None = None
    jupyter_path: Line | None = None
    environment: Environment = {}
    mounts: list[Mount] = []
    setup: Text = ""
    command: list[Text] = Field(["jupyterhub-singleuser"], min_length=1)
    default_url: Line | None = None


class Image(ImageKeys):
    """What a server runs in: exactly one of `path` (sandbox or SIF), `oci` alone (Kubernetes) and `prefix`."""

    name: Name
    path: Annotated[list[Path], BeforeValidator(_as_list)] = []
    """Places of the image, the first that exists is taken."""
    oci: Line | None = None
    prefix: Path | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "Image":
        if self.prefix and (self.path or self.oci):
            raise ValueError("has a prefix and a path or oci: a prefix is an environment without a container")
        if not (self.prefix or self.path or self.oci):
            raise ValueError("says not where it is: give path, prefix or oci")
        return self

    @property
    def label(self) -> str:
        """What people see: the title, or the name where there is none."""
        return self.title or self.name

    @cached_property
    def text(self) -> str:
        """In what words are looked for, in small letters."""
        return " ".join([self.group, self.name, self.label, self.description, *self.tags]).lower()

    @property
    def places(self) -> list[str]:
        """Where it lives on a file system; empty for an image that is only an OCI reference."""
        return [self.prefix] if self.prefix else self.path

    @cached_property
    def reference(self) -> str | None:
        """Where registries have it; None: in none that is known of."""
        return self.oci or next(filter(None, map(in_registry, self.path)), None)


PLACEHOLDERS = ("registry", "repository", "namespace", "name", "tag")
"""What templates of a source may name of an image: of ``ghcr.io/atlas/ml/base:v1`` the registry is ``ghcr.io``, the
repository ``atlas/ml/base``, the namespace ``atlas/ml``, the name ``base``, the tag ``v1``."""


def _template(value: str) -> str:
    try:
        fields = [field for _, *field in Formatter().parse(value) if field[0] is not None]
    except ValueError as error:
        raise ValueError(f"is no template: {str(error).lower()}") from None
    for name, form, conversion in fields:
        if name not in PLACEHOLDERS or form or conversion:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise ValueError(f"{{{name}}} is no placeholder; there are: {known}")
    return value


Template = Annotated[Line, AfterValidator(_template)]


class Source(ImageKeys):
    """Many images at once: a list that somebody keeps, or a directory. The hub follows it in the background."""

    kind: Literal["wishlist", "docker_images", "directory", "catalog"] = Field(alias="from")
    file: Path | None = None
    directory: Path | None = None
    repository: Path | None = None
    """The directory below which the images of a list are."""
    include: Annotated[list[Line], BeforeValidator(_as_list)] = ["*"]
    """Globs of what is taken, in which ``*`` also matches ``/``, and of what is not."""
    exclude: Annotated[list[Line], BeforeValidator(_as_list)] = []
    refresh: Time = 900
    name: Template = "{name}:{tag}"
    title: Template = ""
    description: Template = ""

    @model_validator(mode="after")
    def _where(self) -> "Source":
        place, other = ("directory", "file") if self.kind == "directory" else ("file", "directory")
        if getattr(self, place) is None:
            raise ValueError(f"from: {self.kind} needs the key {place}")
        if getattr(self, other) is not None:
            raise ValueError(f"from: {self.kind} has no key {other}, but {place}")
        if self.kind == "directory" and self.repository is not None:
            raise ValueError("from: directory has no key repository")
        if self.kind == "docker_images" and self.root is None:
            raise ValueError("from: docker_images needs the key repository, the directory below which the images are")
        return self

    @property
    def place(self) -> str:
        """The file or directory that it reads."""
        return str(self.file or self.directory)

    @property
    def root(self) -> str | None:
        """The directory of its images: as said, or the repository on CVMFS in which the list is."""
        parts = self.place.split("/")
        on_cvmfs = "/".join(parts[:3]) if parts[1] == "cvmfs" and len(parts) > 3 else None
        return self.repository or on_cvmfs


def _entry_kind(value: Any) -> str:
    # Brackets: no key of a file is called so, which the texts of errors rely on.
    return "[source]" if isinstance(value, Source) or (isinstance(value, dict) and "from" in value) else "[image]"


Entry = Annotated[Annotated[Image, Tag("[image]")] | Annotated[Source, Tag("[source]")], Discriminator(_entry_kind)]


class CustomImages(Model):
    """Which images users may bring: globs of paths and of references (``docker://ghcr.io/*``), in which ``*`` also
    matches ``/`` and ``{username}`` is the user."""

    allow: Annotated[list[Annotated[str, BeforeValidator(_text), BeforeValidator(_allowed)]], Field(min_length=1)]
    groups: Groups | None = None


def _ordered(show: Any) -> Any:
    def check(value: Any) -> Any:
        if value.default > value.max:
            raise ValueError(f"the default {show(value.default)} is more than max, {show(value.max)}")
        return value

    return model_validator(mode="after")(check)


class Count(Model):
    """A number to choose: default and maximum."""

    default: Number = 1
    max: Number

    _check = _ordered(str)


class Sizes(Model):
    """An amount of memory to choose."""

    default: Size
    max: Size

    _check = _ordered(format_size)


class Times(Model):
    """A time to choose."""

    default: Time
    max: Time

    _check = _ordered(format_time)


class Gpu(Model):
    """One kind of GPU of a backend. Backends derive from it to say how it is requested."""

    title: Line = ""
    max: Number = 1
    vendor: Literal["nvidia", "amd"] = "nvidia"
    """Whose driver the container is given: ``--nv`` or ``--rocm``."""


class BackendConfig(Model):
    """The keys that every backend has; each type derives its own from it."""

    type: Name
    title: Line = ""
    groups: Groups | None = None
    cpus: Count | None = None
    memory: Sizes | None = None
    runtime: Times | None = None
    gpus: dict[Name, Gpu] = {}
    poll_interval: Time = 30
    mounts: list[Mount] = []
    environment: Environment = {}
    scratch: Path | None = None
    """Where the launcher makes the session's scratch directory on the node; absent: $TMPDIR or /tmp."""
    python: Path | None = None
    """The Python (3.6 or newer) that runs the launcher on the node."""
    probe: Literal["hub", "node", "none"] = "hub"
    """Who looks whether an image is there: the hub, where it sees what nodes see; or only the node, at the start, and
    the hub keeps what nodes say; or only the node, and it is kept to that start."""
    apptainer: Line = "apptainer"
    """Name or path of Apptainer on the node."""
    hub_url: Line | None = None
    """The hub as this backend's nodes reach it, e.g. ``http://hub.example.org:8081``; absent: the hub's own setting."""

    @field_validator("hub_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^/\s]+/?", value):
            raise ValueError("must be http://host:port or https://host:port")
        return value and value.rstrip("/")

    def runs(self, image: "Image | str") -> bool:
        """Whether it can run an image of the site, or one that a user brings: a path or a full reference."""
        return isinstance(image, str) or bool(image.places)

    def objections(self, site: "Site", name: str) -> list[str]:
        """What is wrong with it, as the backend `name`, in view of the rest of the site."""
        return []


class Site(Model):
    """Everything that the admin says, in one file."""

    entries: Annotated[list[Entry], Field(min_length=1, alias="images")]
    """What stands below ``images``: images, and sources of more."""
    custom_images: CustomImages | None = None
    backends: Annotated[dict[Name, SerializeAsAny[BackendConfig]], Field(min_length=1)]
    mounts: list[Mount] = [Mount(source="/cvmfs", target="/cvmfs", read_only=True, optional=True)]
    environment: Environment = {}

    @field_validator("backends", mode="wrap")
    @classmethod
    def _typed(cls, value: Any, handler: Any) -> Any:
        from ..backends import parse_backends  # backends' own models derive from BackendConfig

        return parse_backends(value, handler)

    @property
    def images(self) -> list[Image]:
        """Those of the entries that are images. What sources found is in the site that the catalog makes of this."""
        return [entry for entry in self.entries if isinstance(entry, Image)]

    @property
    def sources(self) -> list[Source]:
        """Those of the entries that are sources."""
        return [entry for entry in self.entries if isinstance(entry, Source)]

    def plain(self) -> dict[str, Any]:
        """The site as data for JSON, of the shape that its file has; only what was said."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    def image(self, name: str) -> Image | None:
        """The image of a name, None where the site has none."""
        return next((image for image in self.images if image.name == name), None)
