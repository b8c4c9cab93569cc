"""What condor_submit complains of, in the words of the form. Texts of HTCondor 25; pure."""

from typing import NamedTuple


class Refusal(NamedTuple):
    """Which field of the form is meant, and what is wrong with it."""

    field: str
    text: str


_NOT_ALLOWED = Refusal("", "the hub may not submit jobs for you")
# Said when the job is there and its files do not arrive, whatever else is said with it.
_TOO_LATE = "Failed to spool"
# A part of what condor_submit says → the refusal: the first that is found. Else all of them come before there is a job.
_REFUSALS: tuple[tuple[str, Refusal], ...] = (
    ("is not allowed to own jobs", _NOT_ALLOWED),
    ("AUTHENTICATE", _NOT_ALLOWED),
    ("Failed to authenticate", _NOT_ALLOWED),
    ("PERMISSION DENIED", _NOT_ALLOWED),
    ("Setting owner to", _NOT_ALLOWED),
    ("Can't find address of", Refusal("", "HTCondor's schedd is not there at the moment; try again later")),
    ("Failed to connect to", Refusal("", "HTCondor's schedd is not there at the moment; try again later")),
    ("Can't access executable file", Refusal("", "the backend's key python names no program of this machine")),
    ("Can't open", Refusal("", "the launcher's file cannot be read by your account on the hub's machine")),
    ("No such directory", Refusal("", "a directory of the job is missing")),
    ("accounting_group", Refusal("accounting_group", "it cannot be used")),
    ("AcctGroup", Refusal("accounting_group", "it cannot be used")),
    ("MAX_JOBS_PER_OWNER", Refusal("", "you have as many jobs as are allowed; stop one of your servers or jobs")),
    ("MAX_JOBS_SUBMITTED", Refusal("", "the pool has as many jobs as are allowed; try again later")),
    ("Number of submitted jobs would exceed", Refusal("", "there are as many jobs as are allowed; try again later")),
    ("a password is required", Refusal("", "the hub may not submit jobs for you: sudo asks for a password")),
    ("is not allowed to execute", Refusal("", "the hub may not submit jobs for you: sudo does not allow it")),
    ("not in the sudoers", Refusal("", "the hub may not submit jobs for you: sudo does not allow it")),
    ("Submit requirement", Refusal("", "the pool's own rules for jobs refuse it")),
    ("Parse error in expression", Refusal("", "an expression of the site file cannot be read")),
    ("Failed to parse command file", Refusal("", "an expression of the site file cannot be read")),
)


def refusal(text: str) -> Refusal | None:
    """Why condor_submit surely made no job, from what it said; None where that cannot be told."""
    if _TOO_LATE in text:
        return None
    return next((meant for part, meant in _REFUSALS if part in text), None)
