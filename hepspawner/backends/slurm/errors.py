"""What sbatch complains of, in the words of the form. Texts of Slurm 22.05 to 26.05; pure."""

from typing import NamedTuple


class Refusal(NamedTuple):
    """Which field of the form is meant, and what is wrong with it."""

    field: str
    text: str


# A part of what sbatch says → the refusal. The first that is found counts, so the special come before the general.
_REFUSALS: tuple[tuple[str, Refusal], ...] = (
    ("nvalid partition", Refusal("partition", "Slurm has no such partition")),
    ("Memory specification can not be satisfied", Refusal("memory", "no node of the partition has so much memory")),
    ("Invalid --mem", Refusal("memory", "Slurm cannot read it")),
    ("Invalid --time", Refusal("runtime", "Slurm cannot read it")),
    ("Requested time limit is invalid", Refusal("runtime", "it is more than the partition allows")),
    ("QOSMaxWallDurationPerJobLimit", Refusal("runtime", "it is more than the quality of service allows")),
    ("CPU count per node can not be satisfied", Refusal("cpus", "no node of the partition has so many cores")),
    ("More processors requested than permitted", Refusal("cpus", "no node of the partition has so many cores")),
    ("generic resource", Refusal("gpu", "Slurm knows no such GPU")),
    ("Invalid account", Refusal("account", "it cannot be used, or not in this partition")),
    ("Invalid qos", Refusal("qos", "it cannot be used, or not with this account")),
    ("Invalid wckey", Refusal("account", "Slurm wants a valid WCKey")),
    ("Invalid feature", Refusal("constraint", "no node has such a feature (the backend's key constraint)")),
    ("reservation is invalid", Refusal("reservation", "Slurm has no such reservation (the backend's key reservation)")),
    ("Access denied to requested reservation", Refusal("reservation", "you may not use it")),
    ("group not permitted", Refusal("partition", "you may not use it")),
    ("MaxSubmitJob", Refusal("", "you have as many jobs as are allowed; stop one of your servers or jobs")),
    ("violates accounting/QOS policy", Refusal("", "what was asked for is more than your account allows")),
    ("Requested node configuration is not available", Refusal("", "no node of the partition has all that at once")),
    ("Node count specification invalid", Refusal("", "no node of the partition has all that at once")),
    ("Invalid user id", Refusal("", "the cluster does not know your account")),
    ("Invalid node name", Refusal("", "the backend's key directives names a node that there is not")),
    # Of the failures to reach the controller the one that says that nothing was sent.
    ("(connect failure)", Refusal("", "Slurm does not answer at the moment; try again in a few minutes")),
    ("Unable to run job as", Refusal("", "the hub may not submit jobs for you")),
    ("a password is required", Refusal("", "the hub may not submit jobs for you: sudo asks for a password")),
    ("is not allowed to execute", Refusal("", "the hub may not submit jobs for you: sudo does not allow it")),
    ("not in the sudoers", Refusal("", "the hub may not submit jobs for you: sudo does not allow it")),
)


def refusal(text: str, gpu: bool = False) -> Refusal | None:
    """Why sbatch surely made no job, from what it said (`gpu`: one was asked for); None where that cannot be told."""
    if gpu and "Requested node configuration is not available" in text:
        # What Slurm says of a kind that it does not know, too.
        return Refusal("gpu", "no node of the partition has so many of that kind, or not with the rest")
    return next((meant for part, meant in _REFUSALS if part in text), None)
