"""The keys of an HTCondor backend."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from ...site.model import Gpu, Line, Model, Name, Path, Size, Sizes, Text, Time
from ..batch import BatchConfig
from ..command import CommandsConfig

# Names of groups, pools and schedds: what stands in a description or on a command line as it is.
Word = Annotated[Text, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:@-]*$", max_length=200)]
Address = Annotated[
    Annotated[Text, StringConstraints(pattern=r"^(hostname|interface:[A-Za-z0-9_.@-]{1,15})$")] | None,
    BeforeValidator(lambda value: None if value == "ip" else value),
]
Groups = list[Word] | dict[Text, list[Word]]
_ATTRIBUTE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _expression(value: Any) -> Any:
    if isinstance(value, str) and (not value.strip() or not value.isprintable() or value.rstrip().endswith("\\")):
        raise ValueError("must be one line of a ClassAd expression")
    if isinstance(value, str) and "$" in value:
        raise ValueError("may hold no $: HTCondor would put something in for it, for everybody to read")
    return value


Expression = Annotated[Line, BeforeValidator(_expression)]


class HTCondorGpu(Gpu):
    """One kind of GPU, and how HTCondor is asked for it."""

    require: Expression | None = None
    """On the GPU's properties (``require_gpus``): ``DeviceName == "NVIDIA A100-SXM4-40GB"``."""
    capability: Annotated[float, Field(gt=0, lt=1000)] | None = None
    """At least (``gpus_minimum_capability``)."""
    memory: Size | None = None
    """Of one GPU, at least (``gpus_minimum_memory``)."""
    requirements: Expression | None = None
    """On the machine."""


class Token(Model):
    """How the hub mints a token for each user, so that it need not become him."""

    domain: Word
    """The users' domain: the pool's UID_DOMAIN."""
    lifetime: Time = 3600
    key: Word | None = None
    """The signing key's name; absent: the pool's default."""


class HTCondorCommands(CommandsConfig):
    """Its commands."""

    names: ClassVar = frozenset(
        {
            "condor_submit",
            "condor_q",
            "condor_rm",
            "condor_history",
            "condor_status",
            "condor_transfer_data",
            "condor_token_create",
            "tail",
        }
    )


class HTCondorConfig(BatchConfig):
    """Keys of an HTCondor backend."""

    gpus: dict[Name, HTCondorGpu] = {}  # type: ignore[assignment]
    universe: Literal["vanilla", "container"] = "vanilla"
    """Who runs an image as a container: Apptainer, started by the launcher, or HTCondor. A prefix is always vanilla."""
    disk: Sizes | None = None
    """Space for the job's scratch directory."""
    requirements: Expression | None = None
    """On the machine."""
    rank: Expression | None = None
    """The machines that are liked best have the highest."""
    accounting_groups: Groups = []
    """Accounting groups to choose from: a list, or lists by JupyterHub group (``"*"``: everybody)."""
    attributes: dict[Text, Expression] = {}
    """More attributes of the job (``+Name = value``): expressions, so a text stands in double quotes."""
    schedd: Word | None = None
    """The schedd (``-name``), where it is not this machine's."""
    pool: Word | None = None
    """The pool's collector (``-pool``), where it is not the configured one."""
    address: Address = None
    """How the hub reaches a node: ``hostname``, ``interface:NAME``, ``ip``: as the node sees itself toward the hub."""
    event_log: Path | None = None
    """The schedd's event log (``EVENT_LOG``), where the hub may read it: starts and ends are known at once."""
    token: Token | None = None
    """Submit with a token of the user's own; goes with ``run_as: none``."""
    shared_homes: bool = False
    """Homes are the same on the schedd's machine, the hub's and all nodes: nothing need be spooled or sent."""
    commands: HTCondorCommands = HTCondorCommands()

    @field_validator("attributes")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _ATTRIBUTE.fullmatch(name) or name.lower().startswith("hepspawner"):
                raise ValueError(f"{name!r} is no name of an attribute that may be set")
        return value

    @model_validator(mode="after")
    def _token_or_account(self) -> "HTCondorConfig":
        if self.token and self.run_as != "none":
            raise ValueError("token: goes with run_as: none, for the hub acts as itself with a token of the user")
        return self

    @model_validator(mode="after")
    def _homes(self) -> "HTCondorConfig":
        if self.shared_homes and (self.token or self.schedd or self.universe == "container"):
            raise ValueError("shared_homes: goes neither with token and schedd (homes are this machine's) nor with "
                             "universe: container (which may not have them)")  # fmt: skip
        return self

    @property
    def where(self) -> list[str]:
        """The options that name schedd and pool, for every command."""
        return [*(["-name", self.schedd] if self.schedd else []), *(["-pool", self.pool] if self.pool else [])]
