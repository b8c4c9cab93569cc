"""What can be chosen: one declaration, `Field`, makes the form's fields, checks every door and words the errors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from ..site.model import BackendConfig
from ..units import format_size, format_time, parse_size, parse_time


@dataclass(frozen=True)
class Field:
    """One thing to choose on a backend: how it is asked, checked and told."""

    name: str
    label: str
    kind: Literal["count", "size", "time", "select"]
    default: Any = None
    min: Any = 1
    max: Any = None
    values: tuple[tuple[str, str], ...] = ()
    """For a select: what is allowed, with what people see."""
    most: Mapping[str, int] = field(default_factory=dict)
    """For kinds of GPU: how many of each."""
    unit: str = ""
    per: str = ""
    """Name of the field whose value this one depends on: a partition has its own limits."""
    cases: Mapping[str, "Field"] = field(default_factory=dict)
    """This field, for each value of that one; with a value that is not here there is no such field."""

    @staticmethod
    def joined(per: str, cases: Mapping[str, Mapping[str, "Field"]]) -> list["Field"]:
        """The fields that depend on the value of another one, of which each value has its own."""
        found: list[Field] = []
        for name in dict.fromkeys(name for fields in cases.values() for name in fields):
            of_name = {value: fields[name] for value, fields in cases.items() if name in fields}
            first = next(iter(of_name.values()))
            values = dict(pair for one in of_name.values() for pair in one.values)
            found.append(replace(first, values=tuple(values.items()), per=per, cases=of_name))
        return found

    def at(self, values: Mapping[str, Any]) -> "Field | None":
        """The field as it is beside other values; None where there is none."""
        return self.cases.get(str(values.get(self.per))) if self.per else self

    def show(self, value: Any) -> str:
        """A value as people write it."""
        if value is None:
            return ""
        if self.kind == "size":
            return format_size(value)
        return format_time(value) if self.kind == "time" else str(value)

    def told(self, value: Any) -> Any:
        """A value as an option that can be read again: a size or a time needs its unit."""
        return self.show(value) if self.kind in ("size", "time") else value

    def read(self, given: Any, where: str = "") -> Any:
        """The value of what was given. Raises ValueError that says what is allowed (`where`: a word on that)."""
        if self.kind == "select":
            allowed = [value for value, _ in self.values]
            if not isinstance(given, str) or given not in allowed:
                words = f"{some(allowed)}{near(given, allowed)}"
                raise ValueError(f"{shown(given)} is not allowed{where}; allowed: {words}")
            return given
        value = self._number(given)
        if value is None or not self.min <= value or (self.max is not None and value > self.max):
            most = "or more" if self.max is None else f"to {self.show(self.max)}"
            unit = f" {self.unit}" if self.unit else ""
            raise ValueError(f"{shown(given)} is not allowed{where}; allowed: {self.show(self.min)} {most}{unit}")
        return value

    def _number(self, given: Any) -> int | None:
        if isinstance(given, bool):
            return None
        if self.kind == "count":
            if isinstance(given, str) and given.strip().isascii() and given.strip().isdigit() and len(given) < 10:
                return int(given)
            return given if isinstance(given, int) else None
        if not isinstance(given, str):
            raise ValueError(f"{shown(given)} has no unit; write {'2G' if self.kind == 'size' else '8h'}, for example")
        try:
            return parse_size(given) if self.kind == "size" else parse_time(given)
        except ValueError as error:
            raise ValueError(f"{shown(given)} cannot be read; {error}") from None


class ChoiceError(Exception):
    """What is wrong with a choice: `errors` has a message for each field."""

    def __init__(self, errors: Mapping[str, str]):
        self.errors = {name: _cut(text, 600) for name, text in errors.items()}
        super().__init__(_cut("; ".join(f"{name}: {text}" for name, text in self.errors.items()), 1800))


@dataclass(frozen=True)
class Choice:
    """A valid choice: every value is allowed to this user on this site."""

    backend: str
    image: str | None = None
    digest: str | None = None
    """Of the very image that is wanted, though its tag may have moved; None: the image as it is today."""
    custom_image: str | None = None
    cpus: int | None = None
    memory: int | None = None
    """Bytes."""
    gpu: str | None = None
    gpus: int = 0
    runtime: int | None = None
    """Seconds."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The backend's own fields."""

    def options(self) -> dict[str, Any]:
        """The choice as user_options: what JupyterHub stores, and `Offer.choose` accepts again."""
        values = {
            "image": f"{self.image}@{self.digest}" if self.digest else self.image,
            "custom_image": self.custom_image,
            "backend": self.backend,
            "cpus": self.cpus,
            "memory": self.memory and format_size(self.memory),
            "gpu": self.gpu,
            "gpus": self.gpus or None,
            "runtime": self.runtime and format_time(self.runtime),
            **self.extra,
        }
        return {name: value for name, value in values.items() if value is not None}


def base_fields(config: BackendConfig) -> list[Field]:
    """The fields that every type of backend has, as far as its configuration offers them."""
    fields = []
    if config.cpus:
        fields.append(Field("cpus", "Cores", "count", config.cpus.default, 1, config.cpus.max))
    if config.memory:
        low = min(config.memory.default, 128 * 1024**2)
        fields.append(Field("memory", "Memory", "size", config.memory.default, low, config.memory.max))
    if config.gpus:
        kinds = tuple((kind, gpu.title or kind) for kind, gpu in config.gpus.items())
        most = {kind: gpu.max for kind, gpu in config.gpus.items()}
        fields.append(Field("gpu", "GPU", "select", None, values=kinds, most=most))
        fields.append(Field("gpus", "GPUs", "count", 0, 0, max(most.values())))
    if config.runtime:
        low = min(config.runtime.default, 60)
        fields.append(Field("runtime", "Time", "time", config.runtime.default, low, config.runtime.max))
    return fields


def shown(given: Any) -> str:
    """What was given, quoted, short, and without a control character."""
    if isinstance(given, dict | list | tuple | set):
        return f"a {type(given).__name__}"
    if isinstance(given, int) and abs(given) > 1 << 64:
        return "a huge number"  # Python refuses to write one of thousands of digits
    text = repr(given[:60] + "…" if isinstance(given, str) and len(given) > 60 else given)
    return _cut(text, 80)


def some(names: Iterable[str], most: int = 8) -> str:
    """The first of some names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def near(given: Any, names: Iterable[str]) -> str:
    close = get_close_matches(given[:80], list(names), 1, 0.7) if isinstance(given, str) else []
    return f"; did you mean {close[0]}?" if close else ""
