"""Servers of an HTCondor backend alone, without a hub: their launchers wait for one, so the jobs run and do nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from hepspawner.backends.base import JobStatus
from hepspawner.backends.htcondor import HTCondorBackend
from tests.faults.server import PATIENCE
from tests.faults.server import Server as AnyServer
from tests.htcondor import Condor
from tests.slurm import Commands

HUB = "0123456789ab"
Make = Callable[..., HTCondorBackend]


class Server(AnyServer):
    """A job of a user, as a spawner has it."""

    plain: ClassVar[dict[str, Any]] = {
        "cpus": 1,
        "memory": 2**27,
        "gpu": None,
        "gpus": 0,
        "runtime": None,
        "extra": {},
    }

    async def waiting(self) -> "Server":
        """Until its files are in the spool: before that HTCondor itself holds it."""
        await self.until(lambda status: "looked" in status.reason or "room" in status.reason)
        return self


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
