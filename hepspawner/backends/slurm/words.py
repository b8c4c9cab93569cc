"""Slurm's words in a physicist's. Pure; `docs/slurm.md` shows the table of reasons."""

from collections.abc import Callable
from typing import NamedTuple

from ..base import JobStatus, Phase
from ..exits import LAUNCHER_EXITS


class Waiting(NamedTuple):
    """Why a job waits, what to do about it, and whether it will wait for ever."""

    text: str
    advice: str = ""
    hopeless: bool = False


_TIME = "Ask for less time, or choose another partition."
_SIZE = "Ask for fewer cores, less memory or fewer GPUs, or choose another partition."
_ADMINS = "Tell the site's admins."
_PATIENCE = "Wait, or stop a server or job of yours."

# What Slurm says (squeue's REASON, the same words since 22.05) → what it means.
REASONS: dict[str, Waiting] = {
    "None": Waiting("the scheduler has not looked at it yet"),
    "Priority": Waiting("others are before it in the queue"),
    "Resources": Waiting("it is next, as soon as a node with enough room is free"),
    "Configuring": Waiting("its node is being prepared"),
    "Prolog": Waiting("its node is being prepared"),
    "Cleaning": Waiting("its last node is being put in order"),
    "BeginTime": Waiting("it may not begin yet"),
    "Dependency": Waiting("it waits for another job"),
    "Licenses": Waiting("a licence is in use"),
    "JobHeldUser": Waiting("it is held", "You or an admin held it: `scontrol release` lets it go on."),
    "JobHeldAdmin": Waiting("an admin holds it", _ADMINS),
    "Reservation": Waiting("its reservation has not begun"),
    "ReservationMaintenance": Waiting("the cluster is being maintained"),
    "NodeDown": Waiting("the node it needs is down"),
    "ReqNodeNotAvail": Waiting("no node that it could use is available: down, drained or reserved"),
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": Waiting(
        "the nodes that it could use are down, drained or reserved"
    ),
    "PartitionDown": Waiting("its partition is closed at the moment"),
    "PartitionInactive": Waiting("its partition is switched off", "Choose another partition, or tell the admins."),
    "FrontEndDown": Waiting("the cluster's front end is down"),
    "SystemFailure": Waiting("Slurm itself has a problem", _ADMINS),
    "JobLaunchFailure": Waiting("its node could not start it", _ADMINS),
    "JobHoldMaxRequeue": Waiting("it failed to start too often", _ADMINS, True),
    "launch failed requeued held": Waiting("its node could not start it", _ADMINS, True),
    "PartitionTimeLimit": Waiting("the time asked for is more than its partition allows", _TIME, True),
    "PartitionNodeLimit": Waiting("what was asked for is more than its partition has", _SIZE, True),
    "PartitionConfig": Waiting("its partition does not allow what was asked for", _SIZE, True),
    "BadConstraints": Waiting("no node has what was asked for", _SIZE, True),
    "DependencyNeverSatisfied": Waiting("the job that it waits for failed", _ADMINS, True),
    "ReservationDeleted": Waiting("its reservation was deleted", _ADMINS, True),
    "AccountNotAllowed": Waiting("its account may not use the partition", "Choose another account.", True),
    "InvalidAccount": Waiting("its account is not valid", "Choose another account.", True),
    "QOSNotAllowed": Waiting("its quality of service is not allowed there", "Choose another one.", True),
    "InvalidQOS": Waiting("its quality of service is not valid", "Choose another one.", True),
    "DeadLine": Waiting("it cannot end before its deadline", _ADMINS, True),
}

