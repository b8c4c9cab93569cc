"""Catalogs for tests: made, followed, waited for, and ended."""

import asyncio
import logging
from typing import Any

from hepspawner.catalog.catalog import Catalog
from hepspawner.catalog.state import State
from hepspawner.site.load import load_site

PATIENCE = 60
"""Seconds that a test waits for what has to happen; not spent where it does."""


class Watched(Catalog):
    """A catalog that a test waits for. Use it as a context."""

    def __init__(self) -> None:
        super().__init__(logging.getLogger("hepspawner"), self._spawn_one)
        self.running: list[asyncio.Task[Any]] = []
        self._changed = asyncio.Event()
        self.on_change = self._changed.set

    def _spawn_one(self, work: Any) -> "asyncio.Task[Any]":
        self.running.append(asyncio.ensure_future(work))
        return self.running[-1]

    def use(self, *entries: Any, **backend: Any) -> None:
        """Follow a site with entries, on one backend."""
        self.follow(load_site({"images": list(entries), "backends": {"here": {"type": "local", **backend}}}))

    def of(self, name: str) -> State:
        """The state of an image."""
        assert self.site is not None
        image = self.site.image(name)
        assert image is not None, f"no {name} among {[one.name for one in self.images]}"
        return self.state(image, self.site.backends.values())

    def kinds(self) -> dict[str, str]:
        """The kind of each image's state."""
        return {image.name: self.of(image.name).kind for image in self.images}

    async def until(self, true: Any) -> None:
        """Wait until something is so, which changes of the catalog can make so."""

        async def wait() -> None:
            while not true():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), 0.2)
                except asyncio.TimeoutError:
                    pass  # not all that tests ask for is a change of the catalog

        try:
            await asyncio.wait_for(wait(), PATIENCE)
        except asyncio.TimeoutError:
            raise AssertionError(f"did not come true: {self.kinds()}, {self.problems}") from None

    async def look_again(self) -> None:
        """What the catalog does once a minute, now."""
        await asyncio.gather(*(one.look() for one in self._repositories.values()))

    async def read_again(self) -> None:
        """What it does with its sources at their intervals, now."""
        for one in self._following:
            if await one.refresh():
                self._compose()

    async def __aenter__(self) -> "Watched":
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self.running:
            task.cancel()
        await asyncio.gather(*self.running, return_exceptions=True)
