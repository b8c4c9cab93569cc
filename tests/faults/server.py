"""A server of a backend alone, without a hub."""

import asyncio
import secrets
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar, TypeVar

from hepspawner.backends.base import Backend, JobStatus, Phase, Tag

PATIENCE = 60.0
Self = TypeVar("Self", bound="Server")


class Server:
    """A job of a user, as a spawner has it."""

    plain: ClassVar[dict[str, Any]]
    """What its session has unless a test says something else."""

    def __init__(self, backend: Backend, user: str = "alice", **session: Any):
        self.backend: Any = backend
        self.tag = Tag(backend.hub, user, "", secrets.token_hex(16))
        self.session: Any = SimpleNamespace(**{"user": user, **self.plain, **session})
        self.job = ""

    async def submit(self: Self) -> Self:
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

    async def running(self: Self) -> Self:
        await self.until(lambda status: status.phase is Phase.RUNNING)
        return self

    async def ended(self) -> JobStatus:
        return await self.until(lambda status: status.phase is Phase.ENDED)

    async def cancel(self) -> None:
        await self.backend.cancel(self.job, self.tag, 0)
