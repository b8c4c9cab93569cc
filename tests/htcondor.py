"""A real HTCondor for tests and benchmarks: a pool of three nodes on this machine, made by `tests/rigs/htcondor`.

node1 and node3 have two A100 each that are not there, node2 has none. Only for root.
"""

import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import RIGS
from tests.machine import alive, eventually, free_port, processes_with
from tests.slurm import Commands

RIG = Path(__file__).parent / "rigs/htcondor"
HTCONDOR = RIGS / "htcondor"
BIN = HTCONDOR / "usr/bin"
PATH = f"{BIN}:{HTCONDOR / 'usr/sbin'}"
NOTHING = subprocess.DEVNULL
COMMANDS = (
    "condor_submit",
    "condor_q",
    "condor_rm",
    "condor_history",
    "condor_status",
    "condor_token_create",
    "condor_transfer_data",
)
STATES = {1: "idle", 2: "running", 3: "removed", 4: "completed", 5: "held", 6: "transferring", 7: "suspended"}
DAEMONS = ("master", "collector", "negotiator", "schedd", "startd", "startd_node2", "startd_node3")


class Job(NamedTuple):
    """What condor_q says of a job."""

    id: int
    state: str
    user: str
    tag: str
    hold: str
    ad: dict[str, Any]


class Condor:
    """One pool, with a directory (which users must be able to enter) and a port of its own."""

    def __init__(self, directory: Path | str | None = None, **knobs: Any):
        """`knobs`: those of up.sh, `CPUS=4`, `EXTRA_CONF="START = False"`."""
        self.directory = Path(directory or tempfile.mkdtemp(prefix="condor-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        self.port = int(knobs.get("PORT") or free_port())
        self.knobs = {"PORT": self.port, **knobs, "POOL": self.directory, "HTCONDOR": HTCONDOR}
        self.conf = self.directory / "etc/condor_config"
        self.env = {"CONDOR_CONFIG": str(self.conf)}
        self.paths = {name: str(BIN / name) for name in COMMANDS}
        """Where the commands are, as a site says it."""

    def start(self) -> "Condor":
        """Returns when all nodes, schedd and negotiator are known. A pool that does not run any more is started."""
        rc, said = self._script("./up.sh")
        if rc:
            logs = [
                f"--- {path}\n{path.read_text(errors='replace')[-2000:]}" for path in self.directory.glob("log/*Log")
            ]
            self.stop()
            raise AssertionError("\n".join([f"HTCondor does not start: {said}", *logs]))
        return self

    def stop(self) -> None:
        """End all daemons and jobs, in whatever state they are, and remove the directory."""
        rc, said = self._script("./down.sh", "--purge")
        assert rc == 0, f"HTCondor does not end: {said}"
        shutil.rmtree(self.directory, ignore_errors=True)

    def _script(self, *argv: str) -> tuple[int, str]:
        env = {**os.environ, **{key: str(value) for key, value in self.knobs.items()}}
        with tempfile.TemporaryFile("w+") as out:  # a pipe would stay open as long as the daemons
            rc = subprocess.call(argv, stdin=NOTHING, stdout=out, stderr=out, env=env, cwd=RIG, timeout=120)
            out.seek(0)
            return rc, out.read()

    def __enter__(self) -> "Condor":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    # --- commands

    def run(self, *argv: str, user: str | None = None, stdin: str = "", timeout: float = 60) -> Any:
        """A command of HTCondor, as root or as a user in their home, with all that comes of it."""
        argv = (shutil.which(argv[0], path=PATH) or argv[0], *argv[1:])
        command = ["runuser", "-u", user, "--", *argv] if user else argv
        cwd = pwd.getpwnam(user).pw_dir if user else "/"
        more: dict[str, Any] = {"capture_output": True, "text": True, "env": {**os.environ, **self.env}}
        return subprocess.run(command, input=stdin, timeout=timeout, cwd=cwd, **more)

    def command(self, *argv: str, user: str | None = None, check: bool = True, stdin: str = "") -> str:
        """What a command of HTCondor prints."""
        done = self.run(*argv, user=user, stdin=stdin)
        assert not check or done.returncode == 0, f"{shlex.join(argv)}: exit {done.returncode}: {done.stderr}"
        return str(done.stdout)

    def shell(self, script: str, user: str) -> str:
        """What a script of the shell prints, run by a user."""
        argv = ["runuser", "-u", user, "--", "sh", "-c", script]
        return subprocess.run(argv, capture_output=True, text=True, errors="replace", cwd="/", timeout=60).stdout

    def reconfigure(self) -> None:
        """All daemons read their configuration again, and what they know of accounts."""
        self.command("condor_reconfig", "-all")

    def configure(self, *lines: str) -> None:
        """More lines of the configuration from now on, in place of those that were given so before."""
        mark = "# of a test"
        text = self.conf.read_text().partition(mark)[0]
        self.conf.write_text("\n".join([text + mark, *lines, ""]))
        self.reconfigure()

    def submit(self, description: str, user: str = "alice", count: int = 1) -> int:
        """The id of a new cluster; a description is lines as for condor_submit, without the line queue."""
        text = f"{description}\nqueue {count}\n"
        return int(self.command("condor_submit", "-terse", user=user, stdin=text).partition(".")[0])

    def sleeper(self, *lines: str, user: str = "alice", count: int = 1) -> int:
        """The id of a new job that sleeps."""
        own = ["executable = /bin/sleep", "arguments = 3600", "transfer_executable = false", "initialdir = /"]
        return self.submit("\n".join([*own, *lines]), user, count)

    def jobs(self, mark: str = "") -> list[Job]:
        """The jobs in the queue whose tag holds a text."""
        text = self.command("condor_q", "-allusers", "-json")
        jobs = []
        for ad in json.loads(text or "[]"):
            state, tag = STATES[ad["JobStatus"]], ad.get("HEPSpawnerTag", "")
            jobs.append(Job(ad["ClusterId"], state, ad.get("Owner", ""), tag, ad.get("HoldReason", ""), ad))
        return [job for job in jobs if mark in job.tag]

    def job(self, number: int) -> Job | None:
        """A job of the queue, or None."""
        return next((job for job in self.jobs() if job.id == number), None)

    def wait_for(self, number: int, *states: str) -> Job:
        """The job, as soon as it is in one of the states."""
        return eventually(lambda: (job := self.job(number)) and job.state in states and job, f"{number} is {states}")

    def past(self, number: int) -> dict[str, Any]:
        """A job's last ad in the history; empty where it is not there."""
        text = self.command("condor_history", "-json", str(number))
        return dict(next(iter(json.loads(text or "[]")), {}))

    def hold(self, number: int) -> None:
        """condor_hold, by root."""
        self.command("condor_hold", str(number))

    def release(self, number: int) -> None:
        """condor_release, by root."""
        self.command("condor_release", str(number))

    def remove(self, number: int) -> None:
        """condor_rm, by root."""
        self.command("condor_rm", str(number), check=False)

    def remove_all(self) -> None:
        """End all jobs, and wait until they are gone."""
        self.command("condor_rm", "-all", check=False)
        try:
            eventually(lambda: not self.jobs(), "no job is left", 20)
        except AssertionError:
            # Not at once: the nodes would keep room for what is forgotten here.
            self.command("condor_rm", "-forcex", "-all", check=False)
            eventually(lambda: not self.jobs(), "no job is left")

    # --- faults

    def pid(self, daemon: str) -> int:
        """The pid of a daemon (`DAEMONS`)."""
        pid = self._find(daemon)
        assert pid, f"{daemon} does not run"
        return pid

    def _find(self, daemon: str) -> int | None:
        if daemon == "master":
            return int((self.directory / "run/master.pid").read_text())
        name, _, node = daemon.partition("_")
        for entry, line in processes_with(f"CONDOR_CONFIG={self.conf}\0").items():
            argv = line.split(" ")
            if os.path.basename(argv[0]) == f"condor_{name}" and (node in argv if node else "-local-name" not in argv):
                return entry
        return None

    def kill(self, daemon: str) -> None:
        """SIGKILL for a daemon; the master starts another soon, unless it is stopped."""
        pid = self.pid(daemon)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not alive(pid), f"{daemon} is dead")

    def off(self, daemon: str) -> None:
        """End a daemon (schedd, negotiator, startd: all of them), which the master does not start again."""
        self.command("condor_off", "-fast", f"-{daemon}")
        eventually(lambda: not self._find(daemon), f"{daemon} is off")

    def on(self, daemon: str) -> None:
        """A daemon that is off is started; returns when it answers."""
        self.command("condor_on", f"-{daemon}")
        eventually(lambda: self.run("condor_status", f"-{daemon}", "-af", "Name").stdout.strip(), f"{daemon} is known")
        if daemon == "schedd":
            eventually(lambda: self.run("condor_q").returncode == 0, "the schedd answers")

    def startd_of(self, number: int) -> str:
        """The daemon (`DAEMONS`) of the node where a job runs."""
        node = self.wait_for(number, "running").ad["RemoteHost"].split("@")[1]
        return "startd" if node == "node1" else f"startd_{node}"

    def mend(self) -> None:
        """All daemons answer, and are configured as at the start."""
        for daemon in DAEMONS:
            self.thaw(daemon)
        if "# of a test" in self.conf.read_text():
            self.configure()

    def freeze(self, daemon: str) -> None:
        """From now on a daemon takes connections, but does not answer."""
        os.kill(self.pid(daemon), signal.SIGSTOP)

    def thaw(self, daemon: str) -> None:
        """It answers again, also what was asked meanwhile; one that was killed is waited for."""
        os.kill(eventually(lambda: self._find(daemon), f"{daemon} runs"), signal.SIGCONT)

    def drain(self) -> None:
        """New jobs stay queued: nobody matches them."""
        os.kill(self.pid("negotiator"), signal.SIGSTOP)

    def resume(self) -> None:
        """They start."""
        os.kill(self.pid("negotiator"), signal.SIGCONT)

    def commands(self, name: str) -> dict[int, str]:
        """Commands of HTCondor that run just now."""
        found = processes_with(f"CONDOR_CONFIG={self.conf}\0")
        return {pid: line for pid, line in found.items() if os.path.basename(line.split(" ")[0]) == name}

    def processes(self) -> dict[int, str]:
        """Pids and commands of what runs for jobs, as far as it kept the job's environment."""
        return processes_with(f"{self.directory}/execute/")


def counting_commands(directory: Path | str) -> Commands:
    """Wrappers of HTCondor's commands in a directory, for a site's key `commands.paths`. Others must be able to enter
    it."""
    return Commands(directory, COMMANDS, str(BIN))
