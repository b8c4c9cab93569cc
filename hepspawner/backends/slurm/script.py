"""From a session to a job script. Pure: what stands in a ``#SBATCH`` line is words of known letters."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...templates import Templates
from ..accounts import Account
from ..base import Tag
from ..tags import write_tag
from .config import WORD, SlurmConfig

if TYPE_CHECKING:
    from ...session import Session

LAUNCHER = (Path(__file__).parents[2] / "node" / "launcher.py").read_text()
_PYTHON = "python3"


def job_name(hub: str) -> str:
    """The name that all jobs of a hub have: squeue is asked for it."""
    return f"jupyter-{hub}"


def warning(runtime: int | None) -> int:
    """Seconds before the time limit at which Slurm warns the launcher."""
    return max(5, min(60, (runtime or 3600) // 10))


def directives(config: SlurmConfig, session: "Session", tag: Tag, account: Account) -> list[str]:
    """The options of sbatch, a line each. Raises ValueError for what could be read as anything else."""
    options: dict[str, Any] = {
        "job-name": job_name(tag.hub),
        "comment": write_tag(tag),
        "chdir": "/",
        "output": log_path(config, account) or "/dev/null",
        "open-mode": "append",
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": session.cpus,
        "mem": session.memory and f"{-(-session.memory // 2**20)}M",
        "time": session.runtime and _time(session.runtime),
        "signal": f"B:USR1@{warning(session.runtime)}",
        "gres": gres(config, session.gpu, session.gpus),
        "partition": partition(config, session),
        "account": session.extra.get("account"),
        "qos": session.extra.get("qos"),
        "reservation": config.reservation,
        "constraint": config.constraint,
    }
    given = {name: str(value) for name, value in options.items() if value}
    for name, value in given.items():
        if not WORD.fullmatch(value):
            raise ValueError(f"{name}: {value!r} cannot stand in a job script")
    return ["--no-requeue", *(f"--{name}={value}" for name, value in given.items()), *config.directives]


def gres(config: SlurmConfig, kind: str | None, count: int) -> str | None:
    """The generic resource of so many GPUs of a kind, as ``gpu:a100:2``."""
    if not kind:
        return None
    gpu = config.gpus[kind]
    return f"{gpu.gres or ('gpu' if gpu.partition else f'gpu:{kind}')}:{count}"


def partition(config: SlurmConfig, session: "Session") -> str | None:
    """The partition of a session: the chosen one, else that of its GPU."""
    chosen = session.extra.get("partition")
    return str(chosen) if chosen else config.gpus[session.gpu].partition if session.gpu else None


def log_path(config: SlurmConfig, account: Account, job: str | None = None) -> str | None:
    """Where Slurm's own log of a job is; without a job as sbatch is told it. None where there is none."""
    if config.log is None:
        return None
    path = config.log.replace("{home}", account.home).replace("{username}", account.name)
    return path.replace("%j", job).replace("%u", account.name) if job else path


def _time(seconds: int) -> str:
    # Slurm counts in minutes, and rounds up.
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{seconds:02}"


def script(
    config: SlurmConfig,
    templates: Templates,
    session: "Session",
    tag: Tag,
    account: Account,
    job_input: dict[str, Any],
    launcher: str = LAUNCHER,
) -> str:
    """The job script, for sbatch's standard input. It holds no secret but the ticket, for its owner's eyes alone."""
    text = templates.render(
        "slurm.sh",
        directives=directives(config, session, tag, account),
        python=shlex.quote(config.python or _PYTHON),
        launcher=launcher.rstrip("\n"),
        job=json.dumps(job_input),
    )
    return text.rstrip("\n") + "\n"
