"""What HTCondor tells of its slots: what is free, and how much a machine has at most. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ...choice import Field, Who, base_fields
from ...site.model import Count, Sizes
from ..base import Amount, BackendError, Room
from .config import HTCondorConfig, HTCondorGpu

_GIBIBYTE = 1024**3
_MEBIBYTE = 1024**2
# A partitionable slot is what is left of its machine; a dynamic one was cut out of it for a job.
_WHOLE = "PartitionableSlot =?= true"
_PART = "DynamicSlot =?= true"
_USABLE = f'(({_WHOLE}) || State == "Unclaimed") && Offline =!= true && Start =!= false'
POOL = ["-any", "-constraint", 'MyType == "Machine" || MyType == "Scheduler"']
"""How condor_status is asked for slots and schedds at once."""


@dataclass(frozen=True)
class Slot:
    """A slot. Memory in MiB; GPUs by kind."""

    part: bool
    usable: bool
    cores_free: int
    cores: int
    memory: int
    gpus: Mapping[str, int]


def questions(gpus: Mapping[str, HTCondorGpu]) -> list[str]:
    """What condor_status is asked of each of them, an expression each: of a schedd what waits there, of a slot a row of
    numbers."""
    whole_of = lambda name: f"ifThenElse({_WHOLE}, TotalSlot{name}, {name})"  # noqa: E731
    own = [f"ifThenElse({_PART}, 1, 0)", f"ifThenElse({_USABLE}, 1, 0)", "Cpus", whole_of("Cpus"), whole_of("Memory")]
    return ["MyType", "TotalIdleJobs", *own, *(_count(gpu) for gpu in gpus.values())]


def _count(gpu: HTCondorGpu) -> str:
    """How many GPUs of a kind a slot has; what a condition on the machine says is taken as it stands."""
    conditions = [part for part in (gpu.require and f"({gpu.require})", gpu.requirements and "true") if part]
    conditions += [f"Capability >= {gpu.capability}"] if gpu.capability else []
    conditions += [f"GlobalMemoryMb >= {-(-gpu.memory // _MEBIBYTE)}"] if gpu.memory else []
    counted = f"countMatches({' && '.join(conditions) or 'true'}, AvailableGPUs)"
    there = f"AvailableGPUs =!= undefined && ({gpu.requirements or 'true'}) =?= true"
    return f"ifThenElse({there}, {counted}, 0)"


def read_pool(text: str, gpus: Iterable[str]) -> tuple[list[Slot], int]:
    """The slots of condor_status, as `questions` asked, and how many jobs wait. Raises BackendError."""
    names, slots, waiting = list(gpus), [], 0
    for line in text.splitlines():
        row = line.split()
        if row[:1] == ["Scheduler"]:
            waiting += sum(int(word) for word in row[1:2] if word.isdigit())
            continue
        words = row[2:]
        if row[:1] != ["Machine"] or len(words) != 5 + len(names) or not all(_is_number(word) for word in words):
            raise BackendError(f"an answer that cannot be understood: {line[:100]!r}")
        part, usable, free, cores, memory, *counts = (int(float(word)) for word in words)
        slots.append(Slot(bool(part), bool(usable), free, cores, memory, dict(zip(names, counts, strict=True))))
    return slots, waiting


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
    """The most that one machine has; 0: not known. Memory in bytes."""

    cores: int = 0
    memory: int = 0


def largest(slots: Iterable[Slot]) -> Largest:
    """The most that one machine has."""
    most = Largest()
    for slot in slots:
        most = replace(most, cores=max(most.cores, slot.cores), memory=max(most.memory, slot.memory * _MEBIBYTE))
    return most


_ROOM = re.compile(r"\b(Cpus|Memory) >= ([0-9.]+)")


def may_be_in_use(condition: str, most: Largest) -> bool:
    """Whether a condition that no slot meets now is about room, which other jobs may have."""
    match = _ROOM.search(condition)
    if match:
        there = most.cores if match[1] == "Cpus" else most.memory / _MEBIBYTE
        return not there or float(match[2]) <= there
    return bool(re.search(r"\b(Disk|GPUs|AvailableGPUs)\b", condition))


def fields(config: HTCondorConfig, most: Largest, who: Who) -> list[Field]:
    """All that a user can choose. What the site does not limit is limited by the pool's largest machine."""
    cpus, memory = config.cpus, config.memory
    if not cpus and most.cores:
        cpus = Count.model_construct(default=1, max=most.cores)
    if not memory and most.memory:
        share = max(most.memory // max(most.cores, 1) // _MEBIBYTE, 128) * _MEBIBYTE
        memory = Sizes.model_construct(default=min(share, most.memory), max=most.memory)
    found = base_fields(config.model_copy(update={"cpus": cpus, "memory": memory}))
    if config.disk:
        low = min(config.disk.default, _GIBIBYTE)
        found.append(Field("disk", "Disk", "size", config.disk.default, low, config.disk.max))
    groups = who.names(config.accounting_groups)
    if groups:
        values = tuple((one, one) for one in groups)
        found.append(Field("accounting_group", "Accounting group", "select", groups[0], values=values))
    return found
