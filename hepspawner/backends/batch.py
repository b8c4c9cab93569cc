"""What batch systems have in common: one list of all our jobs, asked for again and again, tells of each of them."""

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..site.model import BackendConfig
from ..templates import Templates
from .accounts import Account, account_of, own_account
from .base import Backend, BackendError, JobStatus, Log, Phase, Tag
from .command import CommandError, Commands, CommandsConfig, RunAs, Together
from .tags import as_written
from .watcher import Watcher

if TYPE_CHECKING:
    from ..session import Session

_FIRST_LOOK = 2.0
_CANCEL_PATIENCE = 60.0
_CANCEL_AGAIN = 10.0
_RECONCILE_PATIENCE = 60.0
_RECONCILE_AGAIN = 5.0
_VERDICT_PATIENCE = 6.0
_UNHEARD = JobStatus(Phase.UNKNOWN, "it was not asked for yet")


class BatchConfig(BackendConfig):
    """The keys that every batch backend has."""

    run_as: RunAs = "runuser"
    """How a job becomes its user's: by runuser or setuid (the hub is root), by sudo, or not at all."""
    commands: CommandsConfig = CommandsConfig()


@dataclass(frozen=True)
class Listed:
    """A job as the batch system lists it."""

    job: str
    account: str
    tag: Tag | None
    status: JobStatus
    leaving: bool = False
    """It was ended, and the system still puts its node in order."""


@dataclass
class _Tracked:
    """A job that somebody here wants to know of."""

    tag: Tag
    since: float
    status: JobStatus = _UNHEARD
    missed: int = 0
    hopeless: bool = False
    ours: bool = False
    """We end it: nobody need know how it ended."""


