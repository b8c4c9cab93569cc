"""What Slurm tells of its partitions and nodes: limits for the form, and what is free. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...choice import Field, Who, base_fields
from ...site.model import NAME, Times
from ..base import Amount, Room
from ..limits import limits_of
from .answers import Node, count_of
from .config import Partition, SlurmConfig, SlurmGpu
from .script import gres

_MEBIBYTE = 1024**2
_DEFAULT_RUNTIME = 8 * 3600


@dataclass(frozen=True)
class PartitionFacts:
    """A partition as Slurm has it. Times in seconds, None where there is no limit; memory in bytes."""

    default: bool
    max_time: int | None
    default_time: int | None
    cores: int
    """Of its largest node, as what follows."""
    memory: int
    gres: Mapping[str, int]


def learn(nodes: Iterable[Node]) -> dict[str, PartitionFacts]:
    """The partitions of some nodes, Slurm's default one first. (sinfo leaves out those that are hidden.)"""
    facts: dict[str, PartitionFacts] = {}
    for node in nodes:
        if not NAME.fullmatch(node.partition):
            continue
        old = facts.get(node.partition)
        most = dict(old.gres) if old else {}
        for name, count in node.gres.items():
            most[name] = max(count, most.get(name, 0))
        cores, memory = max(old.cores if old else 0, node.cores), max(old.memory if old else 0, node.memory * _MEBIBYTE)
        facts[node.partition] = PartitionFacts(node.default, node.max_time, node.default_time, cores, memory, most)
    return dict(sorted(facts.items(), key=lambda item: not item[1].default))


def partitions_of(config: SlurmConfig, facts: Mapping[str, PartitionFacts], who: Who) -> dict[str, Partition]:
    """The partitions that a user may choose from, with their limits: as the site says, else the backend, else Slurm."""
    said = config.partitions if config.partitions is not None else {name: Partition() for name in facts}
    allowed = {name: one for name, one in said.items() if who.may(one.groups)}
    return {name: _limits(config, one, facts.get(name)) for name, one in allowed.items()}


def _limits(config: SlurmConfig, said: Partition, known: PartitionFacts | None) -> Partition:
    cpus, memory = limits_of(known.cores, known.memory) if known else (None, None)
    cpus, memory = said.cpus or config.cpus or cpus, said.memory or config.memory or memory
    runtime = said.runtime or config.runtime
    if known and not runtime and known.max_time:
        runtime = Times.model_construct(
            default=min(known.default_time or _DEFAULT_RUNTIME, known.max_time), max=known.max_time
        )
    return said.model_copy(update={"cpus": cpus, "memory": memory, "runtime": runtime})


def kinds_of(config: SlurmConfig, name: str, said: Partition, known: PartitionFacts | None) -> dict[str, SlurmGpu]:
    """The kinds of GPU that a partition has, each with the most that may be asked for."""
    kinds = {}
    some_are_said = any(one.gpus is not None for one in (config.partitions or {}).values())
    for kind, gpu in config.gpus.items():
        if gpu.partition not in (None, name) or (some_are_said and kind not in (said.gpus or {})):
            continue
        most = said.gpus[kind] if said.gpus else gpu.max
        if said.gpus is None and known is not None and known.cores:
            most = min(most, count_of(known.gres, (gres(config, kind, 1) or "").rpartition(":")[0]))
        if most:
            kinds[kind] = gpu.model_copy(update={"max": most})
    return kinds


def fields(
    config: SlurmConfig, facts: Mapping[str, PartitionFacts], who: Who, accounts: list[str], qos: list[str]
) -> list[Field]:
    """All that a user can choose: the ranges follow the partition."""
    partitions = partitions_of(config, facts, who)
    own = [
        Field(name, label, "select", values[0], values=tuple((one, one) for one in values))
        for name, label, values in (("account", "Account", accounts), ("qos", "Quality of service", qos))
        if values
    ]
    if not partitions:
        return base_fields(config) + own
    choices = tuple((name, one.title or name) for name, one in partitions.items())
    cases: dict[str, dict[str, Field]] = {}
    for name, one in partitions.items():
        kinds = kinds_of(config, name, one, facts.get(name))
        limits = config.model_copy(
            update={"cpus": one.cpus, "memory": one.memory, "runtime": one.runtime, "gpus": kinds}
        )
        cases[name] = {each.name: each for each in base_fields(limits)}
    return [
        Field("partition", "Partition", "select", choices[0][0], values=choices),
        *Field.joined("partition", cases),
        *own,
    ]


ASSOCIATIONS = "format=user,account,qos,defaultqos"


def read_associations(text: str) -> dict[str, tuple[list[str], list[str]]]:
    """Accounts and qualities of service by user, from ``sacctmgr -n -P show assoc``; the default ones first."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for line in text.splitlines():
        user, account, qos, first, *_ = [*line.split("|"), "", "", ""]
        if user:
            accounts, qualities = found.setdefault(user, ([], []))
            accounts += [account] if NAME.fullmatch(account) and account not in accounts else []
            listed = [first, *qos.split(",")]
            qualities += [one for one in dict.fromkeys(listed) if NAME.fullmatch(one) and one not in qualities]
    return found


def rooms(
    config: SlurmConfig,
    nodes: Iterable[Node],
    waiting: Iterable[Sequence[str]] | None,
    partitions: Mapping[str, Partition],
) -> list[Room]:
    """What is free in each of some partitions. `waiting`: partition and GRES of each job that waits."""
    queue: dict[str, list[str]] = {}
    for names, wanted in waiting or ():
        for name in names.split(","):  # a job may wait for several
            queue.setdefault(name, []).append(wanted)
    found = []
    by_partition: dict[str, list[Node]] = {}
    for node in nodes:
        by_partition.setdefault(node.partition, []).append(node)
    for name, one in partitions.items():
        mine = by_partition.get(name, [])
        usable = [node for node in mine if node.usable]
        cores = Amount(sum(node.cores_free for node in usable), sum(node.cores for node in mine))
        gpus, gpus_waiting = {}, {}
        for kind in config.gpus:
            word = (gres(config, kind, 1) or "").rpartition(":")[0]
            total = sum(count_of(node.gres, word) for node in mine)
            free = sum(count_of(node.gres, word) - count_of(node.gres_used, word) for node in usable)
            if total and config.gpus[kind].partition in (None, name):
                gpus[kind] = Amount(max(free, 0), total)
                if waiting is not None:
                    gpus_waiting[kind] = sum(word in wanted.replace("/", ":") for wanted in queue.get(name, ()))
        up = any(node.partition_up for node in mine)
        waits = None if waiting is None else len(queue.get(name, ()))
        found.append(Room(name, one.title or name, up, cores, gpus, waits, gpus_waiting))
    return found
