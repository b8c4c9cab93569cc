"""A real Slurm for tests and benchmarks: a cluster of three nodes on this machine, made by `tests/rigs/slurm`.

c1 and c2 are the partition cpu, g1 is the partition gpu and has two A100 that are not there. Only for root.
"""

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.machine import alive, connects, eventually, free_ports, processes_with

RIG = Path(__file__).parent / "rigs/slurm"
NODES = "c1,c2,g1"
NOTHING = subprocess.DEVNULL
COMMANDS = ("sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct", "sacctmgr")


class Job(NamedTuple):
    """What squeue says of a job."""

    id: int
    state: str
    reason: str
    user: str
    name: str
    node: str
    comment: str


class Slurm:
    """One cluster, with a directory (which users must be able to enter), ports and a name of its own."""

    def __init__(self, directory: Path | str | None = None, **knobs: Any):
        """`knobs`: those of up.sh, `DBD=1`, `MINJOBAGE=2`."""
        self.directory = Path(directory or tempfile.mkdtemp(prefix="slurm-"))
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        self.port = int(knobs.get("BASE_PORT") or free_ports(5))
        self.knobs = {"BASE_PORT": self.port, "CLUSTER": f"rig{self.port}", **knobs, "RIG": self.directory}
        self.name = str(self.knobs["CLUSTER"])
        self.conf = self.directory / "etc/slurm.conf"
        self.env = {"SLURM_CONF": str(self.conf)}

    def start(self) -> "Slurm":
        """Returns when all nodes are ready. Daemons that do not run any more are started again."""
        rc, said = self._script("./up.sh")
        if rc:
            logs = [path for path in (self.directory / "log").rglob("*") if path.is_file()]
            texts = [f"--- {path}\n{path.read_text(errors='replace')[-2000:]}" for path in logs]
            self.stop()
            raise AssertionError("\n".join([f"Slurm does not start: {said}", *texts]))
        return self

    def stop(self) -> None:
        """End all daemons and jobs, in whatever state they are, and remove the directory."""
        rc, said = self._script("./down.sh", "--purge")
        assert rc == 0, f"Slurm does not end: {said}"
        shutil.rmtree(self.directory, ignore_errors=True)

    def _script(self, *argv: str) -> tuple[int, str]:
        env = {**os.environ, **{key: str(value) for key, value in self.knobs.items()}}
        with tempfile.TemporaryFile("w+") as out:  # a pipe would stay open as long as the daemons
            rc = subprocess.call(argv, stdin=NOTHING, stdout=out, stderr=out, env=env, cwd=RIG, timeout=120)
            out.seek(0)
            return rc, out.read()

    def __enter__(self) -> "Slurm":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    # --- commands

    def run(self, *argv: str, user: str | None = None, stdin: str = "", timeout: float = 60) -> Any:
        """A command of Slurm, as root or as a user in their home, with all that comes of it."""
        command = ["runuser", "-u", user, "--", *argv] if user else argv
        cwd = pwd.getpwnam(user).pw_dir if user else "/"
        more: dict[str, Any] = {"capture_output": True, "text": True, "env": {**os.environ, **self.env}}
        return subprocess.run(command, input=stdin, timeout=timeout, cwd=cwd, **more)

    def command(self, *argv: str, user: str | None = None, check: bool = True, stdin: str = "") -> str:
        """What a command of Slurm prints."""
        done = self.run(*argv, user=user, stdin=stdin)
        assert not check or done.returncode == 0, f"{shlex.join(argv)}: exit {done.returncode}: {done.stderr}"
        return str(done.stdout)

    def submit(self, script: str, *options: str, user: str = "alice") -> int:
        """The id of a new job; its output goes nowhere unless the options say so."""
        argv = ["sbatch", "--parsable", "--output=/dev/null", *options]
        return int(self.command(*argv, user=user, stdin=f"#!/bin/sh\n{script}\n").partition(";")[0])

    def jobs(self, states: str = "PD,R,CG,S,CF", name: str | None = None) -> list[Job]:
        """The jobs in some states, by default those that have not ended; `all` for what Slurm still remembers."""
        argv = ["squeue", "-h", "-t", states, "-o", "%A|%T|%r|%u|%B|%j|%k", *([f"--name={name}"] if name else [])]
        found = []
        for line in self.command(*argv).splitlines():
            number, state, reason, user, node, job_name, comment = line.split("|", 6)
            found.append(Job(int(number), state, reason, user, job_name, node, comment))
        return found

    def job(self, number: int) -> Job | None:
        """A job, in whatever state, or None where Slurm does not know it any more."""
        return next((job for job in self.jobs("all") if job.id == number), None)

    def wait_for(self, number: int, *states: str) -> Job:
        """The job, as soon as it is in one of the states."""
        return eventually(lambda: (job := self.job(number)) and job.state in states and job, f"{number} is {states}")

    def cancel_all(self) -> None:
        """End all jobs, and wait until they are gone."""
        for partition in ("cpu", "gpu"):
            self.command("scancel", "-p", partition)
        eventually(lambda: not self.jobs(), "no job is left")

    # --- faults

    def _signal(self, daemon: str, number: int) -> int:
        name = "ctld/pid" if daemon == "slurmctld" else f"slurmd.{daemon}.pid"
        pid = int((self.directory / "run" / name).read_text())
        os.kill(pid, number)
        return pid

    def _end(self, daemon: str, number: int) -> None:
        self._signal(daemon, signal.SIGCONT)  # one that is frozen would not hear it
        pid = self._signal(daemon, number)
        eventually(lambda: not alive(pid), f"{daemon} is dead")

    def _start(self, *argv: str) -> None:
        command, env = [find(argv[0]), *argv[1:]], {**os.environ, **self.env, "SLURM_RIG": str(self.directory)}
        subprocess.run(command, stdin=NOTHING, stdout=NOTHING, stderr=NOTHING, env=env, check=True, timeout=60)

    def kill_controller(self, crash: bool = False) -> None:
        """End slurmctld, which saves its state; with `crash` it does not: jobs younger than 5 s are lost, those that
        were cancelled are back, job ids are given out again, and nodes end what the new controller does not know."""
        self._end("slurmctld", signal.SIGKILL if crash else signal.SIGTERM)

    def start_controller(self) -> None:
        """slurmctld, after it was killed; returns when it answers."""
        self._start("slurmctld")
        eventually(lambda: self.run("scontrol", "ping").returncode == 0, "slurmctld answers")

    def freeze_controller(self) -> None:
        """From now on slurmctld takes connections, but does not answer."""
        self._signal("slurmctld", signal.SIGSTOP)

    def thaw_controller(self) -> None:
        """It answers again, also what was asked meanwhile."""
        self._signal("slurmctld", signal.SIGCONT)

    def kill_node(self, node: str, jobs: bool = False) -> None:
        """SIGKILL for a node's slurmd, and with `jobs` for all that runs there, as when the power fails."""
        self._end(node, signal.SIGKILL)
        pids = list(self.processes(node=node)) if jobs else []
        for pid in [*filter(None, map(step_of, pids)), *pids]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def start_node(self, node: str) -> None:
        """A node's slurmd, after it was killed; returns when it answers and the controller takes it for ready."""
        self._start("slurmd", "-N", node)
        port = self.port + 2 + NODES.split(",").index(node)
        eventually(lambda: connects(port), f"{node} answers")
        self.wait_for_node(node)

    def wait_for_node(self, node: str) -> None:
        """Until the node is ready for jobs."""
        eventually(lambda: self.command("sinfo", "-h", "-n", node, "-t", "idle,mix,alloc"), f"{node} is ready", 60)

    def freeze_node(self, node: str) -> None:
        """From now on the node's slurmd does not answer; its jobs run on."""
        self._signal(node, signal.SIGSTOP)

    def thaw_node(self, node: str) -> None:
        """It answers again."""
        self._signal(node, signal.SIGCONT)

    def drain(self, nodes: str = NODES) -> None:
        """New jobs stay queued."""
        self.command("scontrol", "update", f"nodename={nodes}", "state=drain", "reason=tests")

    def resume(self, nodes: str = NODES) -> None:
        """They start."""
        self.command("scontrol", "update", f"nodename={nodes}", "state=resume", check=False)

    def processes(self, number: int | None = None, node: str | None = None) -> dict[int, str]:
        """Pids and commands of what runs for jobs, as far as it kept the job's environment."""
        found = processes_with(f"SLURM_CLUSTER_NAME={self.name}\0")
        wanted = {f"SLURM_JOB_ID={number}"} if number else set()
        wanted |= {f"SLURMD_NODENAME={node}"} if node else set()
        return {pid: text for pid, text in found.items() if wanted <= environment(pid)}

    # --- accounting, with DBD=1

    def account(self, *argv: str) -> str:
        """sacctmgr, which is not asked whether it means it: `account("add", "qos", "night")`."""
        return self.command("sacctmgr", "-i", "-Q", *argv)

    def add_account(self, account: str, *users: str) -> None:
        """An account, and users that may have it; alice and bob have physics."""
        self.account("add", "account", account, f"Cluster={self.name}", f"Description={account}")
        for user in users:
            self.account("add", "user", user, f"Account={account}", f"Cluster={self.name}")

    def limit(self, user: str, **limits: object) -> None:
        """What a user may do: `limit("alice", MaxSubmitJobs=1)`; -1 for no limit."""
        words = [f"{key}={value}" for key, value in limits.items()]
        self.account("modify", "user", "where", f"name={user}", f"cluster={self.name}", "set", *words)


