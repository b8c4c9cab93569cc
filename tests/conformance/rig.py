"""What the suite must know of an engine. A backend joins by a class derived from `BackendRig`, see conftest.py."""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.realhub import processes_with

TINY = Path(__file__).parents[1] / "tiny_server.py"


class BackendRig:
    """One engine, ready to run jobs. A hub's site names it as the backend ``engine``."""

    name: str
    users: tuple[str, str]
    """Two users of the hub that may have servers."""
    account_per_user: bool
    """Whether servers run as accounts that are called like the users."""
    hub_address = "127.0.0.1"
    """At which the engine's nodes reach a hub on this machine."""

    def part(self) -> dict[str, Any]:
        """The backend's part of the site."""
        raise NotImplementedError

    def part_of_anybody(self) -> dict[str, Any]:
        """The same for a hub that is not root, whose users need no accounts."""
        return self.part()

    def images(self) -> list[dict[str, Any]]:
        """The site's images, by name: of the tiny server `tiny`, `waiting` (see `close_gate`) and `crashing`; `gone`,
        which is not there; those of `lab` and `bare`; with a real JupyterLab `sandbox` and `sif` for Apptainer."""
        raise NotImplementedError

    def lab(self, version: str) -> str:
        """The image with a real JupyterLab that goes with a version of JupyterHub (hub6, hub5)."""
        raise NotImplementedError

    def bare(self) -> list[str]:
        """The images that lack the server's command."""
        raise NotImplementedError

    def hold(self) -> None:
        """From now on new jobs stay queued: their launcher does not start."""
        raise NotImplementedError

    def release(self) -> None:
        """Jobs that wait start, and so do new ones."""
        raise NotImplementedError

    def close_gate(self) -> None:
        """Servers of the image `waiting` do not come up."""
        raise NotImplementedError

    def open_gate(self) -> None:
        """They come up."""
        raise NotImplementedError

    def jobs(self, mark: str) -> list[str]:
        """The jobs that are queued or run and whose tag holds a text: a session, or a hub's id."""
        raise NotImplementedError

    def kill_job(self, mark: str) -> None:
        """The engine ends a job, behind the hub's and the launcher's back."""
        raise NotImplementedError

    def processes(self, session: str) -> dict[int, str]:
        """Pids and commands of everything that runs on the engine's nodes for a session."""
        raise NotImplementedError

    def public_texts(self, session: str) -> dict[str, str]:
        """By place: all that the engine shows to anybody of a job."""
        raise NotImplementedError

    def close(self) -> None:
        """The engine is not needed any more."""


class LocalRig(BackendRig):
    """The machine itself."""

    name = "local"

    def __init__(self, engines: dict[str, Any]):
        self.engines = engines
        self.account_per_user = os.getuid() == 0
        first, second = (engines["users"] or ["alice", "bob"])[:2]
        self.users = (first, second)
        self.directory = Path(tempfile.mkdtemp(prefix="localrig-"))
        self.directory.chmod(0o755)
        (self.directory / "prefix/bin").mkdir(parents=True)
        tiny = self.directory / "prefix/bin/tiny"
        tiny.write_text(f"#!{sys.executable} -IS\n{TINY.read_text()}")
        tiny.chmod(0o755)
        self.gate, self.fifo = self.directory / "gate", self.directory / "queue"
        # A job that is queued: its process is there, but the launcher is not.
        self.python = self.directory / "python"
        self.python.write_text(
            f'#!/bin/sh\n[ -p "{self.fifo}" ] && read -r _ <"{self.fifo}"\nexec {sys.executable} "$@"\n'
        )
        self.python.chmod(0o755)
        self._queues: list[int] = []

    def part(self) -> dict[str, Any]:
        part = {"type": "local", "title": "The engine", "python": str(self.python)}
        if self.engines["apptainer"]:
            part["apptainer"] = self.engines["apptainer"]
        return part

    def images(self) -> list[dict[str, Any]]:
        prefix = str(self.directory / "prefix")
        images: list[dict[str, Any]] = [
            {"name": "tiny", "prefix": prefix, "command": ["tiny", "serve"]},
            {"name": "waiting", "prefix": prefix, "command": ["tiny", "wait", str(self.gate)]},
            {"name": "crashing", "prefix": prefix, "command": ["tiny", "crash"]},
            {"name": "gone", "prefix": str(self.directory / "no/such/prefix")},
            {"name": "bare", "prefix": prefix},
        ]
        images += [
            {"name": f"lab-{v}", "prefix": prefix_of(self.engines[v])} for v in ("hub6", "hub5") if self.engines[v]
        ]
        for name, engine in (("sandbox", "image"), ("sif", "sif")):
            if self.engines["apptainer"] and self.engines[engine]:
                images.append({"name": name, "path": self.engines[engine]})
                images.append({"name": f"bare-{name}", "path": self.engines[engine], "command": ["no-such-command"]})
        return images

    def lab(self, version: str) -> str:
        return f"lab-{version}"

    def bare(self) -> list[str]:
        return [image["name"] for image in self.images() if image["name"].startswith("bare")]

    def hold(self) -> None:
        if not self.fifo.exists():
            os.mkfifo(self.fifo)

    def release(self) -> None:
        if not self.fifo.exists():
            return
        # One line for each that waits; it stays open, so that one that opens it just now does not wait for ever.
        queue = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK)
        os.write(queue, b"\n" * 1000)
        self.fifo.unlink()
        self._queues.append(queue)

    def close_gate(self) -> None:
        self.gate.touch()

    def open_gate(self) -> None:
        self.gate.unlink(missing_ok=True)

    def jobs(self, mark: str) -> list[str]:
        found = []
        for pid in processes_with("HEPSPAWNER_TAG="):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if any(one.startswith(b"HEPSPAWNER_TAG=") and mark.encode() in one for one in environment):
                found.append(str(pid))
        return found

    def kill_job(self, mark: str) -> None:
        for job in self.jobs(mark):
            os.kill(int(job), signal.SIGKILL)

    def processes(self, session: str) -> dict[int, str]:
        return processes_with(session)

    def public_texts(self, session: str) -> dict[str, str]:
        return command_lines()

    def close(self) -> None:
        self.release()
        for queue in self._queues:
            os.close(queue)
        shutil.rmtree(self.directory, ignore_errors=True)


def prefix_of(python: str) -> str:
    """The environment that a Python is of."""
    return str(Path(python).parent.parent)


def command_lines() -> dict[str, str]:
    """The command lines of all processes of this machine."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[f"/proc/{entry.name}/cmdline"] = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
    return found
