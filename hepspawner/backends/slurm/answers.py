"""What Slurm's commands answer, read strictly: an answer that is not surely whole is no answer. Pure.

Formats and states as in Slurm 22.05, 24.11 and 26.05.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..base import BackendError, JobStatus, Phase, Tag
from ..batch import Listed
from ..tags import read_tag
from .words import end_of, reason_for_waiting

_HEADER = "JOBID|STATE|EXEC_HOST|START_TIME|RESTART_COUNT|EXIT_CODE|USER|REASON|COMMENT"
_FIELDS = ("JobID", "State", "BatchHost", "StartTime", "RestartCnt", "exit_code", "UserName", "Reason", "Comment")
FORMAT = ",".join(f"{name}:|" for name in _FIELDS)
"""For ``squeue -O``: each field as long as it is, and a bar behind it. The comment, which users may change, is last."""

_REQUEUED = {"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
_QUEUED = {"PENDING", "CONFIGURING", "RESV_DEL_HOLD", *_REQUEUED}
_RUNNING = {"RUNNING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "POWER_UP_NODE", "UPDATE_DB", "EXPEDITING"}
_LEAVING = {"COMPLETING", "STAGE_OUT", "LAUNCH_FAILED"}
_ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "BOOT_FAIL",
    "DEADLINE",
    "REVOKED",
    "RECONFIG_FAIL",
}


def rows(text: str, header: str) -> list[list[str]]:
    """The lines below the header of a table with a bar behind each field. Raises BackendError for anything else.

    The header proves that the command came so far; only the last field may hold bars.
    """
    columns = header.count("|") + 1
    lines = [line for line in text.splitlines() if not line.startswith("CLUSTER: ")]
    table = [line.split("|", columns - 1) for line in lines]
    if not table or any(len(one) != columns or not one[-1].endswith("|") for one in table):
        strange = next((line for line, one in zip(lines, table, strict=True) if len(one) != columns), "")
        raise BackendError(f"an answer that cannot be understood: {strange[:100] or 'nothing at all'!r}")
    if "|".join(table[0]) != header + "|":
        raise BackendError(f"an answer without its header: {lines[0][:100]!r}")
    return [[*one[:-1], one[-1][:-1]] for one in table[1:]]


def read_jobs(text: str, trusted: Callable[[str, Tag | None], Tag | None]) -> dict[str, Listed]:
    """The jobs of squeue's answer. Raises BackendError where it is not whole, or a job is in no known state."""
    jobs = {}
    for job, state, host, start, restarts, code, user, reason, comment in rows(text, _HEADER):
        if not job.isdigit():
            raise BackendError(f"an answer that cannot be understood: job {job[:50]!r}")
        status = _status(state, host, start, restarts, code, reason)
        jobs[job] = Listed(job, user, trusted(user, read_tag(comment)), status, state in _LEAVING)
    return jobs


def _status(state: str, host: str, start: str, restarts: str, code: str, reason: str) -> JobStatus:
    host = "" if host in ("n/a", "(null)") else host
    if state in _QUEUED:
        expected = float(start) if start.isdigit() and int(start) > 0 else None
        words = reason_for_waiting(reason if state != "CONFIGURING" else "Configuring")
        again = state in _REQUEUED or (restarts.isdigit() and int(restarts) > 0)
        return JobStatus(Phase.QUEUED, words.text, None, words.advice, words.hopeless, expected, again=again)
    if state in _RUNNING or state in _LEAVING:
        paused = "it is suspended: Slurm gave its node to another job" if state in ("SUSPENDED", "STOPPED") else ""
        return JobStatus(Phase.RUNNING, paused, host=host)
    if state not in _ENDED:
        # A state of a newer Slurm: surely no reason to give a server up.
        return JobStatus(Phase.UNKNOWN, f"Slurm says {state}", host=host)
    return end_of(state, _exit(code), host)


def _exit(code: str) -> tuple[int, int] | None:
    """Exit code and signal of Slurm's raw wait status, or of sacct's ``3:0``."""
    number, colon, signal = code.partition(":")
    if not number.isdigit() or (colon and not signal.isdigit()):
        return None
    return (int(number), int(signal)) if colon else (int(number) >> 8, int(number) & 127)


_UNNAMED = "allocation"
"""What slurmdbd calls a job before it heard of its name, which of one that ended soon it never does."""
SACCT_FORMAT = "jobid,state,exitcode,nodelist,jobname"


