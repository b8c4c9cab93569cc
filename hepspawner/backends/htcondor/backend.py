"""HTCondor, driven by its commands: one condor_q per interval for all of a hub's jobs."""

import asyncio
import json
import os
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
from . import answers, cluster, events
from .config import HTCondorConfig
from .errors import refusal
from .submit import FETCH, HUB, LAUNCHER, SUBMIT, SUBMIT_SHARED, description
from .tokens import Tokens

if TYPE_CHECKING:
    from ...session import Session

_FREE_INTERVAL = 60.0
_BLAME_INTERVAL = 120.0
_BLAME_PAUSE = 30.0
_SUBMIT = ("/bin/sh", str(SUBMIT))
_SUBMIT_SHARED = ("/bin/sh", str(SUBMIT_SHARED), str(LAUNCHER))
_FETCH = ("/bin/sh", str(FETCH), "8192")
_NONE_SUCH = "Couldn't find/remove all jobs matching constraint"


class HTCondorBackend(BatchBackend):
    """A pool of HTCondor, reached through one schedd."""

    Config = HTCondorConfig
    config: HTCondorConfig
    needs = ("condor_submit", "condor_q", "condor_rm", "condor_history", "condor_status", "condor_transfer_data")
    inherit = ("_CONDOR_SLOT", "BATCH_SYSTEM")

    def __init__(self, name: str, config: HTCondorConfig, log: Log, templates: Templates | None = None):
        super().__init__(name, config, log, templates)
        self.address = config.address
        self.runs_images = "places" if config.universe == "container" else ""
        self._tokens = Tokens(self.commands, config.token) if config.token else None
        self._slots: list[cluster.Slot] = []
        self._idle: dict[str, int] = {}
        self._free_at = 0.0
        self._free = Asking(f"backend {name}", "free slots", self._see_what_is_free, _FREE_INTERVAL, log, True)
        self._blames: dict[str, str] = {}
        self._blamed: dict[str, float] = {}

    # --- what users may choose

    def fields(self, who: Who) -> list[Field]:
        self._free.want()
        return cluster.fields(self.config, cluster.largest(self._slots, self.config.gpus), who)

    def availability(self, who: Who) -> Availability | None:
        self._free.want()
        if not self._free_at:
            return None
        room = cluster.room(self.config, self.name, self._slots, sum(self._idle.values()))
        return Availability(self._free_at, [room], self._free.problem)

    def open(self) -> None:
        super().open()
        self._free.want()  # limits of the form that the site does not say
        self._spawn(self._free.run())
        if self.config.event_log:
            self._spawn(events.follow(self.config.event_log, self.commands, self._happened, self.log))

    def problems(self) -> list[str]:
        log = self.config.event_log
        unread = [f"{log} cannot be read (event_log)"] if log and not os.access(log, os.R_OK) else []
        return super().problems() + unread

    async def close(self) -> None:
        await super().close()
        if self._tokens:
            self._tokens.close()

    async def _see_what_is_free(self) -> None:
        gpus = self.config.gpus
        pool = ["-pool", self.config.pool] if self.config.pool else []
        text = await self.commands.ask("condor_status", *pool, *cluster.POOL, "-af", *cluster.questions(gpus))
        self._slots, self._idle = await asyncio.to_thread(cluster.read_pool, text, gpus)
        self._free_at = time.time()

    # --- as whom

    async def account(self, user: str) -> Account:
        if self._tokens is None:
            return await super().account(user)
        return Account(self._tokens.checked(user), self._own.uid, self._own.home, {})

    def _owner(self, user: str) -> str:
        return user if self._tokens else super()._owner(user)

    async def _as(self, account: Account) -> dict[str, str]:
        """What makes a command the user's, beside `run_as`."""
        return await self._tokens.environment(account.name) if self._tokens else {}

    def _forget_token(self, account: Account | None) -> None:
        """A command failed as this user: perhaps it was the token."""
        if self._tokens and account:
            self._tokens.forget(account.name)

    @property
    def _may_end_all(self) -> bool:
        # It is root on the schedd's machine, or they are its own.
        by_root = self.config.run_as in ("runuser", "setuid") and not self.config.schedd
        return by_root or (self.config.run_as == "none" and self._tokens is None)

    # --- jobs

    def preview(self, session: "Session") -> str:
        account = Account(session.user, 0, "", {})
        argv = self.commands.argv("condor_submit", *self._submission(), account=account, within=self._within)
        text = description(self.config, session, Tag(self.hub or "HUB", session.user, "", "SESSION"))
        return f"# {' '.join(argv)}, with this on its standard input\n{text}\n{describe(session)}"

    @property
    def _within(self) -> tuple[str, ...]:
        return _SUBMIT_SHARED if self.config.shared_homes else _SUBMIT

    def _submission(self) -> list[str]:
        # The same for every start, so that a sudoers line can pin it.
        return [*([] if self.config.shared_homes else ["-spool"]), "-terse", *self.config.where]

    async def _submit(self, session: "Session", tag: Tag, job_input: dict[str, Any], account: Account) -> str:
        if self.runs_images and session.container_image and not self._tokens:
            job_input = {**job_input, "home": account.home}
        name = f"{tag.session}\n" if self.config.shared_homes else ""
        try:
            text = f"{name}{json.dumps(job_input)}\n{description(self.config, session, tag)}"
        except ValueError as error:
            raise BackendError(str(error)) from None
        mine = await self._as(account)
        result = await self.commands.run(
            "condor_submit", *self._submission(), account=account, stdin=text, within=self._within, **mine
        )
        if not result.code:
            try:
                return answers.read_submission(result.out)
            except BackendError as error:
                raise CommandError(str(error), unclear=True) from None
        self._forget_token(account)
        meant = refusal(result.err)
        if meant is None:
            raise CommandError(f"condor_submit says: {result.text}", result.text, unclear=True)
        about = f"{meant.field}: " if meant.field else ""
        raise CommandError(f"{about}{meant.text} (HTCondor says: {result.text})", result.text)

    async def _list(self) -> dict[str, Listed]:
        # Jobs that ended by themselves are in it for a while, see submit.py.
        what = ["-json", "-attributes", answers.PRESENT, "-constraint", f"{self._ours()} && {answers.SMALL}"]
        text = await self._ask("condor_q", "-allusers", *what)
        now = time.time()
        idle = self._idle if now - self._free_at < 3 * _FREE_INTERVAL else {}
        # In a thread: everybody may have many jobs that say they are this hub's.
        ads = await asyncio.to_thread(answers.read_ads, text)
        jobs = await asyncio.to_thread(answers.jobs_of, ads, self.trusted, now, dict(self._blames), idle)
        if answers.idle_ones(ads):
            self._free.want()
        self._ask_whom_to_blame([job for job in answers.unmatched(ads) if job in self._tracked])
        self._end_held([jobs[job] for job in answers.held_ones(ads)])
        return jobs

    def _happened(self, said: Mapping[str, Any]) -> None:
        """Something of the event log: what is not about a job of ours is not for us."""
        event = events.read_event(said, time.time())
        tracked = self._tracked.get(event.job) if event else None
        if event is None or tracked is None or self.trusted(event.owner, event.tag) != tracked.tag:
            return
        if event.status is None or event.held:
            self._watcher.hurry(0)  # to see the rest of it, or to have what HTCondor holds removed
        if event.status is not None and tracked.status.phase is not Phase.ENDED:
            self._note(event.job, tracked, event.status)

    def _end_held(self, held: list[Listed]) -> None:
        """What HTCondor holds runs no more and would wait for ever: once that is told, the job is of no use."""
        over = [(one, one.tag) for one in held if one.status.phase is Phase.ENDED and one.tag]
        useless = [(one.job, tag.user) for one, tag in over if self._is_tracked(one) or not self.owned(tag)]
        if useless:
            self._spawn(self._remove_all(useless))

    def _ours(self, jobs: list[str] | None = None) -> str:
        """All jobs of this hub, or some of them: after a loss of the queue an id may be another job's."""
        some = f" && member(ClusterId, {{{','.join(jobs)}}})" if jobs is not None else ""
        return f'{HUB} =?= "{self.hub}"{some}'

    async def _ask(self, name: str, *arguments: str) -> str:
        return await self.commands.ask(name, *self.config.where, *arguments)

    def _ask_whom_to_blame(self, jobs: list[str]) -> None:
        """Have the pool analysed for one of the jobs that nothing matches: on a large pool that is a dear question."""
        now = time.monotonic()
        self._blames = {job: text for job, text in self._blames.items() if job in jobs}
        self._blamed = {job: at for job, at in self._blamed.items() if job in jobs}
        if any(now - at < _BLAME_PAUSE for at in self._blamed.values()):
            return
        due = [job for job in jobs if now - self._blamed.get(job, -_BLAME_INTERVAL) >= _BLAME_INTERVAL]
        if due:
            self._blamed[due[0]] = now
            self._spawn(self._analyse(due[0]))

    async def _analyse(self, job: str) -> None:
        text = await self._ask("condor_q", "-better-analyze", job)
        most = cluster.largest(self._slots, self.config.gpus)
        blamed = [one for one in answers.read_analysis(text) if not cluster.may_be_in_use(one, most)]
        if blamed:
            self._blames[job] = "; ".join(blamed)
            self._watcher.hurry(0)
        else:
            self._blames.pop(job, None)

    async def _explain(self, ended: Mapping[str, Listed | None]) -> dict[str, JobStatus]:
        gone = [job for job, one in ended.items() if one is None]
        if not gone:
            return {}
        # With these found it reads no more of the history, which may be long.
        what = ["-json", "-attributes", answers.PAST, "-match", str(len(gone))]
        text = await self._ask("condor_history", *what, "-constraint", f"{self._ours(gone)} && {answers.SMALL}")
        return await asyncio.to_thread(answers.read_ends, text, self._tag_of)

    def _tag_of(self, job: str) -> Tag | None:
        tracked = self._tracked.get(job)
        return tracked.tag if tracked else None

    async def _end(self, jobs: list[str], account: Account | None) -> None:
        mine = await self._as(account) if account else {}
        arguments = [*self.config.where, "-constraint", self._ours(jobs)]
        result = await self.commands.run("condor_rm", *arguments, account=account, **mine)
        if result.code and not all(line.startswith(_NONE_SUCH) for line in result.err.splitlines() if line.strip()):
            self._forget_token(account)
            raise CommandError(f"condor_rm says: {result.text}", result.text, unclear=True)

    async def last_words(self, job: str, tag: Tag, started: bool = True) -> list[str]:
        try:
            account = await self.account(tag.user)
        except BackendError:
            return []
        log = server_log(tag.server).replace("~", account.home, 1)
        lines = await self.commands.tail(log, account) if started and not self._tokens else []
        if self.config.shared_homes:
            own = f"{account.home}/.local/state/hepspawner/jobs/{tag.session}/log"
            return lines + await self.commands.tail(own, account)
        return lines + await self._fetch(job, account)

    async def _fetch(self, job: str, account: Account) -> list[str]:
        """What the job itself said, where HTCondor brought it back."""
        if self._tokens:
            # Where its files go is the ad's to say, which is the user's: not for an account that is not the user's too.
            return []
        try:
            text = await self.commands.ask(
                "condor_transfer_data", *self.config.where, job, account=account, within=_FETCH
            )
        except BackendError:
            return []
        return text.splitlines()[-40:]
