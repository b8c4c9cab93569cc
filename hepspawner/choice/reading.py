"""From options, whatever door they came through, to a choice or to all that is wrong with them."""

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any

from ..catalog.layouts import DIGEST
from ..catalog.references import full_reference, is_reference, without_credentials
from ..site.model import Image, absolute_path
from .fields import Choice, ChoiceError, Field, near, shown, some

if TYPE_CHECKING:
    from .offer import Offer

_MAX_OPTIONS = 40
_MAX_TEXT = 4096
_NO_GPU = 1000
"""What a GPU that is not there weighs: more than all numbers that are too large, which can be made smaller."""
VERY_IMAGE = "very_image"
"""The form's field for ``name@digest``: it counts where that image is chosen."""
_COMMON = {"image", "custom_image", "backend", "cpus", "memory", "gpu", "gpus", "runtime"}


def bounded(options: Any) -> dict[str, Any]:
    """Options of a size and shape worth looking at. Raises ChoiceError."""
    clean, errors = sift(options)
    if errors:
        raise ChoiceError(errors)
    return clean


def sift(options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Those of the options whose size and shape are worth looking at, and what is wrong with the others."""
    if options is None:
        return {}, {}
    if not isinstance(options, dict):
        return {}, {"user_options": "must be a mapping of names to values"}
    if len(options) > _MAX_OPTIONS:
        return {}, {"user_options": f"has more than {_MAX_OPTIONS} options"}
    clean: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, value in options.items():
        if not isinstance(name, str) or not 0 < len(name) <= 64 or not name.isprintable():
            errors["user_options"] = f"{shown(name)} is not an option"
        elif isinstance(value, str) and len(value) > _MAX_TEXT:
            errors[name] = f"is longer than {_MAX_TEXT} characters"
        elif isinstance(value, str | int) and not isinstance(value, bool):
            clean[name] = value
        elif value is not None:
            errors[name] = f"{shown(value)} is not allowed; allowed: a text or a whole number"
    return clean, errors


def split_digest(given: Any, names: Container[str]) -> tuple[str, str | None]:
    """Of what was given for an image: its name (or what else was given), and the digest where ``name@digest`` was."""
    text = given if isinstance(given, str) else ""
    name, _, digest = text.rpartition("@")
    return (name, digest) if text not in names and name in names and DIGEST.fullmatch(digest) else (text, None)


def from_form(data: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Options of a form's or a link's fields (lists of texts): a field left empty was not chosen.

    A browser sends fields that do not matter to what was chosen: the count beside "no GPU", the path beside an image.
    """
    options: dict[str, Any] = {}
    for name, values in data.items():
        value = values[-1] if isinstance(values, list | tuple) and values else values
        if isinstance(value, str) and not value.strip():
            continue
        options[name] = value.strip() if isinstance(value, str) else value
    if options.get("image") and "custom_image" in options:
        del options["custom_image"]
    very = options.pop(VERY_IMAGE, None)
    if isinstance(very, str) and very.rpartition("@")[0] == options.get("image"):
        options["image"] = very
    if "gpu" in data and "gpu" not in options:
        options["gpus"] = 0
    return options


class Reading:
    """One look at one set of options: collects all errors before it gives up."""

    def __init__(self, offer: "Offer", options: dict[str, Any]):
        self.offer, self.options = offer, options
        self.errors: dict[str, str] = {}

    def choice(self) -> Choice:
        image = self._image()
        backend = None if "image" in self.errors else self._backend(image)
        if backend is None:
            raise ChoiceError(self.errors)
        self._wants_gpu = bool(image and image.gpu == "required")
        values = self._values(backend)
        gpu, gpus = self._gpu(image, backend, values)
        self._unknown(backend)
        if self.errors:
            raise ChoiceError(self.errors)
        own = [one for one in self.fields if one.name not in _COMMON and values.get(one.name) is not None]
        return Choice(
            backend=backend,
            image=image.name if image else None,
            digest=self.digest if image else None,
            custom_image=None if image else self.custom,
            cpus=values.get("cpus"),
            memory=values.get("memory"),
            gpu=gpu,
            gpus=gpus,
            runtime=values.get("runtime"),
            extra={one.name: one.told(values[one.name]) for one in own},
        )

    custom: str | None = None
    digest: str | None = None
    """Of the very image that is wanted, where more was said than its name."""

    def _image(self) -> Image | None:
        given, images = self.options.get("image"), self.offer.images
        path = self.options.get("custom_image")
        if path is not None:
            if given is not None:
                self.errors["custom_image"] = "cannot stand beside image: give one of them"
            else:
                self.custom = self._custom(path)
            return None
        if given is None:
            if not images:
                self.errors["image"] = "there is no image that you may use here; ask the site's admins"
                return None
            # Nothing was said: the first that goes with what else was asked for.
            backend = self.options.get("backend")
            first = next(iter(images.values()))
            return next((image for image in images.values() if backend in self.offer.backends_of(image)), first)
        name, self.digest = split_digest(given, images)
        if self.digest and not images[name].path:
            self.errors["image"] = f"{name} has no digests to choose from: give {name} alone"
            return None
        if name not in images:
            allowed = near(given, images) or f"; allowed: {some(images)}"
            self.errors["image"] = f"{shown(given)} is not available to you{allowed}"
            return None
        return images[name]

    def _custom(self, given: Any) -> str | None:
        if not self.offer.custom:
            self.errors["custom_image"] = "images of your own are not allowed here"
            return None
        try:
            text = given if isinstance(given, str) else ""
            read = full_reference if is_reference(text) else absolute_path
            path = read(text) if isinstance(given, str) else None
        except ValueError as error:
            self.errors["custom_image"] = f"{shown(without_credentials(text))} {error}"
            return None
        if path is None or not self.offer.allows(path):
            self.errors["custom_image"] = f"{shown(given)} is not allowed; allowed: {some(self.offer.custom)}"
            return None
        return path

    def _backend(self, image: Image | None) -> str | None:
        wanted = image or self.custom
        possible = self.offer.backends_of(wanted) if wanted else self.offer.backends
        given = self.options.get("backend")
        if given is not None:
            if isinstance(given, str) and given in possible:
                return given
            called = image.name if image else shown(wanted)
            what = f" for {called}" if isinstance(given, str) and given in self.offer.backends else ""
            self.errors["backend"] = (
                f"{shown(given)} is not available{what}; allowed: {some(possible)}{near(given, possible)}"
            )
            return None
        if not possible:
            can = f" and that can run {shown(wanted)}" if self.offer.backends else ""
            self.errors.setdefault("backend", f"there is no backend that you may use here{can}; ask the site's admins")
            return None
        # Nothing was said: the first that has what else was asked for.
        kind = self.options.get("gpu")
        wants_gpu = kind is not None or self.options.get("gpus") not in (None, 0, "0")
        for name in possible:
            kinds = self.offer.kinds(name)
            if not wants_gpu or (kinds and (kind is None or kind in kinds)):
                return name
        return next(iter(possible))

    def _values(self, backend: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        fields = self.offer.fields(backend)
        on = f" on {self.offer.backends[backend].title or backend}"
        for one in fields:
            if not one.per:
                self._read(one, values, on)
        self.fields = [one for one in fields if not one.per]
        for leader in list(self.fields):
            followers = [one for one in fields if one.per == leader.name]
            if leader.name in self.errors or not followers:
                continue
            if self.options.get(leader.name) is None:
                values[leader.name] = self._fitting(leader, followers)
            label = f"{leader.label.lower()} {values[leader.name]}"
            for one in followers:
                here = one.at(values)
                if here is not None:
                    self._read(here, values, f"{on}, {label}")
                    self.fields.append(here)
                elif self.options.get(one.name) not in (None, 0, "0") and (
                    one.name != "gpus" or "gpu" not in self.errors
                ):
                    self.errors[one.name] = f"there is none in {label}; choose one of: {some(one.cases)}"
        return values

    fields: list[Field]
    """The fields as they are with what was chosen."""

    def _read(self, one: Field, values: dict[str, Any], where: str) -> None:
        given = self.options.get(one.name)
        if given is None:
            values[one.name] = one.default
            return
        try:
            values[one.name] = one.read(given, where)
        except ValueError as error:
            self.errors[one.name] = str(error)

    def _fitting(self, leader: Field, followers: list[Field]) -> str:
        """Nothing was said of a field that others depend on: the first value that best goes with what was asked for."""
        values = [leader.default, *(value for value, _ in leader.values if value != leader.default)]
        return min(values, key=lambda value: self._misfits(str(value), followers))

    def _misfits(self, value: str, followers: list[Field]) -> int:
        """How much of what was asked for does not go with a value of the field that others depend on."""
        here = {one.name: one.cases[value] for one in followers if value in one.cases}
        read, misfits = {}, _NO_GPU * (self._wants_gpu and "gpu" not in here)
        for name in [one.name for one in followers]:
            given = self.options.get(name)
            if given is None or (name == "gpus" and given in (0, "0")):
                continue
            try:
                read[name] = here[name].read(given)
            except (KeyError, ValueError):
                misfits += _NO_GPU if name == "gpu" else 1
        too_many = "gpu" in read and read.get("gpus", 0) > here["gpu"].most[read["gpu"]]
        return misfits + too_many

    _wants_gpu = False

    def _gpu(self, image: Image | None, backend: str, values: dict[str, Any]) -> tuple[str | None, int]:
        kinds = next((one for one in self.fields if one.name == "gpu"), None)
        rule = image.gpu if image else "optional"
        if {"gpu", "gpus"} & self.errors.keys():
            return None, 0
        asked_kind, asked_count = self.options.get("gpu"), self.options.get("gpus")
        count = values.get("gpus") if asked_count is not None else None
        if count is None:
            count = 1 if asked_kind is not None or rule == "required" else 0
        if kinds is None:
            if rule == "required" and image and not self.errors and self.offer.kinds(backend):
                self.errors["gpu"] = f"{image.name} needs a GPU, and there is none with what was chosen"
            return None, 0  # a GPU asked for all the same is an unknown option: told as such
        if count and rule == "none" and image:
            self.errors["gpu"] = f"{image.name} is an image without GPU software; choose no GPU, or another image"
        elif not count and rule == "required" and image:
            self.errors["gpu"] = f"{image.name} needs a GPU; choose one of: {some(kinds.most)}"
        elif not count and asked_kind is not None:
            self.errors["gpus"] = f"0 does not go with the GPU {asked_kind}; allowed: 1 to {kinds.most[asked_kind]}"
        if not count or self.errors:
            return None, 0
        kind = asked_kind if asked_kind is not None else next(iter(kinds.most))
        if count > kinds.most[kind]:
            title = dict(kinds.values)[kind]
            self.errors["gpus"] = f"{count} is not allowed; allowed: 1 to {kinds.most[kind]} of {title}"
        return kind, count

    def _unknown(self, backend: str) -> None:
        known = {"image", "custom_image", "backend"} | {one.name for one in self.offer.fields(backend)}
        for name, value in self.options.items():
            if name in known or (name == "gpus" and value in (0, "0")):
                continue
            if name in ("gpu", "gpus"):
                with_gpu = [key for key in self.offer.backends if self.offer.kinds(key)]
                where = f"; there are GPUs on: {some(with_gpu)}" if with_gpu else ""
                self.errors[name] = f"{backend} has no GPUs{where}"
            else:
                self.errors[name] = (
                    f"is not an option on {backend}{near(name, known)}; there are: {some(sorted(known), 20)}"
                )
