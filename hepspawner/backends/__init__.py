"""Backends: places that run servers. `base` is the contract, the other modules are one type each.

Third parties add a type through the entry-point group ``hepspawner.backends``: name → a class derived from
`hepspawner.backends.base.Backend`.
"""

from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

if TYPE_CHECKING:
    from ..site.model import BackendConfig
    from .base import Backend


@cache
def backend_types() -> dict[str, Any]:
    """Names of the installed backend types and their entry points, loaded only when one is configured."""
    return {point.name: point for point in entry_points(group="hepspawner.backends")}


def backend_class(name: str) -> "type[Backend]":
    """The class of a type. Raises LookupError with what is allowed, ImportError where a plugin is broken."""
    types = backend_types()
    if name not in types:
        near = get_close_matches(name, types, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise LookupError(f"is no type of backend that is installed; there are: {', '.join(sorted(types))}{hint}")
    loaded: type[Backend] = types[name].load()
    return loaded


def parse_backends(value: Any, handler: Any) -> "dict[str, BackendConfig]":
    """Validate each backend with the model of its own type; all errors of all backends in one go.

    Called by the site model; `handler` is pydantic's own validation of a mapping of names to `BackendConfig`.
    """
    if not isinstance(value, dict):
        return dict(handler(value))  # raises: not a mapping
    configs: dict[Any, Any] = {}
    errors: list[InitErrorDetails] = []
    for name, given in value.items():
        if not isinstance(given, dict):
            errors.append(_problem((name,), "must be a mapping with at least the key type", given))
            continue
        kind = given.get("type")
        try:
            if not isinstance(kind, str):
                raise LookupError(
                    f"must say which type of backend this is; there are: {', '.join(sorted(backend_types()))}"
                )
            configs[name] = backend_class(kind).Config.model_validate(given)
        except LookupError as error:
            errors.append(_problem((name, "type"), str(error), kind))
        except ValidationError as error:
            errors += [_moved(one, name) for one in error.errors()]
        except Exception as error:  # a plugin may fail in any way
            errors.append(_problem((name, "type"), f"cannot be loaded: {error}", kind))
    try:
        configs = handler(configs)  # the names; a mapping without any
    except ValidationError as error:
        if not errors:
            raise
        errors += [_moved(one, None) for one in error.errors() if one["type"] != "too_short"]
    if errors:
        raise ValidationError.from_exception_data("backends", errors)
    return configs


def _problem(loc: tuple[Any, ...], message: str, given: Any) -> InitErrorDetails:
    # A message may hold braces, which PydanticCustomError would read as a template.
    return InitErrorDetails(type=PydanticCustomError("site", "{message}", {"message": message}), loc=loc, input=given)


def _moved(one: Any, name: str | None) -> InitErrorDetails:
    """An error of a backend's own model, below the backend's name."""
    loc = (name, *one["loc"]) if name is not None else one["loc"]
    kind = PydanticCustomError(one["type"], "{message}", {**one.get("ctx", {}), "message": one["msg"]})
    return InitErrorDetails(type=kind, loc=loc, input=one["input"])
