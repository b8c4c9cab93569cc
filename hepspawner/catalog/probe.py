"""Facts about paths of images, found by a child process that can be killed."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import examine as _examine
from .child import Child, Silent
from .examine import NO_ANSWER, Fact, examine

__all__ = ["NO_ANSWER", "Fact", "examine", "look", "start", "told"]

_CHILD = ["-S", str(Path(_examine.__file__))]


async def look(paths: list[str], deadline: float, account: dict[str, Any] | None = None) -> dict[str, Fact]:
    """Facts about paths, at most `deadline` seconds later; what was not answered by then is ``no answer``.

    `account`: as whom to look (`user`, `group`, `extra_groups` of a process), by default as the hub.
    """
    facts = dict.fromkeys(paths, NO_ANSWER)
    if not paths:
        return facts
    child = await start([(path, None) for path in facts], None, account)
    try:
        await asyncio.wait_for(_collect(child, list(facts), facts, deadline), deadline)
    except (asyncio.TimeoutError, Silent, ConnectionError, ValueError):
        pass  # what is not answered stays so
    finally:
        await child.close()
    return facts


async def _collect(child: Child, paths: list[str], facts: dict[str, Fact], silence: float) -> None:
    async for index, fact in told(child, silence):
        if fact is not None:
            facts[paths[index]] = fact


async def start(
    paths: list[tuple[str, tuple[int, ...] | None]], root: str | None, account: dict[str, Any] | None = None
) -> Child:
    """A child that examines paths, each with the mark of what is known of it; see `examine`."""
    return await Child.start(_CHILD, {"paths": paths, "root": root}, account)


async def told(child: Child, silence: float) -> AsyncIterator[tuple[int, Fact | None]]:
    """What a child tells: the index of a path, and the fact about it, None where nothing has changed.

    (-1, None): the root is absent, and all else with it. Raises Silent, ValueError.
    """
    async for line in child.lines(silence):
        if line == "absent":
            yield -1, None
            return
        if not isinstance(line, list) or not line or not isinstance(line[0], int):
            raise ValueError("nonsense")
        index, *values = line
        fact = Fact(*values) if values else None
        yield index, replace(fact, mark=tuple(fact.mark)) if fact and fact.mark else fact
