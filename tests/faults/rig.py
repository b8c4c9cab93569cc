"""A real Slurm whose parts can be broken, and a real hub before it."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

from tests.conformance.rig import TINY, LocalRig
from tests.machine import alive, eventually, processes_with
from tests.realhub import RealHub
from tests.slurm import COMMANDS, Job, Slurm, counting_commands

# What a hub waits for in minutes, so that a test may see it give up.
SHORT_OF_PATIENCE = """
import hepspawner.backends.batch as batch
batch._CANCEL_PATIENCE = 8.0
batch._CANCEL_AGAIN = 3.0
batch._RECONCILE_PATIENCE = 10.0
batch._RECONCILE_AGAIN = 1.0
c.JupyterHub.tornado_settings = {"slow_stop_timeout": 1}
c.JupyterHub.concurrent_spawn_limit = 0
"""
# Beside what the tiny server does: SIGTERM has it save its work, SIGUSR2 has it take 600 MB of memory.
ODD = """
import signal, sys, threading, time
def saves(*_):
    print("odd: saved", flush=True)
    sys.exit(0)
def eats(*_):
    threading.Thread(target=lambda: (bytearray(b"x") * (6 * 10**8), time.sleep(600))).start()
signal.signal(signal.SIGTERM, saves)
signal.signal(signal.SIGUSR2, eats)
"""
NODES = ("c1", "c2", "g1")


class FaultRig(LocalRig):
    """A cluster all of whose commands are counted and can be made to misbehave, and its hub."""

    name = "slurm"

    def __init__(self, engines: dict[str, Any], **knobs: Any):
        super().__init__(engines)
        self.slurm = Slurm(**{"KILLWAIT": 2, "MESSAGETIMEOUT": 3, "FREQ": 1, **knobs}).start()
        self.commands = counting_commands(self.slurm.directory / "commands")
        self._hub: RealHub | None = None
        tiny, odd = (self.directory / "prefix/bin" / name for name in ("tiny", "odd"))
        odd.write_text(tiny.read_text().replace(TINY.read_text(), ODD + TINY.read_text()))
        odd.chmod(0o755)

    def part(self, **more: Any) -> dict[str, Any]:
        paths = {name: str(self.commands.directory / name) for name in COMMANDS}
        return {
            "type": "slurm",
            "title": "The cluster",
            "poll_interval": "1s",
            "commands": {"environment": self.slurm.env, "paths": paths},
            **more,
        }

    def images(self) -> list[dict[str, Any]]:
        prefix = str(self.directory / "prefix")
        commands = {"tiny": ["tiny", "serve"], "waiting": ["tiny", "wait", str(self.gate)], "odd": ["odd", "serve"]}
        return [{"name": name, "prefix": prefix, "command": command} for name, command in commands.items()]

    def site(self, **more: Any) -> dict[str, Any]:
        """A site of the cluster alone; `more` keys of its backend."""
        return {"images": self.images(), "backends": {"engine": self.part(**more)}}

    @property
    def hub(self) -> RealHub:
        """The hub, started when it is first needed."""
        if self._hub is None:
            self._hub = RealHub(self.engines["hub6"], self.site(), config=SHORT_OF_PATIENCE)
        if self._hub.process is None or self._hub.process.poll() is not None:
            self._hub.start()
        return self._hub

    # --- what tests ask

    def start(self, user: str = "alice", server: str = "", **options: Any) -> Job:
        """A server that runs; its job."""
        answer = self.hub.start_server(user, {"image": "tiny", **options}, server)
        assert answer.status_code in (201, 202), answer.text
        self.hub.ready(user, server)
        return self.job_of(user, server)

    def job_of(self, user: str, server: str = "") -> Job:
        """The job of a server."""
        job = self.slurm.job(int(self.hub.state(user, server)["job"]))
        assert job is not None
        return job

    def queue(self, user: str = "alice", server: str = "", **options: Any) -> Job:
        """A server whose job waits, if the caller drained the nodes; its job."""
        self.hub.begin(user, {"image": "tiny", **options}, server)
        self.hub.reached("submitted", user, server)
        return self.job_of(user, server)

    def ids(self) -> list[int]:
        """Those of the hub's jobs that have not ended."""
        return sorted(job.id for job in self.our_jobs())

    def our_jobs(self) -> list[Job]:
        """The jobs of the hub that have not ended."""
        return [job for job in self.slurm.jobs() if self.hub.id in job.comment]

    def answers(self, user: str = "alice", server: str = "") -> bool:
        """Whether a server answers through the proxy."""
        return "pid" in _json(self.hub.server_get(user, "facts", server))

    def waits_for(self, words: str, user: str = "alice") -> None:
        """The waiting page says so, sooner or later."""
        person, seen = self.hub.browser(user), [""]

        def look() -> bool:
            page = person.get(f"/hub/spawn-pending/{user}").text
            seen.append(unescape(re.sub(r"<[^>]*>", " ", page[page.find('id="progress-message"') :]))[:1000])
            return words in seen[-1]

        try:
            eventually(look)
        except AssertionError:
            raise AssertionError(f"the waiting page never says {words!r}, but: {seen[-1]}") from None

    def form_says(self, words: str, user: str = "alice") -> str:
        """The form tells how the last server ended, sooner or later; its text."""
        person = self.hub.browser(user)
        return str(eventually(lambda: words in (text := person.form().text) and text, f"the form tells: {words}"))

    def no_route(self, user: str = "alice") -> None:
        """Wait until the proxy has no route to a user's servers."""
        eventually(lambda: not [r for r in self.hub.routes() if r.startswith(f"/user/{user}/")], "no route")

    def looks(self, count: int = 2) -> None:
        """Wait until the hub has asked Slurm some more times."""
        before = len(self.commands.calls("squeue"))
        eventually(lambda: len(self.commands.calls("squeue")) >= before + count, f"{count} more looks", 60)

    def running(self, command: str) -> dict[int, str]:
        """Commands of this Slurm that run just now."""
        found = processes_with(f"SLURM_CONF={self.slurm.conf}\0")
        return {pid: line for pid, line in found.items() if command in line.split("--")[0]}

    def done(self, command: str, act: Callable[[], Any]) -> Any:
        """Do something, and wait until a command that it calls was called and has ended."""
        before = len(self.commands.calls(command))
        value = act()
        eventually(lambda: len(self.commands.calls(command)) > before, f"{command} is called")
        eventually(lambda: not self.running(command), f"{command} has ended", 60)
        return value

    # --- after a test

    def mend(self) -> None:
        """All works again as it should."""
        self.commands.mend()
        for daemon, start in {"slurmctld": self.slurm.start_controller, **self._nodes()}.items():
            if self.lives(daemon):
                self.slurm._signal(daemon, 18)  # SIGCONT
            else:
                start()
        eventually(lambda: self.slurm.run("scontrol", "ping").returncode == 0, "slurmctld answers")
        for node in NODES:
            self.slurm.resume(node)
            self.slurm.wait_for_node(node)
        self.open_gate()

    def _nodes(self) -> dict[str, Callable[[], None]]:
        return {node: lambda node=node: self.slurm.start_node(node) for node in NODES}  # type: ignore[misc]

    def lives(self, daemon: str) -> bool:
        """Whether a daemon runs, frozen or not."""
        name = "ctld/pid" if daemon == "slurmctld" else f"slurmd.{daemon}.pid"
        with suppress(OSError, ValueError):
            return alive(int((self.slurm.directory / "run" / name).read_text()))
        return False

    def settle(self) -> None:
        """Mend all, and stop all servers: then nothing may be left, in Slurm or on its nodes."""
        self.mend()
        hub = self.hub
        try:
            hub.stop_servers()
            nothing("Slurm's jobs", self.slurm.jobs)
            nothing("processes of jobs", self.slurm.processes)
        finally:
            self.slurm.cancel_all()
            hub.end_leftovers()
        if hub.site != self.site():
            hub.change_site(self.site())

    def tracebacks(self) -> list[str]:
        """What the hub stumbled over. JupyterHub itself does over the stop of a start: over the request that waits for
        that, and where it does not end within a second."""
        entries = re.split(r"(?m)^(?=\[[DIWEC] )", self.hub.new_log())
        own = ("CancelledError", "pending spawn\n")
        return [one for one in entries if "Traceback" in one and not any(text in one for text in own)]

    def close(self) -> None:
        if self._hub is not None:
            self._hub.stop()
        super().close()
        self.slurm.stop()


def nothing(what: str, look: Callable[[], Any]) -> None:
    """Wait until there is nothing of something; what there is where it stays."""
    try:
        eventually(lambda: not look())
    except AssertionError:
        raise AssertionError(f"{what} are left: {look()}") from None


def _json(answer: Any) -> Any:
    with suppress(json.JSONDecodeError, ValueError):
        return answer.json() if answer.status_code == 200 else {}
    return {}


def write(path: Path, text: str) -> Path:
    """A file that everybody may read."""
    path.write_text(text)
    path.chmod(0o644)
    return path