class Commands:
    """A directory with commands, Slurm's or others, each of which notes that it was called, and can be made to
    misbehave."""

    def __init__(self, directory: Path | str, names: tuple[str, ...] = COMMANDS, path: str | None = None):
        """`path`: where the real ones are; absent: in PATH."""
        self.directory, self.log, self.names = Path(directory), Path(directory) / "log", names
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o755)
        self.log.touch()
        self.log.chmod(0o666)
        for name in names:
            real = shutil.which(name, path=path)
            wrapper = self.directory / name
            # nothing but what the shell does by itself: a process more would show in what is measured
            wrapper.write_text(
                f"#!/bin/sh\nreal={real}\nread -r now _ </proc/uptime\n"
                f'printf "%s\\t{name}\\t%s\\n" "$now" "$*" >>{self.log}\n'
                f"[ ! -e {self.directory}/{name}.fault ] || {{ . {self.directory}/{name}.fault; exit; }}\n"
                f'exec {real} "$@"\n'
            )
            wrapper.chmod(0o755)

    def calls(self, *names: str) -> list[tuple[float, str, str]]:
        """When (seconds since the machine started), which command, and with what it was called."""
        lines = [line.split("\t", 2) for line in self.log.read_text(errors="replace").splitlines()]
        calls = [(float(line[0]), line[1], line[2]) for line in lines if len(line) == 3]
        return [call for call in calls if not names or call[1] in names]

    def clear(self) -> None:
        """Forget the calls."""
        os.truncate(self.log, 0)

    def break_(self, name: str, snippet: str) -> None:
        """From now on the shell runs this in place of a command; in it `"$real" "$@"` is what was called."""
        new = self.directory / f"{name}.new"
        new.write_text(snippet + "\n")
        new.chmod(0o644)
        new.rename(self.directory / f"{name}.fault")

    def mend(self, *names: str) -> None:
        """These commands, or all, are as they should be."""
        for name in names or self.names:
            (self.directory / f"{name}.fault").unlink(missing_ok=True)


def counting_commands(directory: Path | str) -> Commands:
    """Wrappers of Slurm's commands in a directory, which is to come first in PATH. Others must be able to enter it."""
    return Commands(directory)


def find(name: str) -> str:
    """Where a program is, also where the daemons are; empty where there is none."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


def step_of(pid: int) -> int | None:
    """The slurmstepd that started a process by itself."""
    with suppress(OSError):
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return parent if Path(f"/proc/{parent}/comm").read_text() == "slurmstepd\n" else None
    return None


def environment(pid: int) -> set[str]:
    """What a process was started with; nothing where it is gone."""
    with suppress(OSError):
        return set(Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0"))
    return set()