# Limits: of the account or user (Assoc…) and of the quality of service (QOS…). All jobs count: wait for the others.
_LIMITS = (
    ("JobsLimit", "as many jobs as are allowed run already"),
    ("SubmitJobLimit", "as many jobs as are allowed are there already"),
    ("CpuLimit", "as many cores as are allowed are in use"),
    ("CPU", "as many cores as are allowed are in use"),
    ("MemLimit", "as much memory as is allowed is in use"),
    ("Mem", "as much memory as is allowed is in use"),
    ("GRES", "as many GPUs as are allowed are in use"),
    ("NodeLimit", "as many nodes as are allowed are in use"),
    ("WallDurationPerJob", "the time asked for is more than is allowed"),
    ("Minutes", "the computing time granted is used up"),
    ("Runtime", "the computing time granted is used up"),
)


def reason_for_waiting(raw: str) -> Waiting:
    """A reason in plain words, with Slurm's own beside it."""
    key = raw.partition(",")[0].strip()  # "ReqNodeNotAvail, UnavailableNodes:c[1-2]"
    known = REASONS.get(raw) or REASONS.get(key) or _limit(key)
    if known is None:
        return Waiting(f"Slurm says: {raw[:200]}")
    shown = raw[:200]
    return known if shown in ("None", "Configuring") else known._replace(text=f"{known.text} ({shown})")


def _limit(key: str) -> Waiting | None:
    # Names are many: AssocGrpCpuLimit, QOSMaxGRESPerUser, MaxCpuPerAccount…
    if not key.startswith(("Assoc", "QOS", "Max", "Grp")):
        return None
    whose = "your account" if key.startswith("Assoc") else "its quality of service"
    words = next((words for part, words in _LIMITS if part in key), "a limit is reached")
    too_long = "WallDurationPerJob" in key or "PerJob" in key
    return Waiting(f"{words}, by {whose}", _SIZE if too_long else _PATIENCE, hopeless=too_long)


def end_of(state: str, code: tuple[int, int] | None, host: str, who: str = "") -> JobStatus:
    """How a job ended, from its state, exit code and signal, node, and who cancelled it."""
    exit_code, signal = code or (0, 0)
    where = f" {host}" if host else ""

    def ended(text: str, advice: str = "", exit_code: int | None = None) -> JobStatus:
        return JobStatus(Phase.ENDED, f"{text} ({state})", exit_code, advice, host=host)

    if state == "TIMEOUT":
        return ended("its time was over", "Ask for more time, or save your work earlier.")
    if state == "OUT_OF_MEMORY":
        return ended("it needed more memory than was asked for", "Ask for more memory.")
    if state == "NODE_FAIL":
        return ended(f"its node{where} failed", "Start it again: it gets another node.")
    if state == "BOOT_FAIL":
        return ended(f"its node{where} could not be booted", "Start it again: it gets another node.")
    if state == "CANCELLED":
        by = f"{who} cancelled the job" if who else "the job was cancelled, not by this hub"
        return ended(by, "Ask the site's admins if it was not you.")
    if state == "PREEMPTED":
        return ended("a job of higher priority took its place", "Start it again, perhaps in another partition.")
    if state == "DEADLINE":
        return ended("it could not end before its deadline", _ADMINS)
    if state == "COMPLETED":
        return ended("the job ended", exit_code=0)
    return _failure(exit_code, signal, where, ended)


_NO_OUTPUT = 53
"""What Slurm gives as the signal where it could not open the job's log: "JobLaunchFailure", as for any signal."""


def _failure(exit_code: int, signal: int, where: str, ended: Callable[..., JobStatus]) -> JobStatus:
    if signal == _NO_OUTPUT or exit_code > 255:
        advice = "Tell the site's admins: perhaps its log (the backend's key log) cannot be written."
        return ended(f"its node{where} could not start the job", advice)
    if signal == 9:
        text = "it was killed by signal 9, most likely because it needed more memory than was asked for"
        return ended(text, "Ask for more memory.", 137)
    if signal:
        return ended(f"it was killed by signal {signal}", exit_code=128 + signal)
    if exit_code in LAUNCHER_EXITS:
        return ended(*LAUNCHER_EXITS[exit_code], exit_code)
    return ended(f"the job ended with exit code {exit_code}" if exit_code else "the job failed", "", exit_code or 1)
