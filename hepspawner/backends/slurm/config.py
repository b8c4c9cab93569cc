"""The keys of a Slurm backend."""

import re
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ...site.model import Count, Gpu, Groups, Line, Model, Name, Number, Sizes, Text, Times
from ..batch import BatchConfig
from ..command import CommandsConfig

# What sbatch reads in a #SBATCH line as it stands there: no quotes, blanks, backslashes or comments.
WORD = re.compile(r"[A-Za-z0-9_.:,=@%+/&|*()\[\]{}~!^-]+")


def _word(value: str) -> str:
    if not WORD.fullmatch(value):
        raise ValueError("may hold letters, digits and _ . : , = @ % + / & | * ( ) [ ] { } ~ ! ^ - only")
    return value


Word = Annotated[Text, AfterValidator(_word)]


def _names(value: Any) -> Any:
    lists = list(value.values()) if isinstance(value, dict) else [value]
    good = all(
        isinstance(one, list) and all(isinstance(name, str) and WORD.fullmatch(name) for name in one) for one in lists
    )
    if value != "sacctmgr" and not good:
        raise ValueError("must be a list of names, lists of names by group, or sacctmgr")
    return value


Names = Annotated[Any, BeforeValidator(_names)]


class SlurmGpu(Gpu):
    """One kind of GPU, and how Slurm is asked for it."""

    gres: Word = ""
    """Name and type, ``gpu:a100``; absent: ``gpu:`` and the kind's name, or with `partition` just ``gpu``."""
    partition: Word | None = None
    """The one partition that has it; absent: wherever Slurm says."""


class Partition(Model):
    """What may be asked for in one partition; what is absent is as in the whole backend, or as Slurm says."""

    title: Line = ""
    groups: Groups | None = None
    cpus: Count | None = None
    memory: Sizes | None = None
    runtime: Times | None = None
    gpus: dict[Name, Number] | None = None
    """How many of which kind; absent: none where another partition says some, else what the partition's nodes have."""


class SlurmCommands(CommandsConfig):
    """Its commands."""

    names: ClassVar = frozenset({"sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr", "tail"})


def _by_name(value: object) -> object:
    return {name: {} for name in value if isinstance(name, str)} if isinstance(value, list) else value


class SlurmConfig(BatchConfig):
    """Keys of a Slurm backend."""

    gpus: dict[Name, SlurmGpu] = {}  # type: ignore[assignment]
    partitions: Annotated[dict[Word, Partition] | None, BeforeValidator(_by_name)] = Field(None, min_length=1)
    """The partitions to choose from, the default one first; absent: all of Slurm's that are not hidden."""
    accounts: Names = []
    """Accounts to choose from: a list, lists by JupyterHub group (``"*"``: everybody), or ``sacctmgr``."""
    qos: Names = []
    """The same for the quality of service."""
    reservation: Word | None = None
    constraint: Word | None = None
    directives: list[Line] = []
    """More lines for the script: ``--exclude=c9``."""
    log: Word | None = None
    """Where Slurm writes what the job says beside the server: ``{home}/slurm-%j.log``; absent: nowhere."""
    cluster: Word | None = None
    """The cluster (``-M``), where it is not the commands' own."""
    commands: SlurmCommands = SlurmCommands()

    @field_validator("directives")
    @classmethod
    def _options(cls, value: list[str]) -> list[str]:
        for line in value:
            if not re.match(r"--?[A-Za-z]", line):
                raise ValueError(f"{line!r} is no option of sbatch: write --name=value")
        return value

    @field_validator("log")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("/", "{home}/")):
            raise ValueError("must begin with / or {home}/")
        if value is not None and (unknown := set(re.findall(r"\{(.*?)\}", value)) - {"home", "username"}):
            raise ValueError(
                f"{{{unknown.pop()}}} is not known; there are {{home}}, {{username}} and Slurm's own, as %j"
            )
        return value

    @model_validator(mode="after")
    def _kinds(self) -> "SlurmConfig":
        for name, partition in (self.partitions or {}).items():
            for kind in partition.gpus or {}:
                if kind not in self.gpus:
                    raise ValueError(f"partition {name}: {kind} is none of the backend's gpus: {', '.join(self.gpus)}")
        for kind, gpu in self.gpus.items():
            if gpu.partition and self.partitions is not None and gpu.partition not in self.partitions:
                raise ValueError(
                    f"gpus {kind}: {gpu.partition} is none of the partitions: {', '.join(self.partitions)}"
                )
        return self
