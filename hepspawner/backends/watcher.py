"""One watcher per batch system: however many jobs there are, one question per interval answers for all of them."""

import asyncio
from collections.abc import Awaitable, Callable

from .base import BackendError, Log

_EARLY = 5.0
"""Seconds between two looks, at least, where nobody waits for one."""


class Watcher:
    """Looks again and again. A look that fails changes nothing: what cannot be told is not taken for the end."""

    def __init__(self, look: Callable[[], Awaitable[None]], interval: float, log: Log, name: str):
        self._look, self._interval, self._log, self._name = look, interval, log, name
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._next: asyncio.Future[None] | None = None
        self._due = 0.0
        self.problem = ""
        """Why the last look failed; empty after a good one."""

    def open(self) -> None:
        """Begin to look."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
        if self._next is not None and not self._next.done():
            self._next.set_exception(BackendError(f"{self._name} is not watched any more"))

    async def look(self) -> None:
        """Returns after a good look that began after the call; all who wait share it. Raises BackendError."""
        self.open()
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            self._next.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._wake.set()
        await asyncio.shield(self._next)

    def hurry(self, seconds: float) -> None:
        """Have the next look soon: there is a new job, of which people want to know why it waits."""
        if self._task is not None:
            self._due = min(self._due, asyncio.get_running_loop().time() + seconds)
            self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        earliest = 0.0
        while True:
            while self._next is None and (left := max(self._due, earliest) - loop.time()) > 0:
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), left)
                except asyncio.TimeoutError:
                    break
            began, asked, self._next = loop.time(), self._next, None
            earliest, self._due = began + min(_EARLY, self._interval), began + self._interval
            try:
                await self._look()
            except Exception as error:
                self._failed(error)
                if asked and not asked.done():
                    asked.set_exception(error if isinstance(error, BackendError) else BackendError(str(error)))
            else:
                if self.problem:
                    self._log.warning("%s answers again", self._name)
                self.problem = ""
                if asked and not asked.done():
                    asked.set_result(None)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, BackendError):
            self._log.exception("%s: a look at its jobs failed", self._name)
        elif str(error) != self.problem:
            self._log.warning("%s: cannot tell what its jobs do: %s", self._name, error)
        self.problem = str(error) or type(error).__name__
