"""Slurm, driven by its commands: one squeue per interval for all of a hub's jobs, one sbatch for each start."""

import asyncio
import pwd
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...choice import Field, Who
from ...session import describe
from ...session import log_path as server_log
from ...templates import Templates
from ..accounts import Account
from ..asking import Asking
from ..base import Availability, BackendError, JobStatus, Log, Phase, Tag
from ..batch import BatchBackend, Listed
from ..command import CommandError
from . import answers, cluster
from .config import SlurmConfig
from .errors import refusal
from .script import job_name, log_path, script, warning

if TYPE_CHECKING:
    from ...session import Session

_FREE_INTERVAL = 60.0
_ACCOUNTING_DELAY = 1.0
"""Seconds after which accounting has heard, too, of what the controller knows."""
_GONE = "Invalid job id specified"


class SlurmBackend(BatchBackend):
    """A Slurm cluster."""

    Config = SlurmConfig
    config: SlurmConfig
    needs = ("sbatch", "squeue", "scancel", "sinfo")
    inherit = ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_CLUSTER_NAME", "SLURM_CONF")

    def __init__(self, name: str, config: SlurmConfig, log: Log, templates: Templates | None = None):
        super().__init__(name, config, log, templates)
        self._cluster = ["-M", config.cluster] if config.cluster else []
        self._facts: dict[str, cluster.PartitionFacts] = {}
        self._associations: dict[str, tuple[list[str], list[str]]] = {}
        self._nodes: list[answers.Node] = []
        self._waiting: list[list[str]] | None = None
        self._free_at, self._queue_wanted = 0.0, False
        self._free = Asking(f"backend {name}", "free nodes", self._see_what_is_free, _FREE_INTERVAL, log, True)
        self._accounting: bool | None = None

    # --- what users may choose

    def fields(self, who: Who) -> list[Field]:
        self._want()
        said, known = (self.config.accounts, self.config.qos), self._associations.get(who.name, ([], []))
        accounts, qos = (of if one == "sacctmgr" else who.names(one) for one, of in zip(said, known, strict=True))
        return cluster.fields(self.config, self._facts, who, accounts, qos)

    def availability(self, who: Who) -> Availability | None:
        self._want()
        if not self._free_at:
            return None
        mine = cluster.partitions_of(self.config, self._facts, who)
        return Availability(
            self._free_at, cluster.rooms(self.config, self._nodes, self._waiting, mine), self._free.problem
        )

    def warning(self, runtime: int | None) -> int | None:
        return warning(runtime)

    def _want(self) -> None:
        self._queue_wanted = True
        self._free.want()

    def open(self) -> None:
        super().open()
        self._free.want()  # limits of the form that the site does not say
        self._spawn(self._free.run())

    async def _see_what_is_free(self) -> None:
        # Answers of a large cluster are long: they are read in a thread.
        text = await self._ask("sinfo", "-N", "-O", answers.NODE_FORMAT)
        self._nodes = await asyncio.to_thread(answers.read_nodes, text)
        self._facts = cluster.learn(self._nodes)
        if "sacctmgr" in (self.config.accounts, self.config.qos):
            of = [f"cluster={self.config.cluster}"] if self.config.cluster else []
            text = await self.commands.ask("sacctmgr", "-n", "-P", "show", "assoc", *of, cluster.ASSOCIATIONS)
            self._associations = await asyncio.to_thread(cluster.read_associations, text)
        if self._queue_wanted:  # not for the hub alone, which asks once at its start
            text = await self._ask("squeue", "-t", "PD", "-O", answers.QUEUE_FORMAT)
            self._waiting = await asyncio.to_thread(answers.rows, text, answers.QUEUE_HEADER)
        self._free_at = time.time()

    async def _ask(self, name: str, *arguments: str) -> str:
        return await self.commands.ask(name, *self._cluster, *arguments, SLURM_TIME_FORMAT="%s")

    # --- jobs

    def preview(self, session: "Session") -> str:
        tag = Tag(self.hub or "(hub)", session.user, "", "(session)")
        account = Account(session.user, 0, f"/home/{session.user}", {})
        job_input = {"ticket": "(signed by the hub)"}
        text = script(self.config, self.templates, session, tag, account, job_input, "… hepspawner/node/launcher.py …")
        return f"# {' '.join(self._sbatch(account))}, with this on its standard input\n{text}\n{describe(session)}"

    def _sbatch(self, account: Account) -> list[str]:
        return self.commands.argv("sbatch", *self._submission(), account=account)

    def _submission(self) -> list[str]:
        # The same for every start, so that a sudoers line can pin it.
        return ["--parsable", "--export=NONE", *self._cluster]

    async def _submit(self, session: "Session", tag: Tag, job_input: dict[str, Any], account: Account) -> str:
        try:
            text = script(self.config, self.templates, session, tag, account, job_input)
        except ValueError as error:
            raise BackendError(str(error)) from None
        result = await self.commands.run("sbatch", *self._submission(), account=account, stdin=text)
        if not result.code:
            try:
                return answers.read_submission(result.out)
            except BackendError as error:
                raise CommandError(str(error), unclear=True) from None
        meant = refusal(result.text, bool(session.gpu))
        if meant is None:
            raise CommandError(f"sbatch says: {result.text}", result.text, unclear=True)
        about = f"{meant.field}: " if meant.field else ""
        raise CommandError(f"{about}{meant.text} (Slurm says: {result.text})", result.text)

    async def _list(self) -> dict[str, Listed]:
        # Jobs that ended are in it, too, until Slurm forgets them (MinJobAge): how they ended needs no other question.
        return answers.read_jobs(
            await self._ask("squeue", "--states=all", f"--name={job_name(self.hub)}", "-O", answers.FORMAT),
            self.trusted,
        )

    async def _explain(self, ended: Mapping[str, Listed | None]) -> dict[str, JobStatus]:
        wanted = [job for job, one in ended.items() if one is None or _cancelled(one.status)]
        if not wanted or self._accounting is False:
            return {}
        try:
            told = await self._from_accounting(wanted)
            if late := [job for job in wanted if job not in told]:
                await asyncio.sleep(_ACCOUNTING_DELAY)
                told |= await self._from_accounting(late)
            return told
        except CommandError as error:
            if "storage is disabled" in error.text:
                self._accounting = False  # there is no accounting: what squeue says must do
                return {}
            if all(ended.values()):
                return {}  # only who cancelled them is not known
            raise

    async def _from_accounting(self, jobs: list[str]) -> dict[str, JobStatus]:
        form = ["-n", "-P", "-X", "-o", answers.SACCT_FORMAT]
        text = await self.commands.ask("sacct", *self._cluster, *form, "-j", ",".join(jobs))
        self._accounting = True
        return await asyncio.to_thread(answers.read_accounting, text, job_name(self.hub), _name_of)

    async def _end(self, jobs: list[str], account: Account | None) -> None:
        # The name: after a crash of Slurm an id may be another job's.
        name = f"--name={job_name(self.hub)}"
        result = await self.commands.run("scancel", name, *self._cluster, *jobs, account=account)
        complaints = result.err.splitlines()
        if result.code and not (complaints and all(_GONE in line for line in complaints)):
            raise CommandError(f"scancel says: {result.text}", result.text, unclear=True)

    async def last_words(self, job: str, tag: Tag, started: bool = True) -> list[str]:
        try:
            account = await self.account(tag.user)
        except BackendError:
            return []
        log = server_log(tag.server).replace("~", account.home, 1)
        lines = await self.commands.tail(log, account) if started else []
        own = log_path(self.config, account, job)
        return lines + (await self.commands.tail(own, account) if own else [])


def _cancelled(status: JobStatus) -> bool:
    return status.phase is Phase.ENDED and "CANCELLED" in status.reason


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the account {uid}"
