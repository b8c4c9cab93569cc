"""Child processes that touch what may hang: they can be killed, and nobody waits for one that does not die."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

_LINES = 8
_MAX_LINE = 16 * 2**20


class Silent(Exception):
    """A child said nothing for too long."""


class _Making(asyncio.Task[asyncio.subprocess.Process]):
    """The start of a process, a matter of moments: cancelled in its middle, asyncio may wait for its end for ever, and
    a hub that stops cancels everything."""

    def cancel(self, msg: Any = None) -> bool:
        return False


class Child:
    """One process: asked once, as JSON; answers in lines of JSON. Close it in any case."""

    def __init__(self, process: asyncio.subprocess.Process):
        self._process = process

    @classmethod
    async def start(cls, argv: list[str], asked: Any, account: dict[str, Any] | None = None) -> "Child":
        """Run our Python with arguments. `account`: as whom (`user`, `group`, `extra_groups`), else as the hub."""
        making = _Making(
            asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
                limit=_MAX_LINE,
                **(account or {}),
            ),
            loop=asyncio.get_running_loop(),
        )
        try:
            process = await asyncio.shield(making)
        except asyncio.CancelledError:
            await cls(await making).close()
            raise
        assert process.stdin
        process.stdin.write(json.dumps(asked).encode() + b"\n")
        return cls(process)

    async def lines(self, silence: float) -> AsyncIterator[Any]:
        """Its lines, until it ends. Raises Silent after so many seconds without one, ValueError for nonsense."""
        assert self._process.stdout
        count = 0
        while True:
            try:
                line = await asyncio.wait_for(self._process.stdout.readline(), silence)
            except asyncio.TimeoutError:
                raise Silent from None
            if not line:
                break
            yield json.loads(line)
            count += 1
            if count % _LINES == 0:
                await asyncio.sleep(0)  # what has arrived already is read without a pause
        try:
            await asyncio.wait_for(self._process.wait(), silence)  # asyncio complains where nobody waited
        except asyncio.TimeoutError:
            raise Silent from None

    async def close(self) -> None:
        """Kill it where it still runs. One in an uninterruptible wait dies when the file system lets go of it."""
        assert self._process.stdin
        self._process.stdin.close()
        if self._process.returncode is None:
            try:
                self._process.kill()
                await asyncio.wait_for(self._process.wait(), 0.1)
            except (ProcessLookupError, asyncio.TimeoutError):
                # its pipe is closed now, not when the loop that knew it is no more
                self._process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]

    @property
    def stuck(self) -> bool:
        """Whether it is still there, though it was killed."""
        return self._process.returncode is None

    async def gone(self) -> None:
        """Wait until it is no more: for who watches, not for who needs an answer."""
        await self._process.wait()
