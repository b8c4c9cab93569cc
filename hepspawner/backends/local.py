"""The machine itself: each server is a process of its user.

A job is the launcher's process, known by its pid *and* start time, and marked with its tag in its environment, where
/proc shows it to the user himself and to root alone.
"""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from ..apptainer import HOST_PATH
from ..session import GPU_VARIABLES, Session, describe
from ..site.model import BackendConfig
from ..templates import Templates
from .accounts import Account, account_of, own_account
from .base import Backend, BackendError, JobStatus, Log, Phase, Tag

_LAUNCHER = str(Path(__file__).parents[1] / "node")
_TAG = "HEPSPAWNER_TAG"
_SESSION = "HEPSPAWNER_SESSION"
_SIGNALS = {int(number): number.name for number in signal.Signals}


class LocalConfig(BackendConfig):
    """Keys of the local backend."""

    allow_root: bool = False
    """Whether servers may run as root, for a user who is called so."""


class LocalBackend(Backend):
    """Runs servers beside the hub: as their users where the hub is root, as itself otherwise."""

    Config = LocalConfig
    bind = address = "127.0.0.1"

    def __init__(self, name: str, config: LocalConfig, log: Log, templates: Templates | None = None):
        super().__init__(name, config, log, templates)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._watched: dict[str, int] = {}
        self._sessions: dict[str, str] = {}
        self._ended: dict[str, JobStatus] = {}
        self._forking = asyncio.Lock()

    async def submit(self, session: Session, tag: Tag, job_input: dict[str, Any]) -> str:
        account = await self.account(tag.user)
        environment = {
            "HOME": account.home,
            "USER": account.name,
            "LOGNAME": account.name,
            "PATH": HOST_PATH,
            "LANG": "C.UTF-8",
            _TAG: str(tag),
            **{name: os.environ[name] for name in GPU_VARIABLES if name in os.environ},
        }
        # Not in a thread: beside a busy event loop it waits 5 ms for its turn again and again, a fork takes 2 ms. And
        # one for each turn of the loop, so that 50 at once do not hold it for 0.1 s.
        async with self._forking:
            child = self._launch(environment, account.process, json.dumps(job_input).encode())
        job = f"{child.pid}:{_start_time(child.pid)}"
        self._children[job] = child
        self._sessions[job] = tag.session
        self._watch(job)
        return job

    def _launch(
        self, environment: dict[str, str], process: dict[str, Any], job_input: bytes
    ) -> "subprocess.Popen[bytes]":
        try:
            child = subprocess.Popen(
                self._command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                start_new_session=True,
                **process,
            )
        except OSError as error:
            raise BackendError(f"the launcher cannot be run by {self._command()[0]}: {error.strerror}") from None
        assert child.stdin
        try:
            child.stdin.write(job_input)
            child.stdin.close()
        except BrokenPipeError:
            pass  # it died at once: the watch tells
        return child

    def _command(self) -> list[str]:
        return [self.config.python or sys.executable, "-I", "-S", _LAUNCHER]

    async def look_as(self, user: str) -> dict[str, Any]:
        return (await self.account(user)).process

    async def account(self, user: str) -> Account:
        """As whom a user's servers run. Raises BackendError."""
        if os.geteuid() != 0:
            return self._own
        return await account_of(user, self.config.allow_root)

    @cached_property
    def _own(self) -> Account:
        return own_account()

    async def cancel(self, job: str, tag: Tag, grace: float) -> None:
        pid = self._pid(job)
        if pid is not None:
            _signal(pid, signal.SIGTERM)
            await self._gone(job, grace + 5)
        # The launcher ends its whole tree; where it could not (killed, hanging), the session's mark tells who is left.
        for _ in range(50):
            left = await asyncio.to_thread(marked, tag.session)
            if self._pid(job) is not None:
                left.append(int(job.split(":")[0]))
            if not left:
                return
            for one in left:
                _signal(one, signal.SIGKILL)
            await asyncio.sleep(0.1)
        raise BackendError(f"processes of the server do not end: {', '.join(map(str, left))}")

    async def _gone(self, job: str, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        # Not every kernel tells the end of a process.
        while self._pid(job) is not None and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def status(self, job: str, tag: Tag) -> JobStatus:
        self._sessions[job] = tag.session
        if job in self._ended:
            return self._ended[job]
        if self._pid(job) is None:
            return self._note_end(job)
        self._watch(job)
        return JobStatus(Phase.RUNNING)

    async def find(self, tag: Tag) -> str | None:
        pids = await asyncio.to_thread(marked, str(tag), _TAG)
        # A child of the launcher carries the tag, too, until it has its own environment: the launcher is the oldest.
        jobs = sorted((int(started), pid) for pid in pids if (started := _start_time(pid)))
        return f"{jobs[0][1]}:{jobs[0][0]}" if jobs else None

    def preview(self, session: Session) -> str:
        return f"# launcher, as the user, on this machine\n{shlex.join(self._command())}\n\n{describe(session)}"

    async def close(self) -> None:
        for pidfd in self._watched.values():
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        self._watched.clear()

    def _pid(self, job: str) -> int | None:
        """The pid of a job that lives, None where it ended: another process may have its pid."""
        child = self._children.get(job)
        if child is not None and child.poll() is not None:
            return None
        pid, _, started = job.partition(":")
        # Without a start time it had ended before it could be looked at.
        return int(pid) if started and _start_time(int(pid)) == started else None

    def _watch(self, job: str) -> None:
        """Have the kernel tell the end of a job at once. Without pidfds (Linux before 5.3) the next poll tells it."""
        if job in self._watched or not hasattr(os, "pidfd_open"):
            return
        try:
            pidfd = os.pidfd_open(int(job.split(":")[0]))
        except OSError:
            return
        self._watched[job] = pidfd
        asyncio.get_running_loop().add_reader(pidfd, self._note_end, job)

    def _note_end(self, job: str) -> JobStatus:
        pidfd = self._watched.pop(job, None)
        if pidfd is not None:
            asyncio.get_running_loop().remove_reader(pidfd)
            os.close(pidfd)
        child = self._children.pop(job, None)
        code = child.wait() if child else None
        if code is not None and code < 0:
            reason = f"the launcher was killed by {_SIGNALS.get(-code, f'signal {-code}')}"
        else:
            reason = "the launcher ended" + (f" with exit code {code}" if code else "")
        status = self._ended[job] = JobStatus(Phase.ENDED, reason, code)
        self.on_change(self._sessions.get(job, ""), status)
        return status

    async def forget(self, job: str, tag: Tag) -> None:
        self._ended.pop(job, None)
        self._sessions.pop(job, None)
        # What a launcher that was killed left behind.
        for pid in await asyncio.to_thread(marked, tag.session):
            _signal(pid, signal.SIGKILL)


def marked(value: str, name: str = _SESSION) -> list[int]:
    """Pids of the processes whose environment has a mark, as far as the hub may see. Reads /proc: not for the loop."""
    wanted = (f"{name}={value}".encode(), f"APPTAINERENV_{name}={value}".encode())
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(one in environment for one in wanted) and _start_time(int(entry.name)):
                found.append(int(entry.name))
    return found


def _start_time(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty where it ended (also as a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and parentheses
    return "" if fields[0] in "ZX" else fields[19]


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
