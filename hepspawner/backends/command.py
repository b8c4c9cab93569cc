"""Scheduler commands: argv lists, never shell strings; each with a deadline, where needed as the user."""

import asyncio
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import field_validator

from ..site.model import Environment, Model, Path, Time
from .accounts import Account
from .base import BackendError

RunAs = Literal["runuser", "sudo", "setuid", "none"]
_AT_ONCE = 8
_MOST_OUTPUT = 64 * 1024 * 1024
_TIMEOUT = 30
_LAST_WORDS = 8192


_WAYS: dict[str, tuple[str, ...]] = {"runuser": ("runuser",), "sudo": ("sudo",)}


def _path() -> str:
    # runuser is where root looks, which a service's PATH may leave out.
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class CommandError(BackendError):
    """A command failed. `text` is what it said; `unclear`: it may have done its work all the same."""

    def __init__(self, message: str, text: str = "", unclear: bool = False):
        super().__init__(message)
        self.text, self.unclear = text, unclear


class CommandsConfig(Model):
    """The key ``commands`` of a batch backend."""

    paths: dict[str, Path] = {}
    """Where a command is, by its name; absent: in the hub's PATH."""
    timeouts: dict[str, Time] = {}
    """How long a command may take, by its name; absent: 30s."""
    environment: Environment = {}
    """What the commands find in their environment, such as SLURM_CONF or CONDOR_CONFIG."""

    names: ClassVar[frozenset[str]] = frozenset()
    """The commands that there are; each backend says its own."""

    @field_validator("paths", "timeouts")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in cls.names:
                raise ValueError(f"{name!r} is no command of this backend; there are: {', '.join(sorted(cls.names))}")
        return value


@dataclass(frozen=True)
class Result:
    """What a command that ended said."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """What it complains of, in a line."""
        return " ".join((self.err.strip() or self.out.strip()).split())[:1000]


class Commands:
    """Runs the commands of one backend, of each a few at a time."""

    def __init__(self, config: CommandsConfig, run_as: RunAs = "none"):
        self._config, self.run_as = config, run_as
        # Of each command: one that hangs must not keep the others waiting.
        self._turns: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))

    def argv(self, name: str, *arguments: str, account: Account | None = None, within: Sequence[str] = ()) -> list[str]:
        """The command line, for the hub's own account or for a user's. `within`: what runs the command."""
        argv = [*within, self._config.paths.get(name, name), *arguments]
        if account is not None and self.run_as == "runuser":
            return ["runuser", "-u", account.name, "--", *argv]
        if account is not None and self.run_as == "sudo":
            return ["sudo", "-n", "-u", account.name, "--", *argv]
        return argv

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of some commands that are not on this machine. Looks at files."""
        programs = [*(self._config.paths.get(name, name) for name in names), *_WAYS.get(self.run_as, ())]
        return [program for program in programs if not shutil.which(program, path=_path())]

    async def run(
        self,
        name: str,
        *arguments: str,
        account: Account | None = None,
        stdin: str = "",
        within: Sequence[str] = (),
        **environment: str,
    ) -> Result:
        """Run a command to its end. Raises CommandError where it cannot be started or takes too long."""
        argv = self.argv(name, *arguments, account=account, within=within)
        process = account.process if account is not None and self.run_as == "setuid" else {}
        variables = {"PATH": _path(), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}
        variables |= {**self._config.environment, **environment}
        timeout = self._config.timeouts.get(name, _TIMEOUT)
        async with self._turns[name]:
            return await run(argv, stdin.encode(), variables, timeout, process)

    async def ask(
        self,
        name: str,
        *arguments: str,
        account: Account | None = None,
        within: Sequence[str] = (),
        **environment: str,
    ) -> str:
        """The output of a command that has no other effect. Raises CommandError where it failed in any way."""
        result = await self.run(name, *arguments, account=account, within=within, **environment)
        if result.code:
            raise CommandError(f"{name} says: {result.text or f'exit code {result.code}'}", result.text)
        return result.out

    async def tail(self, path: str, account: Account) -> list[str]:
        """The last lines of a user's file, read as the user by a process that can be given up; empty: none."""
        try:
            text = await self.ask("tail", "-c", str(_LAST_WORDS), "--", path, account=account)
        except CommandError:
            return []
        return text.splitlines()[-40:]

    async def follow(self, path: str) -> AsyncGenerator[bytes, None]:
        """What is appended to a file from now on, also once another has its name. Raises CommandError."""
        # It ends with the hub, however that ends. What it says of rotations nobody reads.
        argv = self.argv("tail", "-F", "-n", "0", "--pid", str(os.getpid()), "--", path)
        child = await _start(argv, {"PATH": _path()}, {"stderr": asyncio.subprocess.DEVNULL})
        assert child.stdout
        try:
            while new := await child.stdout.read(65536):
                yield new
        finally:
            if child.returncode is None:
                _end(child)


