"""A real HTCondor as an engine of the suite."""

from pathlib import Path
from typing import Any

from tests.conformance.rig import LocalRig, command_lines
from tests.htcondor import Condor


class HTCondorRig(LocalRig):
    """A pool of three nodes, all of them this machine: so images are those of the local engine."""

    name = "htcondor"

    def __init__(self, engines: dict[str, Any], **knobs: Any):
        super().__init__(engines)
        self.condor = Condor(**knobs).start()

    def part(self) -> dict[str, Any]:
        part = {
            "type": "htcondor",
            "title": "The engine",
            "poll_interval": "1s",
            "run_as": "runuser",
            "commands": {"paths": self.condor.paths, "environment": self.condor.env},
        }
        if self.engines["apptainer"]:
            part["apptainer"] = self.engines["apptainer"]
        return part

    def part_of_anybody(self) -> dict[str, Any]:
        return {**self.part(), "run_as": "none"}

    def hold(self) -> None:
        self.condor.drain()

    def release(self) -> None:
        self.condor.resume()

    def jobs(self, mark: str) -> list[str]:
        return [str(job.id) for job in self.condor.jobs(mark) if job.state != "completed"]

    def kill_job(self, mark: str) -> None:
        for job in self.jobs(mark):
            self.condor.command("condor_vacate_job", "-fast", job, check=False)
            self.condor.remove(int(job))

    def public_texts(self, session: str) -> dict[str, str]:
        other = self.users[1]
        texts = command_lines()
        for argv in (
            ["condor_q", "-allusers", "-long"],
            ["condor_history", "-long"],
            ["condor_history", "-epochs", "-long"],
            ["condor_status", "-long"],
        ):
            texts[" ".join(argv)] = self.condor.command(*argv, user=other, check=False)
        script = f"find {self.condor.directory} -type f -readable -exec cat {{}} + 2>/dev/null; true"
        texts["all that another user can read"] = self.condor.shell(script, user=other)
        logs = [one for one in Path(self.condor.directory, "log").rglob("*") if one.is_file()]
        texts["HTCondor's logs"] = "\n".join(one.read_text(errors="replace") for one in logs)
        return texts

    def close(self) -> None:
        super().close()
        self.condor.stop()
