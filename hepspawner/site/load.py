"""Reading a site file: every error in one go, each with file, line, key, what is allowed and the nearest right name."""

import json
import sys
import typing
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ..backends import backend_class
from .model import Image, Site, Source

# libyaml reads 1000 images in 0.1 s, the pure Python loader in 1.5 s; it is missing in few builds of PyYAML.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_BYTES = 20 * 2**20
_MAX_DEPTH = 20
_MAX_NODES = 500_000

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a site, for the admin."""

    message: str
    file: str = ""
    line: int | None = None
    key: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.message) if part)


class SiteError(Exception):
    """A site that cannot be used; `problems` says all that is wrong with it."""

    def __init__(self, problems: list[Problem]):
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load_site(source: str | Path | dict[str, Any]) -> Site:
    """The site of a file, or of a dict of the same shape. Blocks: not for the event loop. Raises SiteError."""
    if isinstance(source, dict):
        return build_site(source, "c.HEPSpawner.site", {})
    name = str(source)
    try:
        with open(source, "rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise SiteError([Problem(f"cannot be read: {error.strerror}", name)]) from None
    if len(raw) > _MAX_BYTES:
        raise SiteError([Problem(f"is larger than {_MAX_BYTES >> 20} MiB", name)])
    return build_site(*parse_yaml(raw, name))


def parse_yaml(raw: bytes, name: str) -> tuple[Any, str, dict[Key, int], list[Problem]]:
    """The data of a YAML text, its name, the line of each of its keys and what is wrong with single ones.

    Raises SiteError where there is no data.
    """
    try:
        _bounded(raw, name)
        node = yaml.compose(raw, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"{error.context + ': ' if error.context else ''}{error.problem}"
        raise SiteError([Problem(f"is not YAML: {what}", name, mark.line + 1 if mark else None)]) from None
    except yaml.reader.ReaderError as error:
        line = raw[: error.position].count(b"\n") + 1
        raise SiteError([Problem(f"is not YAML, nor text: {error.reason}", name, line)]) from None
    if node is None:
        raise SiteError([Problem("is empty: a site needs at least images and backends", name)])
    lines: dict[Key, int] = {}
    problems: list[Problem] = []
    _weigh(node, (), {}, problems, name)
    return _construct(node, (), lines, problems, name), name, lines, problems


def _bounded(raw: bytes, name: str) -> None:
    """Raises SiteError for what cannot be composed: libyaml's own recursion ends the process with a segfault."""
    depth = nodes = 0
    for event in yaml.parse(raw, Loader=_Loader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        _refuse_if(depth > _MAX_DEPTH, "is nested too deeply", name, event)
        _refuse_if(nodes > _MAX_NODES, f"has more than {_MAX_NODES} values", name, event)


def _refuse_if(wrong: bool, message: str, name: str, place: Any) -> None:
    if wrong:
        raise SiteError([Problem(message, name, place.start_mark.line + 1)])


def _weigh(node: yaml.Node, key: Key, known: dict[int, int], problems: list[Problem], name: str) -> int:
    """How many values a node stands for, each alias counted: a few lines of them can stand for billions.

    Looks at each node once, so this is also where keys that stand twice are found: later, merged ones are among them.
    """
    if id(node) in known:
        return known[id(node)]
    # an alias may also stand inside of what it is an alias of
    _refuse_if(len(key) > _MAX_DEPTH, "is nested too deeply", name, node)
    count = 1
    if isinstance(node, yaml.MappingNode):
        first: dict[Any, int] = {}
        for key_node, value_node in node.value:
            part = key_node.value if isinstance(key_node, yaml.ScalarNode) else "?"
            here, line = (*key, part), key_node.start_mark.line + 1
            if (key_node.tag, part) in first:
                twice = f"stands twice, first in line {first[key_node.tag, part]}"
                problems.append(Problem(twice, name, line, show_key(here)))
            first.setdefault((key_node.tag, part), line)
            count += _weigh(value_node, here, known, problems, name)
    elif isinstance(node, yaml.SequenceNode):
        count += sum(_weigh(item, (*key, i), known, problems, name) for i, item in enumerate(node.value))
    _refuse_if(count > _MAX_NODES, f"has more than {_MAX_NODES} values, aliases counted", name, node)
    known[id(node)] = count
    return count


def _construct(node: yaml.Node, key: Key, lines: dict[Key, int], problems: list[Problem], name: str) -> Any:
    lines.setdefault(key, node.start_mark.line + 1)
    _refuse_if(len(key) > _MAX_DEPTH, "is nested too deeply", name, node)
    loader = _Loader("")
    try:
        if isinstance(node, yaml.MappingNode):
            loader.flatten_mapping(node)  # YAML's merge keys (<<)
            result: dict[Any, Any] = {}
            for key_node, value_node in node.value:
                part = loader.construct_object(key_node) if isinstance(key_node, yaml.ScalarNode) else "?"
                here = (*key, part)
                lines[here] = key_node.start_mark.line + 1
                result[part] = _construct(value_node, here, lines, problems, name)
            return result
        if isinstance(node, yaml.SequenceNode):
            return [_construct(item, (*key, i), lines, problems, name) for i, item in enumerate(node.value)]
        return loader.construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        what = error.problem if isinstance(error, yaml.MarkedYAMLError) else str(error)
        problems.append(Problem(f"cannot be read: {what}".splitlines()[0], name, lines[key], show_key(key)))
        return None


def build_site(data: Any, name: str, lines: dict[Key, int], problems: Iterable[Problem] = ()) -> Site:
    """Validate the data of a site. Raises SiteError with every problem, those of its reading among them, by line."""
    problems = list(problems)
    unread = {problem.key for problem in problems}
    if not isinstance(data, dict):
        raise SiteError(
            problems or [Problem("must be a mapping with the keys images and backends", name, lines.get(()))]
        )
    site = None
    try:
        site = Site.model_validate(data)
    except ValidationError as error:
        for one in error.errors():
            key = _without_inner(one["loc"], data)
            if show_key(key) in unread:
                continue
            problems.append(Problem(_words(one, key, data), name, _line(key, lines), show_key(key)))
    for key, message in cross_check(data, site):
        problems.append(Problem(message, name, _line(key, lines), show_key(key)))
    if problems or site is None:
        raise SiteError(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    return site


def cross_check(data: dict[str, Any], site: Site | None) -> Iterator[tuple[Key, str]]:
    """What no single key can know: names that must be unique, names that must exist. Works on broken sites too."""
    images, backends = data.get("images"), data.get("backends")
    seen: dict[str, int] = {}
    for i, image in enumerate(images if isinstance(images, list) else []):
        if not isinstance(image, dict):
            continue
        image_name = image.get("name")
        if isinstance(image_name, str) and "from" not in image and seen.setdefault(image_name, i) != i:
            yield ("images", i, "name"), f"{image_name!r} is the name of images[{seen[image_name]}] already"
        wanted = image.get("backends")
        if isinstance(wanted, list) and isinstance(backends, dict):
            for j, backend in enumerate(wanted):
                if isinstance(backend, str) and backend not in backends:
                    yield (
                        ("images", i, "backends", j),
                        f"{backend!r} is no backend of this site{nearest(backend, backends)}",
                    )
    if site:
        for key, backend in site.backends.items():
            for message in backend.objections(site, key):
                yield ("backends", key), message
        for i, given in enumerate(site.entries):
            if given.gpu == "required" and not any(
                backend.gpus
                for key, backend in site.backends.items()
                if given.backends is None or key in given.backends
            ):
                yield ("images", i, "gpu"), "'required', but no backend that may run this image has gpus"


def nearest(given: str, known: Iterable[str]) -> str:
    """``; did you mean X?`` or, where nothing is near, what there is."""
    names = [str(name) for name in known]
    close = get_close_matches(given, names, 1, 0.6)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(names)}" if names else ""


def show_key(key: Key) -> str:
    """A key as people write it: ``images[2].gpu``."""
    text = ""
    for part in key:
        word = str(part)[:80] if str(part).isprintable() else repr(part)[:80]
        text += f"[{part}]" if isinstance(part, int) else f".{word}" if text else word
    return text


def _words(one: Any, key: Key, data: Any) -> str:
    kind, given = one["type"], one["input"]
    if kind == "extra_forbidden":
        model = _model_at(key[:-1], data)
        return f"is no key here{nearest(str(key[-1]), _keys_of(model) if model else ())}"
    if kind == "missing":
        return "is missing"
    if kind == "literal_error":
        allowed = one["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{_shown(given)}is not allowed; allowed are: {', '.join(allowed)}{_did_you_mean(given, allowed)}"
    words = _MUST.get(kind) or one["msg"].removeprefix("Value error, ")
    return f"{_shown(given)}{words[0].lower()}{words[1:]}"


# What pydantic says in words of Python.
_MUST = {
    "model_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "too_short": "must not be empty",
    "invalid_key": "a key must be a text: put it in quotes",
    "string_pattern_mismatch": "must be a single line",
}


def _did_you_mean(given: Any, allowed: list[str]) -> str:
    close = get_close_matches(str(given), allowed, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(given: Any) -> str:
    """What was given, where it is short enough to be of help."""
    if isinstance(given, dict | list | tuple | BaseModel):
        return ""
    if given is None:
        return "empty: "
    if isinstance(given, int) and abs(given) > 1 << 64:
        return "a huge number: "  # Python refuses to write one of thousands of digits
    text = str(given) if isinstance(given, date) else repr(given)
    return f"{text if len(text) < 80 else text[:77] + '...'}: "


def _without_inner(loc: Key, data: Any) -> Key:
    """The part of pydantic's location that stands in the file (it adds names of validators, and items of a
    list that was written as a single value)."""
    key: list[Any] = []
    for part in loc:
        if isinstance(part, str) and part == "[key]":
            break
        if part in ("[image]", "[source]"):
            continue
        if isinstance(data, dict):
            key.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            key.append(part)
            data = data[part] if part < len(data) else None
        else:
            break
    return tuple(key)


def _line(key: Key, lines: dict[Key, int]) -> int | None:
    """The line of a key, or of the nearest one around it that stands in the file."""
    while key not in lines and key:
        key = key[:-1]
    return lines.get(key)


def _model_at(key: Key, data: Any) -> type[BaseModel] | None:
    """The model whose keys are allowed at a place of the site."""
    if len(key) >= 2 and key[0] == "backends":
        given = data["backends"][key[1]]
        try:
            model: Any = backend_class(given["type"]).Config
        except (LookupError, ImportError):
            return None
        key = key[2:]
    elif len(key) >= 2 and key[0] == "images":
        model, key = (Source if "from" in data["images"][key[1]] else Image), key[2:]
    else:
        model = Site
    for part in key:
        if isinstance(part, str) and isinstance(model, type) and issubclass(model, BaseModel):
            field = _keys_of(model).get(part)
            model = field.annotation if field else None
        else:
            model = _models_in(model)
    return _models_in(model)


def _keys_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model by the names that they have in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _models_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as ``list[Mount] | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in typing.get_args(annotation):
        if found := _models_in(inner):
            return found
    return None


def main() -> None:
    """Read the site file named on the command line, for `hepspawner.site.live`: the site or its problems as JSON."""
    try:
        answer: dict[str, Any] = {"site": load_site(sys.argv[1]).plain()}
    except SiteError as error:
        answer = {"problems": [asdict(problem) for problem in error.problems]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
