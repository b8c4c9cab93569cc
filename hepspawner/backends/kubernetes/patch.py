"""Strategic merge, as ``kubectl patch`` does it for pods. Pure."""

from copy import deepcopy
from typing import Any

# Lists of a pod whose items are told apart by a key; all others are replaced.
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "ownerReferences": "uid",
}
DIRECTIVE = "$patch"
_ANY: dict[str, dict[str, Any]] = {
    "metadata": {"labels": {}, "annotations": {}},
    "spec": {"containers": [{"name": "server"}]},
}
"""As much of a pod as all have."""


def merged(old: Any, new: Any, field: str = "") -> Any:
    """`old` changed by a patch. ``null`` removes a field, ``$patch: replace`` replaces it whole, ``$patch: delete``
    removes it, or in a list the item of its key."""
    if isinstance(new, dict) and new.get(DIRECTIVE) == "replace":
        return {name: deepcopy(value) for name, value in new.items() if name != DIRECTIVE and value is not None}
    if isinstance(old, dict) and isinstance(new, dict):
        result = {name: value for name, value in old.items() if not _removed(new.get(name, ""))}
        for name, value in new.items():
            if name != DIRECTIVE and not _removed(value):
                result[name] = merged(result.get(name), value, name)
        return result
    if isinstance(new, dict):
        return merged({}, new, field)
    if isinstance(old, list | None) and isinstance(new, list) and field in _KEYS:
        return _merged_items(old or [], new, _KEYS[field])
    return deepcopy(new)


def _removed(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and value.get(DIRECTIVE) == "delete")


def _merged_items(old: list[Any], new: list[Any], key: str) -> list[Any]:
    if any(item == {DIRECTIVE: "replace"} for item in new):
        return [deepcopy(item) for item in new if item != {DIRECTIVE: "replace"}]
    changes = {item[key]: item for item in new if isinstance(item, dict) and key in item}
    kept = [merged(item, changes.pop(item[key], {})) for item in old if not _removed(changes.get(item[key], ""))]
    added = [merged({}, item) for name, item in changes.items() if not _removed(item) and name not in _names(old, key)]
    return kept + added + [deepcopy(item) for item in new if not (isinstance(item, dict) and key in item)]


def _names(items: list[Any], key: str) -> set[Any]:
    return {item[key] for item in items}


def check(patch: dict[str, Any]) -> None:
    """Raises ValueError, with the place in it, for a patch after which no pod is one any more."""
    for name, value in patch.items():
        if name not in _ANY:
            raise ValueError(f"{name}: a patch has metadata and spec alone; containers and the like are in its spec")
        if not isinstance(value, dict) or _removed(value):
            raise ValueError(f"{name}: must be a mapping")
    for name, value in patch.get("metadata", {}).items():
        if name == "namespace":
            raise ValueError("metadata.namespace: the backend's key namespace says where pods are")
        if name in _ANY["metadata"] and not _texts(value):
            raise ValueError(f"metadata.{name}: must be a mapping of texts")
    _check_lists(patch, "")
    containers = merged(_ANY, patch)["spec"].get("containers")
    if not isinstance(containers, list) or not any(one["name"] == "server" for one in containers):
        raise ValueError("spec.containers: nothing is left of the container called server")


def _texts(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(value[name], str | None) for name in value
    )


def _check_lists(value: Any, place: str) -> None:
    """Raises ValueError for an item of a list that could not be told from the others."""
    for name, one in value.items() if isinstance(value, dict) else ():
        key, here = _KEYS.get(name), f"{place}{name}"
        if key and isinstance(one, dict) and not _removed(one):
            raise ValueError(f"{here}: must be a list")
        for number, item in enumerate(one if isinstance(one, list) else ()):
            named = isinstance(item, dict) and isinstance(item.get(str(key)), str | int)
            if key and not named and item != {DIRECTIVE: "replace"}:
                raise ValueError(f"{here}[{number}]: must be a mapping with {key}")
            _check_lists(item, f"{here}[{number}].")
        _check_lists(one, f"{here}.")
