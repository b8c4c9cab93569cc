"""HTCondor's words in a physicist's. Pure; `docs/htcondor.md` shows the holds."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..base import JobStatus, Phase
from ..exits import LAUNCHER_EXITS

_ADMINS = "Tell the site's admins."
_MEMORY = ("it needed more memory than was asked for", "Ask for more memory.")
_TIME = ("its time was over", "Ask for more time, or save your work earlier.")
_BY = re.compile(r"\(by user ([^)\s]+)\)")
_SHOWN = 300
BY_USER, SPOOLING = 1, 16
_SPOOLING_PATIENCE = 300
_ATTEMPTS = 3


class Words(NamedTuple):
    """What happened, and what to do about it."""

    text: str
    advice: str = ""


# HoldReasonCode → what it means.
HOLDS: dict[int, Words] = {
    3: Words("the pool's rules hold it", _ADMINS),
    4: Words("its credential is not valid any more", "Start it again; if that fails too, tell the site's admins."),
    5: Words("the pool's rules cannot be applied to it", _ADMINS),
    6: Words("its node could not run the job's Python", "Tell the site's admins: the key python names another."),
    7: Words("its log could not be written", _ADMINS),
    8: Words("its node could not read the job's input", _ADMINS),
    9: Words("its log could not be written", _ADMINS),
    10: Words("its node could not read the job's input", _ADMINS),
    11: Words("its files could not be sent to the node", _ADMINS),
    12: Words("what it wrote could not be brought back", "Perhaps a disk is full. " + _ADMINS),
    13: Words("its files could not be sent to the node", _ADMINS),
    14: Words("its directory cannot be entered", _ADMINS),
    18: Words("its files could not be sent to the node", _ADMINS),
    19: Words("its node refused to prepare the job", _ADMINS),
    21: Words("its node gave it up", _ADMINS),
    23: Words("your account cannot be used", _ADMINS),
    26: Words("the pool's rules hold it", _ADMINS),
    27: Words("the pool's rules cannot be applied to it", _ADMINS),
    32: Words("its files are more than the pool sends", _ADMINS),
    33: Words("what it wrote is more than the pool brings back", _ADMINS),
    34: Words("it needed more than was asked for", "Ask for more memory or disk."),
    35: Words("its image could not be had", _ADMINS),
    46: Words(*_TIME),
    47: Words(*_TIME),
    48: Words("it could not be prepared", _ADMINS),
}


def held(ad: Mapping[str, Any], now: float) -> JobStatus:
    """What a hold means. HTCondor's own are the end; a person may have meant a pause of a job that never ran."""
    code, said = ad.get("HoldReasonCode"), str(ad.get("HoldReason") or "")
    if code == SPOOLING:
        now = _number(ad.get("ServerTime"), now)  # whose clock is that of the other
        if now - _number(ad.get("EnteredCurrentStatus"), now) < _SPOOLING_PATIENCE:
            return JobStatus(Phase.QUEUED, "its files are being sent to the scheduler")
        return JobStatus(Phase.ENDED, "its files did not arrive at the scheduler", None, "Start it again.")
    if code == BY_USER:
        by = _BY.search(said)
        who = f"{by[1]} holds it" if by else "it is held"
        if not ad.get("NumJobStarts"):
            return JobStatus(Phase.QUEUED, who, None, "`condor_release` lets it go on.")
        return JobStatus(Phase.ENDED, f"{who}, which ended it", None, "Ask the site's admins if it was not you.")
    words = HOLDS.get(code) if isinstance(code, int) else None
    if "memory usage exceeded" in said.lower():
        words = Words(*_MEMORY)
    elif "disk" in said.lower() and code in (21, 34):
        words = Words("it needed more disk than was asked for", "Ask for more disk.")
    elif "singularity" in said.lower() or "apptainer" in said.lower():
        words = HOLDS[35]
    return _ended(words or Words("HTCondor holds it", _ADMINS), said, ad)


def _ended(words: Words, said: str, ad: Mapping[str, Any], exit_code: int | None = None) -> JobStatus:
    plain = " ".join(said.split())[:_SHOWN]
    text = f"{words.text} (HTCondor says: {plain})" if plain else words.text
    return JobStatus(Phase.ENDED, text, exit_code, words.advice, host=host_of(ad))


