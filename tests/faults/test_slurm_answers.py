"""Slurm's commands fail in ways that nobody has listed, or answer nonsense."""

import pytest

from tests.faults.rig import FaultRig
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "slurm")

NO_ANSWERS = {
    "an unlisted error": 'echo "slurm_load_jobs error: the dog has eaten it" >&2; exit 7',
    "nonsense": 'echo "<html>502 Bad Gateway</html>"',
    "nothing": "exit 0",
    "half an answer": '"$real" "$@" | head -c -30',
    "an answer without its header": '"$real" -h "$@"',
}


@pytest.mark.parametrize("snippet", NO_ANSWERS.values(), ids=list(NO_ANSWERS))
def test_what_is_no_answer_ends_nothing(hub: RealHub, rig: FaultRig, snippet: str) -> None:
    rig.start("alice")
    rig.slurm.drain()
    rig.queue("bob")
    before = rig.ids()
    rig.commands.break_("squeue", snippet)
    rig.looks(3)
    assert rig.answers("alice") and hub.model("alice")["ready"]
    assert hub.model("bob")["pending"] == "spawn"
    assert rig.ids() == before
    assert "cannot tell what its jobs do" in hub.new_log()
    rig.commands.mend()
    rig.slurm.resume()
    hub.ready("bob")
    assert rig.answers("alice")
    rig.slurm.command("scancel", *map(str, before))
    hub.gone("alice")
    hub.gone("bob")


def test_an_answer_that_knows_no_job_ends_no_server(hub: RealHub, rig: FaultRig) -> None:
    rig.start("alice")
    rig.commands.break_("squeue", '"$real" "$@" | head -n 1')
    rig.looks(4)
    assert rig.answers("alice") and hub.model("alice")["ready"]
    rig.commands.mend()
    rig.looks(2)
    assert rig.answers("alice") and hub.model("alice")["ready"] and len(rig.our_jobs()) == 1


def test_a_job_that_is_forgotten_and_does_not_answer_is_gone(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    rig.commands.break_("squeue", '"$real" "$@" | head -n 1')
    rig.slurm.command("scancel", "--signal=KILL", "--full", str(job.id))
    hub.gone("alice")
    assert f"knows nothing of job {job.id}" in rig.form_says("The server is gone")


MADE = {
    "an unlisted error": '"$real" "$@" >/dev/null; echo "sbatch: error: the dog has eaten it" >&2; exit 1',
    "no id": '"$real" "$@" >/dev/null; echo "Have a nice day"',
    "death": '"$real" "$@" >/dev/null; kill -9 $$',
}


@pytest.mark.parametrize("snippet", MADE.values(), ids=list(MADE))
def test_a_job_of_which_sbatch_does_not_tell_is_adopted(hub: RealHub, rig: FaultRig, snippet: str) -> None:
    rig.commands.break_("sbatch", snippet)
    rig.start("alice")
    assert len(rig.our_jobs()) == 1
    assert len(rig.commands.calls("sbatch")) == 1


def test_a_submission_that_fails_for_an_unlisted_reason_says_so(hub: RealHub, rig: FaultRig) -> None:
    rig.commands.break_("sbatch", 'echo "sbatch: error: the dog has eaten it" >&2; exit 1')
    answer = hub.start_server("alice", {"image": "tiny"})
    assert answer.status_code == 503, answer.text
    assert "the dog has eaten it" in answer.json()["message"]
    assert "the dog has eaten it" in rig.form_says("could not be started")
    assert not rig.our_jobs()
    rig.commands.mend()
    rig.start("alice")


def test_a_stop_that_slurm_refuses_is_tried_again(hub: RealHub, rig: FaultRig) -> None:
    rig.start("alice")
    rig.commands.break_("scancel", 'echo "scancel: error: not today" >&2; exit 1')
    hub.stop_server("alice")
    eventually(lambda: rig.commands.calls("scancel"), "scancel is called")
    assert hub.model("alice")["pending"] == "stop"
    rig.commands.mend()
    hub.gone("alice")
    assert not rig.our_jobs()
