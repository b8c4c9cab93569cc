"""A real Slurm as an engine of the suite."""

import subprocess
from typing import Any

from tests.conformance.rig import LocalRig, command_lines
from tests.slurm import Slurm


class SlurmRig(LocalRig):
    """A cluster of three nodes, all of them this machine: so images are those of the local engine."""

    name = "slurm"

    def __init__(self, engines: dict[str, Any], **knobs: Any):
        super().__init__(engines)
        # It would remember an account's groups for ten minutes.
        self.slurm = Slurm(KILLWAIT=2, EXTRA_CONF="GroupUpdateTime=0", **knobs).start()

    def part(self) -> dict[str, Any]:
        part = {
            "type": "slurm",
            "title": "The engine",
            "poll_interval": "1s",
            "run_as": "runuser",
            "commands": {"environment": self.slurm.env},
        }
        if self.engines["apptainer"]:
            part["apptainer"] = self.engines["apptainer"]
        return part

    def part_of_anybody(self) -> dict[str, Any]:
        return {**self.part(), "run_as": "none"}

    def hold(self) -> None:
        self.slurm.drain()

    def release(self) -> None:
        self.slurm.resume()

    def jobs(self, mark: str) -> list[str]:
        return [str(job.id) for job in self.slurm.jobs() if mark in job.comment]

    def kill_job(self, mark: str) -> None:
        for job in self.jobs(mark):
            self.slurm.command("scancel", "--signal=KILL", "--full", job, check=False)
            self.slurm.command("scancel", job)

    def public_texts(self, session: str) -> dict[str, str]:
        other = self.users[1]
        texts = command_lines()
        for job in self.jobs(session):
            for argv in (["squeue", "--Format=:all", "-j", job], ["scontrol", "show", "job", "-dd", job]):
                texts[" ".join(argv)] = self.slurm.command(*argv, user=other, check=False)
            written = self.slurm.run("scontrol", "write", "batch_script", job, "-", user=other)
            texts["the job's script"] = written.stdout + written.stderr
            assert "Invalid user id" in written.stderr, "another user may read the job's script"
        log = self.slurm.directory / "log"
        shown = subprocess.run(["cat", *(str(one) for one in log.rglob("*.log"))], capture_output=True, text=True)
        texts["Slurm's logs"] = shown.stdout
        return texts

    def close(self) -> None:
        super().close()
        self.slurm.stop()