def waiting(ad: Mapping[str, Any], blame: str = "", idle: Mapping[str, int] | None = None) -> JobStatus:
    """Why an idle job waits. `blame`: the conditions that no machine meets, where that was asked; `idle`: how many
    jobs of each submitter wait, where that is known."""
    again, attempts = bool(ad.get("NumJobStarts")), _number(ad.get("NumShadowStarts"), 0)
    if attempts >= _ATTEMPTS and not again:
        text = f"{attempts:.0f} nodes in turn could not start it"
        said = str(ad.get("LastVacateReason") or ad.get("VacateReason") or "")
        return JobStatus(
            Phase.QUEUED, f"{text} ({' '.join(said.split())[:_SHOWN]})" if said else text, None, _ADMINS, hopeless=True
        )
    if again:
        return JobStatus(Phase.QUEUED, "it was sent back to the queue", again=True)
    rejected, said = _number(ad.get("LastRejMatchTime"), 0), str(ad.get("LastRejMatchReason") or "")
    if blame:
        advice = "Ask for less, or for another kind of GPU; if that does not help, tell the site's admins."
        return JobStatus(Phase.QUEUED, f"no machine of the pool has what it needs: {blame}", None, advice)
    if rejected < _number(ad.get("LastMatchTime"), 0) or not rejected:
        if ad.get("LastMatchTime") is not None:
            return JobStatus(Phase.QUEUED, "a node was found for it")
        text = "the pool has not looked at it yet"
    else:
        text = _rejection(said)
    return JobStatus(Phase.QUEUED, "; ".join(filter(None, [text, _crowd(idle or {}, str(ad.get("Owner", "")))])))


def _crowd(idle: Mapping[str, int], user: str) -> str:
    # HTCondor has no positions: who is next is decided in each negotiation.
    everybody, own = sum(idle.values()), 0
    for submitter, count in idle.items():  # alice@example.org, group.alice@example.org
        name = submitter.rpartition("@")[0].lower()
        own += count if name == user.lower() or name.endswith(f".{user.lower()}") else 0
    if everybody < 2:
        return ""
    return f"{everybody} jobs wait in the pool" + (f", {own} of them yours" if own > 1 else "")


# What the negotiator says, a part of it → what it means.
_REJECTIONS = (
    ("no match found", "no machine has enough room free"),
    ("insufficient priority", "others are before it: the machines that it could use run jobs of theirs"),
    ("submitter limit", "your share of the pool is in use: it waits for your other jobs, or for others'"),
    ("group quota", "the share of its accounting group is in use"),
    ("concurrency limit", "as many jobs of its kind as are allowed run already"),
    ("preempt", "others are before it: the machines that it could use run jobs of theirs"),
)


def _rejection(said: str) -> str:
    known = next((words for part, words in _REJECTIONS if part in said.lower()), "it waits")
    return f"{known} ({said[:_SHOWN]})" if said else known


def end_of(ad: Mapping[str, Any], now: float = 0) -> JobStatus:
    """How a job ended, from its last ad."""
    if ad.get("JobStatus") == 4:
        return _completed(ad)
    if ad.get("HoldReason") and ad.get("HoldReasonCode") != BY_USER:
        return held({**ad, "EnteredCurrentStatus": 0}, now)
    said = str(ad.get("RemoveReason") or "")
    by = _BY.search(said)
    if by:
        return JobStatus(
            Phase.ENDED, f"{by[1]} removed the job", None, "Ask the site's admins if it was not you.", host=host_of(ad)
        )
    return _ended(Words("the pool's rules removed the job" if said else "the job was removed", _ADMINS), said, ad)


def _completed(ad: Mapping[str, Any]) -> JobStatus:
    if ad.get("ExitBySignal"):
        number = int(_number(ad.get("ExitSignal"), 0))
        if number == 9:
            text = "it was killed by signal 9, most likely because it needed more memory than was asked for"
            return JobStatus(Phase.ENDED, text, 137, "Ask for more memory.", host=host_of(ad))
        return JobStatus(Phase.ENDED, f"it was killed by signal {number}", 128 + number, host=host_of(ad))
    code = int(_number(ad.get("ExitCode"), 1))
    if code in LAUNCHER_EXITS:
        text, advice = LAUNCHER_EXITS[code]
        return JobStatus(Phase.ENDED, text, code, advice, host=host_of(ad))
    return JobStatus(
        Phase.ENDED, f"the job ended with exit code {code}" if code else "the job ended", code, host=host_of(ad)
    )


def has_started(ad: Mapping[str, Any]) -> bool:
    """Whether a job that HTCondor calls running does more than have its files sent to the node."""
    return _number(ad.get("JobCurrentStartExecutingDate"), 0) >= _number(ad.get("JobCurrentStartDate"), 1)


def host_of(ad: Mapping[str, Any]) -> str:
    """The node of ``slot1_1@node3@worker.example.org``: what follows the slot's name."""
    return str(ad.get("RemoteHost") or ad.get("LastRemoteHost") or "").partition("@")[2]


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default
