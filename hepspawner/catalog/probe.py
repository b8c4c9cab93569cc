"""Facts about paths of images, found by a child process that can be killed.

CVMFS and users' homes can hang, also in ways that no signal interrupts: the hub never touches them. This file is
both sides: `look` runs in the hub, `main` in the child, which is this very file under the hub's Python with nothing
but the standard library, so that it starts in some 15 ms.
"""

import asyncio
import json
import os
import stat
import sys
from dataclasses import dataclass
from typing import Any

_SIF_MAGIC = b"SIF_MAGIC"
_SIF_MAGIC_AT = 32
_ROOT_OF_A_SYSTEM = ("usr", ".singularity.d")


@dataclass(frozen=True)
class Fact:
    """What is known of a path."""

    kind: str
    """``sandbox``, ``sif``, ``prefix`` (a directory with bin/ that is no system), or why it is none of them:
    ``missing``, ``unreadable``, ``not an image``, ``no answer``; ``on the node``: the hub does not look."""
    real: str = ""
    """The path with its links resolved."""

    @property
    def ok(self) -> bool:
        """False where a start must fail. That nothing answered is not known to be bad."""
        return self.kind in ("sandbox", "sif", "prefix", "no answer", "on the node")

    @property
    def text(self) -> str:
        """The state in words; empty where there is nothing to say."""
        return {
            "missing": "does not exist",
            "unreadable": "may not be read",
            "not an image": "is not an image: neither a SIF nor the root directory of a system",
            "no answer": "the file system does not answer",
        }.get(self.kind, "")


NO_ANSWER = Fact("no answer")


async def look(paths: list[str], deadline: float, account: dict[str, Any] | None = None) -> dict[str, Fact]:
    """Facts about paths, at most `deadline` seconds later; what was not answered by then is ``no answer``.

    `account`: as whom to look (`user`, `group`, `extra_groups` of a process), by default as the hub.
    """
    facts = dict.fromkeys(paths, NO_ANSWER)
    if not paths:
        return facts
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        __file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
        **(account or {}),
    )
    try:
        await asyncio.wait_for(_read(child, paths, facts), deadline)
    except (asyncio.TimeoutError, ConnectionError, ValueError):
        pass  # what is not answered stays so
    finally:
        # A child in an uninterruptible wait dies when the file system lets go of it: nobody waits for that.
        if child.returncode is None:
            try:
                child.kill()
                await asyncio.wait_for(child.wait(), 0.1)
            except (ProcessLookupError, asyncio.TimeoutError):
                pass
    return facts


async def _read(child: asyncio.subprocess.Process, paths: list[str], facts: dict[str, Fact]) -> None:
    assert child.stdin and child.stdout
    child.stdin.write(json.dumps(paths).encode())
    child.stdin.close()
    while line := await child.stdout.readline():
        path, kind, real = json.loads(line)
        facts[path] = Fact(kind, real)
    await child.wait()  # asyncio complains where the child was not waited for


def examine(path: str) -> Fact:
    """The fact about one path. Blocks for as long as the file system likes: only for the child."""
    real = ""
    try:
        real = os.path.realpath(path)
        mode = os.stat(real).st_mode
        if stat.S_ISDIR(mode):
            if not os.access(real, os.X_OK):
                return Fact("unreadable", real)
            # No listing: on CVMFS it costs more than some stats.
            if any(os.path.lexists(os.path.join(real, name)) for name in _ROOT_OF_A_SYSTEM):
                return Fact("sandbox", real)
            is_prefix = os.path.isdir(os.path.join(real, "bin"))
            return Fact("prefix" if is_prefix else "not an image", real)
        with open(real, "rb") as file:
            head = file.read(_SIF_MAGIC_AT + len(_SIF_MAGIC))
        return Fact("sif" if head[_SIF_MAGIC_AT:] == _SIF_MAGIC else "not an image", real)
    except PermissionError:
        return Fact("unreadable", real)
    except (FileNotFoundError, ValueError):  # ValueError: what can be no path
        return Fact("missing")
    except OSError as error:
        # EIO, ENOTCONN, ELOOP… of a sick file system: it may be well again on the node, or in a minute
        return Fact("missing" if isinstance(error, NotADirectoryError) else "no answer")


def main() -> None:
    """The child: paths as JSON on standard input, a line of JSON for each on standard output, at once."""
    for path in json.load(sys.stdin):
        fact = examine(path)
        print(json.dumps([path, fact.kind, fact.real]), flush=True)


if __name__ == "__main__":
    main()