async def _start(
    argv: Sequence[str], environment: Mapping[str, str], process: Mapping[str, Any]
) -> asyncio.subprocess.Process:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
    own = {**pipes, "env": environment, "cwd": "/", "start_new_session": True, **process}
    try:
        return await asyncio.create_subprocess_exec(*argv, **own)
    except OSError as error:
        raise CommandError(f"{argv[0]} cannot be run: {error.strerror}") from None


async def run(
    argv: Sequence[str], stdin: bytes, environment: Mapping[str, str], timeout: float, process: Mapping[str, Any]
) -> Result:
    """Run a command to its end, for at most `timeout` seconds. Raises CommandError."""
    name = argv[-1] if len(argv) == 1 else os.path.basename(argv[0])
    child = await _start(argv, environment, process)
    try:
        out, err, code = await asyncio.wait_for(_talk(child, stdin), timeout)
    except asyncio.TimeoutError:
        raise CommandError(f"{name} did not answer within {timeout:g} s", unclear=True) from None
    except ValueError:
        raise CommandError(f"{name} said more than {_MOST_OUTPUT >> 20} MiB", unclear=True) from None
    finally:
        if child.returncode is None:
            _end(child)
    return Result(code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))


async def _talk(child: asyncio.subprocess.Process, stdin: bytes) -> tuple[bytes, bytes, int]:
    assert child.stdin and child.stdout and child.stderr
    reading = asyncio.gather(_read(child.stdout), _read(child.stderr))
    try:
        child.stdin.write(stdin)
        await child.stdin.drain()
        child.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it wants no input
    out, err = await reading
    return out, err, await child.wait()


async def _read(stream: asyncio.StreamReader) -> bytes:
    parts, size = [], 0
    while part := await stream.read(65536):
        parts.append(part)
        size += len(part)
        if size > _MOST_OUTPUT:
            raise ValueError
    return b"".join(parts)


def _end(child: asyncio.subprocess.Process) -> None:
    """End a command that took too long. What runs as another (sudo) may not let us: it is not waited for."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    transport = getattr(child, "_transport", None)  # closes the pipes, of which asyncio would wait for the end
    if transport is not None:
        transport.close()


Item = TypeVar("Item")


class Together(Generic[Item]):
    """Collects what is asked for at about the same time, and does it in one go: 200 stops are one command."""

    def __init__(self, work: Callable[[list[Item]], Awaitable[None]], patience: float = 0.05):
        self._work, self._patience = work, patience
        self._waiting: dict[Item, asyncio.Future[None]] = {}
        self._busy: asyncio.Task[None] | None = None

    async def add(self, item: Item) -> None:
        """Have an item done; returns when its command has ended. Raises what that raised."""
        future = self._waiting.get(item)
        if future is None:
            future = self._waiting[item] = asyncio.get_running_loop().create_future()
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        if self._busy is None:
            self._busy = asyncio.ensure_future(self._run())
        await asyncio.shield(future)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(self._patience)
                batch, self._waiting = self._waiting, {}
                try:
                    await self._work(list(batch))
                except Exception as error:
                    _settle(batch.values(), error)
                else:
                    _settle(batch.values(), None)
        finally:
            self._busy = None


def _settle(futures: Iterable["asyncio.Future[None]"], error: Exception | None) -> None:
    for future in futures:
        if not future.done():
            if error:
                future.set_exception(error)
            else:
                future.set_result(None)