class BatchBackend(Backend):
    """A batch system driven by its commands. A derived class builds their arguments and reads their answers."""

    Config = BatchConfig
    queues = True
    needs: ClassVar[tuple[str, ...]] = ()
    """The commands without which nothing goes."""

    def __init__(self, name: str, config: Any, log: Log, templates: Templates | None = None):
        super().__init__(name, config, log, templates)
        self.commands = Commands(config.commands, config.run_as)
        self._own = own_account()
        self._tracked: dict[str, _Tracked] = {}
        self._listed: Mapping[str, Listed] = {}
        self._looked = False
        self._unowned: dict[str, float] = {}
        self._watcher = Watcher(self._look, config.poll_interval, log, f"backend {name}")
        self._removing: Together[tuple[str, str]] = Together(self._remove)
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- what a derived class says

    @abstractmethod
    async def _submit(self, session: "Session", tag: Tag, job_input: dict[str, Any], account: Account) -> str:
        """Submit a job; its id. Raises CommandError, `unclear` where there may be a job all the same."""

    @abstractmethod
    async def _list(self) -> dict[str, Listed]:
        """All jobs of this hub by one command, also those that ended lately where the system tells. Raises
        BackendError where the answer is not surely whole."""

    @abstractmethod
    async def _explain(self, ended: Mapping[str, Listed | None]) -> dict[str, JobStatus]:
        """More on jobs that ended, or (None) are not listed any more, in one question for all. Of a job of which the
        system knows nothing there is nothing in the answer. Raises BackendError: cannot tell."""

    @abstractmethod
    async def _end(self, jobs: list[str], account: Account | None) -> None:
        """End jobs by one command, as a user or (None) as the hub; those that are gone are no error. Raises
        BackendError."""

    @property
    def _may_end_all(self) -> bool:
        """Whether the hub's own account may end everybody's jobs."""
        return self.config.run_as != "sudo"

    def _owner(self, user: str) -> str:
        """The account that the system shows as the owner of a user's job."""
        return self._own.name if self.config.run_as == "none" else user

    # --- the contract

    def problems(self) -> list[str]:
        found = [f"there is no {path}" for path in self.commands.missing(self.needs)]
        return [*found, problem] if (problem := self._cannot_submit()) else found

    def _cannot_submit(self) -> str:
        rootless = self._own.uid != 0 and self.config.run_as in ("runuser", "setuid")
        return f"run_as: {self.config.run_as} needs a hub that is root, others take sudo or none" if rootless else ""

    def open(self) -> None:
        self._watcher.open()

    async def close(self) -> None:
        self._watcher.close()
        for task in list(self._tasks):
            task.cancel()

    async def account(self, user: str) -> Account:
        """The account that a user's jobs run as. Raises BackendError."""
        return self._own if self.config.run_as == "none" else await account_of(user)

    async def look_as(self, user: str) -> dict[str, Any]:
        by_root = self._own.uid == 0 and self.config.run_as in ("runuser", "setuid")
        return (await self.account(user)).process if by_root else {}

    async def submit(self, session: "Session", tag: Tag, job_input: dict[str, Any]) -> str:
        if problem := self._cannot_submit():
            raise BackendError(problem)
        account = await self.account(tag.user)
        work = asyncio.ensure_future(self._submit(session, tag, job_input, account))
        try:
            job = await asyncio.shield(work)
        except asyncio.CancelledError:
            # The command is on its way: what comes of it must not be left.
            self._spawn(self._unwanted(work, tag))
            raise
        except CommandError as error:
            if not error.unclear:
                raise
            job = await self._made_after_all(tag, error)
        self._track(job, tag)
        self._watcher.hurry(_FIRST_LOOK)
        return job

    async def _unwanted(self, work: "asyncio.Future[str]", tag: Tag) -> None:
        try:
            job = await work
        except BackendError:
            return
        await self._removing.add((job, tag.user))

    async def _made_after_all(self, tag: Tag, error: CommandError) -> str:
        """The job of a submission that seemed to fail. Raises the error where there is none.

        A system that hung may come to the submission only after it answered us: hence a second look. A job that comes
        later still has no owner, and is removed as such.
        """
        loop = asyncio.get_running_loop()
        deadline, good = loop.time() + _RECONCILE_PATIENCE, 0
        while good < 2 and loop.time() < deadline:
            try:
                job = await self.find(tag)
            except BackendError:
                pass
            else:
                good += 1
                if job is not None:
                    self.log.warning("backend %s: job %s was made after all (%s)", self.name, job, error)
                    return job
            await asyncio.sleep(_RECONCILE_AGAIN)
        raise error

    async def find(self, tag: Tag) -> str | None:
        await self._watcher.look()
        mark = as_written(tag)
        found = [one for one in self._listed.values() if one.tag == mark]
        found.sort(key=lambda one: one.status.phase is Phase.ENDED)
        if not found:
            return None
        self._track(found[0].job, tag).status = found[0].status
        return found[0].job

    async def status(self, job: str, tag: Tag) -> JobStatus:
        tracked = self._tracked.get(job)
        if tracked is None:
            tracked = self._track(job, tag)
            listed = self._listed_as(job, tracked)
            if listed is not None and listed.status.phase is not Phase.ENDED:
                tracked.status = listed.status
            elif self._looked:
                self._watcher.hurry(0)
        return tracked.status if tracked.tag == as_written(tag) else self._lost(job)

    async def verdict(self, job: str) -> JobStatus | None:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + _VERDICT_PATIENCE, 0.2
        while loop.time() < deadline:
            try:
                await asyncio.wait_for(self._watcher.look(), deadline - loop.time())
            except (BackendError, asyncio.TimeoutError):
                return None
            tracked = self._tracked.get(job)
            if tracked is None or tracked.status.phase is Phase.ENDED:
                return tracked.status if tracked else None
            await asyncio.sleep(pause)
            pause *= 2
        return None

    async def cancel(self, job: str, tag: Tag, grace: float) -> None:
        """Ends a job. How long it may take to end politely is the batch system's own setting, not `grace`."""
        loop = asyncio.get_running_loop()
        deadline, again, pause, asked = loop.time() + _CANCEL_PATIENCE, 0.0, 0.1, False
        tracked = self._tracked.get(job) or self._track(job, tag)
        if tracked.tag != as_written(tag):
            return
        tracked.ours = True
        while True:
            problem = ""
            try:
                # Before the first order, too: the id may be another job's by now.
                await self._watcher.look()
            except BackendError as error:
                problem = str(error)
            if self._is_over(job, tracked, asked and not problem, loop.time() > deadline):
                return
            try:
                if loop.time() >= again:
                    await asyncio.wait_for(self._removing.add((job, tag.user)), max(deadline - loop.time(), 1.0))
                    again, asked = loop.time() + _CANCEL_AGAIN, True
                    continue
            except BackendError as error:
                problem = str(error)
            except asyncio.TimeoutError:
                problem = "the order to end it was not given in time"
            if loop.time() > deadline:
                # JupyterHub takes any end of a stop for one, and logs nothing: the watch removes the job later.
                text = f"it cannot be told whether job {job} ended{problem and ': '}{problem}"
                self.log.warning("backend %s: %s", self.name, text)
                raise BackendError(text)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 3.0)

    def _is_over(self, job: str, tracked: _Tracked, asked: bool, late: bool) -> bool:
        """Whether a job that is to end has ended, as of the last look, or its id is another one's by now."""
        listed = self._listed.get(job)
        # Its own user may write another tag on it, and a user without an account is shown as another: it is his still.
        other = listed and listed.tag and tracked.tag and listed.tag.user != tracked.tag.user
        if other or self._tracked.get(job, tracked).tag != tracked.tag:
            return True
        if listed is not None and listed.leaving and late:
            self.log.warning("backend %s: job %s was ended, but its node is not in order yet", self.name, job)
            return True
        return asked if listed is None else listed.status.phase is Phase.ENDED

    async def forget(self, job: str, tag: Tag) -> None:
        # A job that still runs has no owner from now on: if it does not end by itself, the watch ends it.
        if (tracked := self._tracked.get(job)) and tracked.tag == as_written(tag):
            del self._tracked[job]

    # --- the watch

    def _track(self, job: str, tag: Tag) -> _Tracked:
        """What is known of a job from now on. A system that crashed may have given its id to another one before."""
        tracked = self._tracked.get(job)
        if tracked is None or tracked.tag != as_written(tag):
            tracked = self._tracked[job] = _Tracked(as_written(tag), asyncio.get_running_loop().time())
        return tracked

    def _listed_as(self, job: str, tracked: _Tracked | None) -> Listed | None:
        """A job of the list, unless it is another one that has its id now."""
        listed = self._listed.get(job)
        return listed if listed and (tracked is None or listed.tag in (None, tracked.tag)) else None

    async def _look(self) -> None:
        began = asyncio.get_running_loop().time()
        self._listed, self._looked = await self._list(), True
        ended: dict[str, Listed | None] = {}
        for job, tracked in list(self._tracked.items()):
            listed = self._listed_as(job, tracked)
            if tracked.status.phase is Phase.ENDED:
                continue
            if listed is None and tracked.since < began:
                ended[job] = None
            elif listed is not None:
                tracked.missed = 0
                if listed.status.phase is Phase.ENDED:
                    ended[job] = listed
                else:
                    self._note(job, tracked, self._second_opinion(tracked, listed.status))
        if ended:
            await self._note_ends(ended)
        self._sweep(began)

    def _second_opinion(self, tracked: _Tracked, status: JobStatus) -> JobStatus:
        """A first glance may find a job hopeless that is not, or not yet know why it is."""
        doubtful = status.hopeless and not tracked.hopeless
        tracked.hopeless = status.hopeless
        if doubtful:
            self._watcher.hurry(0)
        return replace(status, hopeless=False) if doubtful else status

    async def _note_ends(self, ended: Mapping[str, Listed | None]) -> None:
        asked = {job: listed for job, listed in ended.items() if not (listed and self._tracked[job].ours)}
        try:
            told = await self._explain(asked) if asked else {}
        except BackendError as error:
            self.log.warning("backend %s: cannot tell how jobs ended: %s", self.name, error)
            told, ended = {}, {job: listed for job, listed in ended.items() if listed is not None}
        for job, listed in ended.items():
            tracked = self._tracked.get(job)
            if tracked is None:
                continue
            status = told.get(job) or (listed.status if listed else None)
            if status is None:
                # One answer without it may be a system that has just been started, and still reads what it knew.
                tracked.missed += 1
                status = self._lost(job)
                if tracked.missed < 2:
                    continue
            self._note(job, tracked, status)

    def _lost(self, job: str) -> JobStatus:
        return JobStatus(Phase.LOST, f"{self.title} knows nothing of job {job} any more")

    def _note(self, job: str, tracked: _Tracked, status: JobStatus) -> None:
        if status != tracked.status or status.phase is Phase.LOST:
            tracked.status = status
            self.on_change(tracked.tag.session, status)

    def _sweep(self, now: float) -> None:
        """Remove jobs of this hub that belong to nobody: of a start that was given up, or a stop that got lost."""
        seen, self._unowned = self._unowned, {}
        doomed = []
        for job, one in self._listed.items():
            alive = one.status.phase is not Phase.ENDED and not one.leaving
            if one.tag is None or not alive or self._is_tracked(one):
                continue
            since = self._unowned[job] = seen.get(job, now)
            if now - since < 2 * self.config.poll_interval:
                continue
            if self.owned(one.tag):
                del self._unowned[job]
            else:
                self.log.warning("backend %s: job %s (%s) belongs to no server: removing it", self.name, job, one.tag)
                doomed.append((job, one.tag.user))
        if doomed:
            self._spawn(self._remove_all(doomed))

    def _is_tracked(self, one: Listed) -> bool:
        tracked = self._tracked.get(one.job)
        return tracked is not None and tracked.tag == one.tag

    async def _remove_all(self, jobs: Iterable[tuple[str, str]]) -> None:
        try:
            await asyncio.gather(*(self._removing.add(one) for one in jobs))
        except BackendError as error:
            self.log.warning("backend %s: %s", self.name, error)

    def trusted(self, account: str, tag: Tag | None) -> Tag | None:
        """A tag of this hub, if the job's account may carry it: users can write any tag on jobs of their own."""
        ours = tag is not None and tag.hub == self.hub
        return tag if ours and tag and account.lower() == self._owner(tag.user).lower() else None

    async def _remove(self, jobs: list[tuple[str, str]]) -> None:
        """End jobs, given with the users they are of. Raises BackendError."""
        if self._may_end_all:
            await self._end([job for job, _ in jobs], None)
            return
        by_user: dict[str, list[str]] = {}
        for job, user in jobs:
            by_user.setdefault(user, []).append(job)
        # One user may be gone, or his command may hang: the others' jobs are ended all the same.
        orders = (self._end_of(user, mine) for user, mine in by_user.items())
        if problems := [str(error) for error in await asyncio.gather(*orders, return_exceptions=True) if error]:
            raise BackendError("; ".join(problems))

    async def _end_of(self, user: str, jobs: list[str]) -> None:
        await self._end(jobs, await self.account(user))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
