"""A site that follows its file: a change is picked up without a restart, a broken one keeps the last good site."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from logging import Logger, LoggerAdapter
from typing import Any

from .load import Problem, SiteError, load_site
from .model import Site

_INTERVAL = 2.0
_READ_TIMEOUT = 60.0

Identity = tuple[int, int, int] | None


class LiveSite:
    """The last good site of a source, and what is wrong with the source now.

    `site` is None only where there has been none since the hub started. `on_change` is called with each new good site.
    """

    def __init__(self, source: str | dict[str, Any], log: Logger | LoggerAdapter[Any]):
        self.source, self.log = source, log
        self.site: Site | None = None
        self.problems: list[Problem] = []
        self.on_change: Callable[[Site], None] = lambda site: None
        self._seen: Identity = None

    def load(self) -> None:
        """The first reading. Blocks: called once, while the hub starts and serves nobody yet."""
        if isinstance(self.source, str):
            self._seen = _identity(self.source)
        try:
            self._accept(load_site(self.source))
        except SiteError as error:
            self._refuse(error.problems)

    async def follow(self) -> None:
        """Watch the file for as long as the hub runs. The hub runs this as a task."""
        if not isinstance(self.source, str):
            return
        while True:
            await asyncio.sleep(_INTERVAL)
            # The file may lie on a file system that hangs: then this waits in its thread, and the site stays.
            identity = await asyncio.to_thread(_identity, self.source)
            if identity != self._seen:
                self._seen = identity
                await self.reload(self.source)

    async def reload(self, path: str) -> None:
        """Read the file in a child process: parsing 1000 images would hold the event loop for 100 ms and more."""
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hepspawner.site.load",
            path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            out, _ = await asyncio.wait_for(child.communicate(), _READ_TIMEOUT)
            answer = json.loads(out)
            if "site" in answer:
                self._accept(Site.model_validate(answer["site"]))
            else:
                self._refuse([Problem(**problem) for problem in answer["problems"]])
        except asyncio.TimeoutError:
            child.kill()
            self._refuse([Problem(f"could not be read within {_READ_TIMEOUT:.0f} s", path)])
        except ValueError:
            self._refuse([Problem("could not be read: the reading process failed, see the hub's log", path)])

    def _accept(self, site: Site) -> None:
        if self.site is not None or self.problems:
            self.log.info(
                "Site: %s was read: %d images, backends %s", self.name, len(site.images), ", ".join(site.backends)
            )
        self.site, self.problems = site, []
        self.on_change(site)

    def _refuse(self, problems: list[Problem]) -> None:
        self.problems = problems
        keeps = "the last good one is kept" if self.site else "no server can be started until it is mended"
        listed = "\n  ".join(map(str, problems))
        self.log.error("Site: %s cannot be used; %s\n  %s", self.name, keeps, listed)

    @property
    def name(self) -> str:
        """How messages call the source."""
        return self.source if isinstance(self.source, str) else "c.HEPSpawner.site"


def _identity(path: str) -> Identity:
    """What changes when a file does; None while it is not there (an editor may be replacing it)."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
