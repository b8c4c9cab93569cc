"""Servers of an HTCondor backend alone, without a hub: their launchers wait for one, so the jobs run and do nothing."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from hepspawner.backends.base import JobStatus, Phase, Tag
from hepspawner.backends.htcondor import HTCondorBackend
from tests.htcondor import Condor
from tests.slurm import Commands

HUB = "0123456789ab"
PATIENCE = 60.0
Make = Callable[..., HTCondorBackend]


class Server:
    """A job of a user, as a spawner has it."""

    def __init__(self, backend: HTCondorBackend, user: str = "alice", **session: Any):
        self.backend, self.tag = backend, Tag(HUB, user, "", secrets.token_hex(16))
        plain = {"cpus": 1, "memory": 2**27, "gpu": None, "gpus": 0, "runtime": None, "extra": {}}
        self.session: Any = SimpleNamespace(**{**plain, **session})
        self.job = ""

    async def submit(self) -> "Server":
        hub = {"session": self.tag.session, "ticket": f"{self.tag.session}.secret", "hub": "http://127.0.0.1:1/hub/api"}
        job_input = {**hub, "expires": time.time() + 600, "address": None, "scratch": None}
        self.job = await self.backend.submit(self.session, self.tag, job_input)
        return self

    async def status(self) -> JobStatus:
        return await self.backend.status(self.job, self.tag)

    async def until(self, what: Callable[[JobStatus], object]) -> JobStatus:
        """Wait for a status."""
        end = time.monotonic() + PATIENCE
        while not what(status := await self.status()):
            assert time.monotonic() < end, status
            await asyncio.sleep(0.1)
        return status

    async def waiting(self) -> "Server":
        """Until its files are in the spool: before that HTCondor itself holds it."""
        await self.until(lambda status: "looked" in status.reason or "room" in status.reason)
        return self

    async def running(self) -> "Server":
        await self.until(lambda status: status.phase is Phase.RUNNING)
        return self

    async def ended(self) -> JobStatus:
        return await self.until(lambda status: status.phase is Phase.ENDED)

    async def cancel(self) -> None:
        await self.backend.cancel(self.job, self.tag, 0)


async def held(server: Server, pool: Condor, *said: str) -> JobStatus:
    """It ended, the sentence holds some words, and the job is removed."""
    status = await server.ended()
    assert all(word in status.reason for word in said), status
    assert status.advice
    await soon(lambda: not pool.jobs(server.tag.session), "the job is removed")
    return status


async def looked(calls: Commands, count: int = 3) -> None:
    """Wait until the backend has asked for its jobs some more times."""
    before = len(calls.calls("condor_q"))
    await soon(lambda: len(calls.calls("condor_q")) >= before + count, "it asks again")


async def soon(condition: Callable[[], Any], what: str) -> Any:
    """What `condition()` returns as soon as that is true. The backend goes on meanwhile."""
    end = time.monotonic() + PATIENCE
    while not (value := await asyncio.to_thread(condition)):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.1)
    return value


async def within(seconds: float, work: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(work, seconds)
