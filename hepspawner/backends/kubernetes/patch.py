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
_DIRECTIVE = "$patch"


def merged(old: Any, new: Any, field: str = "") -> Any:
    """`old` changed by a patch. ``null`` removes a field, ``$patch: replace`` replaces it whole, ``$patch: delete``
    removes it, or in a list the item of its key."""
    if isinstance(new, dict) and new.get(_DIRECTIVE) == "replace":
        return {name: deepcopy(value) for name, value in new.items() if name != _DIRECTIVE}
    if isinstance(old, dict) and isinstance(new, dict):
        result = {name: value for name, value in old.items() if not _removed(new.get(name, ""))}
        for name, value in new.items():
            if name != _DIRECTIVE and not _removed(value):
                result[name] = merged(result.get(name), value, name)
        return result
    if isinstance(new, dict):
        return merged({}, new, field)
    if isinstance(old, list | None) and isinstance(new, list) and field in _KEYS:
        return _merged_items(old or [], new, _KEYS[field])
    return deepcopy(new)


def _removed(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and value.get(_DIRECTIVE) == "delete")


def _merged_items(old: list[Any], new: list[Any], key: str) -> list[Any]:
    if any(item == {_DIRECTIVE: "replace"} for item in new):
        return [deepcopy(item) for item in new if item != {_DIRECTIVE: "replace"}]
    changes = {item[key]: item for item in new if isinstance(item, dict) and key in item}
    kept = [merged(item, changes.pop(item[key], {})) for item in old if not _removed(changes.get(item[key], ""))]
    added = [merged({}, item) for name, item in changes.items() if not _removed(item) and name not in _names(old, key)]
    return kept + added + [deepcopy(item) for item in new if not (isinstance(item, dict) and key in item)]


def _names(items: list[Any], key: str) -> set[Any]:
    return {item[key] for item in items}
