"""What HTCondor tells of its slots: what is free, and how much a machine has at most. Pure."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...choice import Field, Who, base_fields
from ..base import Amount, BackendError, Room
from ..limits import limits_of
from .config import HTCondorConfig, HTCondorGpu

_GIBIBYTE = 1024**3
_MEBIBYTE = 1024**2
_KIBIBYTE = 1024
# A partitionable slot is what is left of its machine; a dynamic one was cut out of it for a job.
_WHOLE = "PartitionableSlot =?= true"
_PART = "DynamicSlot =?= true"
POOL = ["-any", "-constraint", 'MyType == "Machine" || MyType == "Submitter"']
"""How condor_status is asked for slots and submitters at once."""
_MUCH = ("Cpus", "Memory", "Disk", "GPUs")
_USABLE = f'(({_WHOLE}) || State == "Unclaimed") && Offline =!= true && Start =!= false'


@dataclass(frozen=True)
class Slot:
    """A slot. Memory in MiB, disk in KiB; how many GPUs it was made with, and what is there of them by kind."""

    machine: str
    part: bool
    usable: bool
    cores_free: int
    cores: int
    memory: int
    disk: int
    all_gpus: int
    gpus: Mapping[str, int]


def questions(gpus: Mapping[str, HTCondorGpu]) -> list[str]:
    """What condor_status is asked of each of them, an expression each: of a submitter how many jobs wait, of a slot a
    row of numbers."""
    whole_of = lambda name: f"ifThenElse({_WHOLE}, TotalSlot{name}, {name})"  # noqa: E731
    own = [f"ifThenElse({_PART}, 1, 0)", f"ifThenElse({_USABLE}, 1, 0)", "Cpus"]
    own += [f"{whole_of(name)} ?: 0" for name in _MUCH]
    return ["MyType", "Name", "IdleJobs", *own, *(_count(gpu) for gpu in gpus.values())]


def _properties(gpu: HTCondorGpu) -> str:
    """What is asked of a GPU of a kind."""
    conditions = [f"({gpu.require})"] if gpu.require else []
    conditions += [f"Capability >= {gpu.capability}"] if gpu.capability else []
    conditions += [f"GlobalMemoryMb >= {-(-gpu.memory // _MEBIBYTE)}"] if gpu.memory else []
    return " && ".join(conditions)


def _count(gpu: HTCondorGpu) -> str:
    """How many GPUs of a kind a slot has; what a condition on the machine says is taken as it stands."""
    counted = f"countMatches({_properties(gpu) or 'true'}, AvailableGPUs)"
    there = f"AvailableGPUs =!= undefined && ({gpu.requirements or 'true'}) =?= true"
    return f"ifThenElse({there}, {counted}, 0)"


def read_pool(text: str, gpus: Iterable[str]) -> tuple[list[Slot], dict[str, int]]:
    """The slots of condor_status, as `questions` asked, and how many jobs of each submitter wait. Raises
    BackendError."""
    names, slots, idle = list(gpus), list[Slot](), dict[str, int]()
    for line in text.splitlines():
        kind, name, count, *words = [*line.split(), "", "", ""]
        if kind == "Submitter":  # who has an ad of each schedd
            idle[name] = idle.get(name, 0) + (int(count) if count.isdecimal() else 0)
            continue
        words = words[:-3]
        if (
            kind != "Machine"
            or len(words) != 3 + len(_MUCH) + len(names)
            or not all(_is_number(word) for word in words)
        ):
            raise BackendError(f"an answer that cannot be understood: {line[:100]!r}")
        part, usable, free, cores, memory, disk, all_gpus, *counts = (int(float(word)) for word in words)
        by_kind = dict(zip(names, counts, strict=True))
        machine = name.partition("@")[2]
        slots.append(Slot(machine, bool(part), bool(usable), free, cores, memory, disk, all_gpus, by_kind))
    return slots, idle


def _is_number(word: str) -> bool:
    try:
        return float(word) >= 0
    except ValueError:
        return False


def room(config: HTCondorConfig, name: str, slots: Iterable[Slot], waiting: int | None) -> Room:
    """What is free in the pool. Of a machine that is cut into parts, the whole counts once, and the GPUs by part."""
    slots = list(slots)
    wholes = [slot for slot in slots if not slot.part]
    usable = [slot for slot in wholes if slot.usable]
    gpus = {}
    for kind in config.gpus:
        total = sum(slot.gpus[kind] for slot in slots)
        gpus[kind] = Amount(sum(slot.gpus[kind] for slot in usable), total)
    cores = Amount(sum(slot.cores_free for slot in usable), sum(slot.cores for slot in wholes))
    return Room(name, config.title or name, bool(usable), cores, gpus, waiting)


@dataclass(frozen=True)
class Largest:
    """The most that one machine has; no cores: nothing is known. Memory and disk in bytes."""

    cores: int = 0
    memory: int = 0
    disk: int = 0
    gpus: int = 0
    gpus_with: Mapping[frozenset[str], int] = field(default_factory=dict)
    """By what is asked of them, in use or not."""


def largest(slots: Iterable[Slot], gpus: Mapping[str, HTCondorGpu]) -> Largest:
    """The most that one machine has."""
    most, counts = Largest(), Counter[tuple[str, str]]()
    for slot in slots:
        counts.update({(slot.machine, kind): count for kind, count in slot.gpus.items()})
        most = Largest(
            max(most.cores, slot.cores),
            max(most.memory, slot.memory * _MEBIBYTE),
            max(most.disk, slot.disk * _KIBIBYTE),
            max(most.gpus, slot.all_gpus),
        )
    alike: dict[frozenset[str], int] = {}
    for (_, kind), count in counts.items():
        properties = _parts(_properties(gpus[kind]))
        alike[properties] = max(alike.get(properties, 0), count)
    return replace(most, gpus_with=alike)


def _parts(condition: str) -> frozenset[str]:
    """The parts of a condition, however it is written."""
    return frozenset(re.sub(r"[()\s]", "", part) for part in condition.split("&&"))


_ROOM = re.compile(r"^(Cpus|Memory|Disk|GPUs) >= ([0-9.]+)(?: with (.*)| \(\w+\))?$")


def may_be_in_use(condition: str, most: Largest) -> bool:
    """Whether a condition that no slot meets now is about room, which other jobs may have."""
    match = _ROOM.search(condition)
    if not match:
        return bool(re.search(r"\b(Disk|GPUs|AvailableGPUs)\b", condition))
    memory, disk = most.memory / _MEBIBYTE, most.disk / _KIBIBYTE
    there: float | None = {"Cpus": most.cores, "Memory": memory, "Disk": disk, "GPUs": most.gpus}[match[1]]
    if match[3]:
        there = most.gpus_with.get(_parts(match[3]))
    return not most.cores or there is None or float(match[2]) <= there


def fields(config: HTCondorConfig, most: Largest, who: Who) -> list[Field]:
    """All that a user can choose. What the site does not limit is limited by the pool's largest machine."""
    cpus, memory = limits_of(most.cores, most.memory)
    found = base_fields(config.model_copy(update={"cpus": config.cpus or cpus, "memory": config.memory or memory}))
    if config.disk:
        low = min(config.disk.default, _GIBIBYTE)
        found.append(Field("disk", "Disk", "size", config.disk.default, low, config.disk.max))
    groups = who.names(config.accounting_groups)
    if groups:
        values = tuple((one, one) for one in groups)
        found.append(Field("accounting_group", "Accounting group", "select", groups[0], values=values))
    return found
