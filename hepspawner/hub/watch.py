"""What becomes of a run when its backend, or its launcher, says something of its job."""

import asyncio
from typing import TYPE_CHECKING, Any

from tornado.httpclient import AsyncHTTPClient, HTTPError

from ..backends.base import Backend, BackendError, JobStatus, Phase
from .run import Failure, Run, clean_log

if TYPE_CHECKING:
    from .runtime import Runtime

_WORDS_DEADLINE = 10.0
_ANSWER_DEADLINE = 10.0
_SILENT_LOOKS = 6
_AGAIN = "Start it again; if that fails too, tell the site's admins."


class Watch:
    """Draws the conclusions, for the runs of one hub."""

    def __init__(self, runtime: "Runtime"):
        self._runtime = runtime

    def changed(self, session: str, status: JobStatus) -> None:
        """The `on_change` of all backends."""
        run = self._runtime.runs.get(session)
        runs_well = run is not None and status.phase is Phase.RUNNING and "claimed" in run.times
        if run is not None and not run.ended and not runs_well:
            self._runtime.spawn(self.conclude(run, status))

    async def conclude(self, run: Run, status: JobStatus) -> None:
        """Draw the conclusions from what a backend says of a run's job."""
        if status.phase is Phase.ENDED:
            await self.job_ended(run, status)
        elif status.phase is Phase.LOST:
            await self._job_is_lost(run, status)
        elif status.phase is Phase.QUEUED and status.hopeless:
            log = await self._last_words(run, status)
            self.give_up(run, Failure(f"The job would wait for ever: {status.reason}.", status.advice, log))
        elif status.phase is Phase.QUEUED and status.again and "claimed" in run.times:
            # Started again it would find its ticket used, and perhaps be on another node.
            self.give_up(run, Failure("The server is gone: its job was stopped and sent back to the queue.", _AGAIN))
        elif "claimed" not in run.times:
            first = run.waiting is None or run.waiting.phase is not Phase.RUNNING
            run.wait(status)
            if status.phase is Phase.RUNNING and first and self._backend(run).queues:
                silence = _SILENT_LOOKS * self._backend(run).config.poll_interval
                asyncio.get_running_loop().call_later(silence, self._unheard, run, silence)

    async def job_ended(self, run: Run, status: JobStatus) -> None:
        """A job is over: all that is known where its launcher could not report it."""
        log = await self._last_words(run, status)
        run.end(_gone(status, log), 1 if status.exit_code is None else status.exit_code)

    async def _last_words(self, run: Run, status: JobStatus) -> list[str]:
        """The last lines that a job wrote, where it came to that and they can be had."""
        started = "starting" in run.times
        ran = started or status.host or status.exit_code is not None
        if not ran or run.job is None:
            return []
        try:
            asked = self._backend(run).last_words(run.job, run.tag, started)
            return clean_log(await asyncio.wait_for(asked, _WORDS_DEADLINE), run.secrets())
        except (BackendError, asyncio.TimeoutError):
            return []

    async def ended_by_others(self, run: Run, failure: Failure, exit_code: int) -> None:
        """A launcher was ended, or its server killed, and not by us: the engine may know by whom, and why."""
        status = None
        try:
            if run.job is not None:
                status = await self._backend(run).verdict(run.job)
        except BackendError:
            pass
        if status is not None and status.exit_code is None and not run.stopping:
            failure = _gone(status, failure.log)
        run.end(failure, exit_code)

    async def _job_is_lost(self, run: Run, status: JobStatus) -> None:
        if run.url and await _answers(f"{run.url}{run.base_url}api"):
            self._runtime.log.warning("%s, but its server answers: %s", status.reason, run.tag)
            return
        await self.job_ended(run, status)

    def _unheard(self, run: Run, silence: float) -> None:
        if run.ended or "claimed" in run.times:
            return
        where = f"Node {run.waiting.host}" if run.waiting and run.waiting.host else "Its node"
        text = f"{where} is said to run the job, but nothing was heard from it for {silence:.0f} s."
        advice = "Start it again. For the admins: the node may not reach the hub (the backend's key hub_url)."
        self.give_up(run, Failure(text, advice))

    def give_up(self, run: Run, failure: Failure) -> None:
        """End a run whose job still lives: its job, too."""
        if run.ended:
            return
        self._runtime.spawn(self._cancel(run))
        run.end(failure, 1)

    async def _cancel(self, run: Run) -> None:
        if run.job is None:
            return
        try:
            await self._backend(run).cancel(run.job, run.tag, 0)
        except BackendError as error:
            self._runtime.log.warning("hepspawner: %s", error)

    def _backend(self, run: Run) -> Backend:
        return self._runtime.backend(run.backend)


def _gone(status: JobStatus, log: list[str]) -> Failure:
    return Failure(f"The server is gone: {status.reason}.", status.advice or _AGAIN, log)


async def _answers(url: str) -> bool:
    fetch: Any = AsyncHTTPClient().fetch(url, request_timeout=_ANSWER_DEADLINE, follow_redirects=False)
    try:
        await fetch
    except HTTPError as error:
        return 300 <= error.code < 500
    except OSError:
        return False
    return True
