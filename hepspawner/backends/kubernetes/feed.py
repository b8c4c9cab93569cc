"""One list, and from then on one watch: what the API server has of a kind, kept up to date."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

from prometheus_client import Gauge

from ..base import BackendError, Log
from .client import ApiError, Client

_FIRST, _LAST = 0.2, 20.0
"""Seconds between attempts."""
_GONE = 410

BLIND = Gauge(
    "hepspawner_kubernetes_blind",
    "1 while a Kubernetes backend cannot see what its pods do",
    ["backend", "what"],
)


class Feed:
    """Watches objects for as long as it is open. What ends a watch, it begins again where it was; only where the API
    server has forgotten that (410) everything is listed once more."""

    def __init__(
        self,
        client: Callable[[], Client],
        path: str,
        query: dict[str, str],
        renewal: float,
        log: Log,
        names: tuple[str, str],
        read: Callable[[dict[str, Any]], Any],
    ):
        """`renewal`: seconds after which a watch is begun anew, so that one that hangs is noticed; `names`: of the
        backend and of what is watched, for the log and the metric; `read`: cuts an object down to what is asked of it,
        None: nothing is."""
        self._client, self._path, self._query = client, path, query
        self._renewal, self._log, self._names, self._read = renewal, log, names, read
        self.on_list: Callable[[list[Any]], None] = lambda found: None
        """Called with all that was read, whenever it had to be listed."""
        self.on_event: Callable[[str, Any], None] = lambda kind, thing: None
        """Called with ADDED, MODIFIED or DELETED, and what was read."""
        self.asked_at = float("-inf")
        """When the last list was begun, by the loop's clock: it need not have what was made since."""
        self._task: asyncio.Task[None] | None = None
        self._version = ""
        self._fresh = asyncio.Event()
        self._seen_at = float("-inf")
        self._watching = False
        self.problem = "nobody has looked yet"
        """Why nothing is seen; empty while all is well."""
        self.lists = 0
        """How often everything was listed."""

    def select(self, query: dict[str, str]) -> None:
        """Look only at what a query selects."""
        self._query = {**self._query, **query}

    def open(self) -> None:
        """Begin."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    async def close(self) -> None:
        """End, and forget the metric."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            try:
                BLIND.remove(*self._names)
            except KeyError:
                pass

    @property
    def stale(self) -> bool:
        """Whether what was seen last may not hold any more."""
        return not self._watching and asyncio.get_running_loop().time() - self._seen_at > self._renewal

    async def synced(self, seconds: float) -> None:
        """Wait until something was seen. Raises BackendError."""
        try:
            await asyncio.wait_for(self._fresh.wait(), seconds)
        except asyncio.TimeoutError:
            raise BackendError(f"{self._names[0]}: {self.problem}") from None

    async def _run(self) -> None:
        pause = _FIRST
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await self._look()
                pause = _FIRST
                continue
            except Exception as error:  # whatever it is, it must not be the end of the watch
                if isinstance(error, ApiError) and error.status == _GONE:
                    self._log.info("backend %s: too much happened to follow its %s: listing them", *self._names)
                    self._version = ""
                elif not isinstance(error, BackendError):
                    self._version = ""  # of what happened something may not have been taken in: look at all again
                self._failed(error)
            finally:
                self._watching = False
            if asyncio.get_running_loop().time() - began > _LAST:
                pause = _FIRST  # it went well for long
            # The jitter keeps all backends of all hubs from coming back at once.
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, _LAST)

    async def _look(self) -> None:
        if not self._version:
            self.asked_at = asyncio.get_running_loop().time()
            found, version = [], ""
            async for page in self._client().list(self._path, **self._query):
                found += [thing for item in page.get("items") or [] if (thing := self._read(item)) is not None]
                version = str(page["metadata"]["resourceVersion"])
            self.lists += 1
            self._version = version
            self.on_list(found)
            self._good()
        began = asyncio.get_running_loop().time()
        seconds = max(2, self._renewal * random.uniform(0.8, 1.0))
        async with self._client().watch(self._path, seconds, resourceVersion=self._version, **self._query) as events:
            self._good()
            async for event in events:
                self._version = str(event["object"]["metadata"]["resourceVersion"])
                self._good()
                if event["type"] != "BOOKMARK" and (thing := self._read(event["object"])) is not None:
                    self.on_event(event["type"], thing)
        self._good()
        if asyncio.get_running_loop().time() - began < 1:
            await asyncio.sleep(1)  # a server that ends watches at once must not be asked all the time

    def _good(self) -> None:
        if self.problem and self._fresh.is_set():
            self._log.warning("backend %s: sees its %s again", *self._names)
        self.problem = ""
        self._watching = True
        self._seen_at = asyncio.get_running_loop().time()
        self._fresh.set()
        BLIND.labels(*self._names).set(0)

    def _failed(self, error: Exception) -> None:
        words = str(error) or type(error).__name__
        if not isinstance(error, BackendError):
            self._log.exception("backend %s: a look at its %s failed", *self._names)
        elif words != self.problem and not (isinstance(error, ApiError) and error.status == _GONE):
            self._log.error("backend %s: BLIND, it cannot see its %s: %s", *self._names, words)
        if not (isinstance(error, ApiError) and error.status == _GONE):
            self.problem = words
            BLIND.labels(*self._names).set(1)