def read_accounting(text: str, name: str, name_of: Callable[[int], str]) -> dict[str, JobStatus]:
    """How jobs of a name ended, from the lines of ``sacct -n -P -X``. Those that go on are left out."""
    ends = {}
    for line in text.splitlines():
        job, state, code, host, called = [*line.split("|", 4), "", "", "", ""][:5]
        word, _, by = state.partition(" by ")
        if word in _ENDED and called in (name, _UNNAMED):
            who = name_of(int(by)) if by.isdigit() else ""
            ends[job] = end_of(word, _exit(code), host, who)
    return ends


def read_submission(text: str) -> str:
    """The job id of ``sbatch --parsable``: ``123`` or ``123;cluster``. Raises BackendError."""
    job = text.strip().splitlines()[-1].partition(";")[0] if text.strip() else ""
    if not job.isdigit():
        raise BackendError(f"sbatch gave no job id: {text[:100]!r}")
    return job


@dataclass(frozen=True)
class Node:
    """A node in one of its partitions, as sinfo shows it. Memory in MiB, times in seconds, None where there is none."""

    partition: str
    default: bool
    """Whether the partition is Slurm's default one."""
    usable: bool
    cores_free: int
    cores: int
    memory: int
    gres: Mapping[str, int]
    gres_used: Mapping[str, int]
    max_time: int | None
    default_time: int | None
    partition_up: bool


_NODE_HEADER = "PARTITION|STATE|CPUS(A/I/O/T)|MEMORY|GRES|GRES_USED|TIMELIMIT|DEFAULTTIME|AVAIL"
_NODE_FIELDS = "Partition StateLong CPUsState Memory Gres GresUsed Time DefaultTime Available"
NODE_FORMAT = ",".join(f"{name}:|" for name in _NODE_FIELDS.split())
QUEUE_HEADER, QUEUE_FORMAT = "PARTITION|TRES_PER_NODE", "Partition:|,tres-per-node:|"
_USABLE = ("idle", "mixed", "allocated", "completing", "planned")


def read_nodes(text: str) -> list[Node]:
    """The nodes of ``sinfo -N``, each once in each of its partitions. Raises BackendError."""
    nodes = []
    for partition, state, cpus, memory, gres, used, most, default, up in rows(text, _NODE_HEADER):
        counts = cpus.split("/")
        # A star says that it does not answer, the other signs that it is being powered, or kept for a job to come.
        usable = state.rstrip("~#$@^!%-").split("+")[0] in _USABLE and "+drain" not in state
        if len(counts) != 4 or not all(count.isdigit() for count in counts):
            raise BackendError(f"an answer that cannot be understood: {cpus[:50]!r} cores")
        nodes.append(
            Node(
                partition=partition.rstrip("*"),
                default=partition.endswith("*"),
                usable=usable,
                cores_free=int(counts[1]) if usable else 0,
                cores=int(counts[3]),
                memory=int(memory) if memory.isdigit() else 0,
                gres=_gres(gres),
                gres_used=_gres(used),
                max_time=read_time(most),
                default_time=read_time(default),
                partition_up=up == "up",
            )
        )
    return nodes


def read_time(text: str) -> int | None:
    """Seconds of ``1-00:00:00``, ``1:00:00`` or ``30:00``; None for ``infinite``, ``n/a`` and whatever else."""
    days, dash, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdigit() for part in parts) or (dash and not days.isdigit()) or not 2 <= len(parts) <= 3:
        return None
    hours, minutes, seconds = [0, *map(int, parts)][-3:]
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def _gres(text: str) -> dict[str, int]:
    """``gpu:a100:2(S:0),gpu:v100:1`` as counts by name and type. Where no count is given it is one."""
    found: dict[str, int] = {}
    for word in _outside_parentheses(text).split(","):
        name, _, count = word.rpartition(":")
        if not count.isdigit():
            name, count = word, "1"
        if name and name not in ("null", "N/A"):
            found[name] = found.get(name, 0) + int(count)
    return found


def _outside_parentheses(text: str) -> str:
    depth, kept = 0, []
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if not depth and letter != ")":
            kept.append(letter)
    return "".join(kept)


def count_of(gres: Mapping[str, int], wanted: str) -> int:
    """How many there are of ``gpu:a100``, or of ``gpu`` of any type."""
    return sum(count for name, count in gres.items() if name == wanted or name.startswith(wanted + ":"))
