"""Questions to a batch system that are asked now and then, for all users at once."""

import asyncio
from collections.abc import Awaitable, Callable

from .base import BackendError, Log

_AGAIN = 60.0
"""Seconds until a question that failed is asked again, at most."""


class Asking:
    """Asks again and again: always, or only after somebody wanted to know."""

    def __init__(
        self, whom: str, what: str, ask: Callable[[], Awaitable[None]], interval: float, log: Log, wanted: bool = False
    ):
        """`whom` is asked, and `what`: for the log. `wanted`: somebody must want to know, also the first time."""
        self._whom, self._what, self._ask, self._interval, self._log = whom, what, ask, interval, log
        self._lazy, self._wanted = wanted, asyncio.Event()
        self.problem = ""
        """Why the last answer was none; empty after a good one."""

    def want(self) -> None:
        """Somebody wants to know."""
        self._wanted.set()

    async def run(self) -> None:
        """Ask, until it is cancelled."""
        while True:
            if self._lazy:
                await self._wanted.wait()
                self._wanted.clear()
            try:
                await self._ask()
                self.problem = ""
            except BackendError as error:
                if str(error) != self.problem:
                    self._log.warning("%s: cannot tell its %s: %s", self._whom, self._what, error)
                self.problem = str(error)
            await asyncio.sleep(min(self._interval, _AGAIN) if self.problem else self._interval)
