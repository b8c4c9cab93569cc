"""Admins cancel, hold, requeue and suspend the jobs of servers; users write on theirs what they like."""

import pytest

from tests.faults.rig import FaultRig
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "slurm")


def test_a_running_server_is_cancelled(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    rig.slurm.command("scancel", str(job.id))
    hub.gone("alice", seconds=10)
    rig.no_route()
    assert "the job was cancelled, not by this hub" in rig.form_says("The server is gone")
    assert not rig.commands.calls("sbatch")[1:]


def test_a_queued_server_is_cancelled(hub: RealHub, rig: FaultRig) -> None:
    rig.slurm.drain()
    start = hub.begin("alice", {"image": "tiny"})
    hub.reached("submitted", "alice")
    rig.slurm.command("scancel", str(rig.job_of("alice").id))
    answer = start.result(20)
    assert answer.status_code == 422
    assert "the job was cancelled, not by this hub" in answer.json()["message"]


def test_a_server_is_held_and_released(hub: RealHub, rig: FaultRig) -> None:
    rig.slurm.drain()
    job = rig.queue("alice")
    rig.waits_for("nodes that it could use are down, drained")
    rig.slurm.command("scontrol", "hold", str(job.id))
    rig.slurm.resume()
    rig.waits_for("an admin holds it (JobHeldAdmin); waiting since")
    assert hub.model("alice")["pending"] == "spawn"
    rig.slurm.command("scontrol", "release", str(job.id))
    hub.ready("alice")
    assert rig.ids() == [job.id]


def test_a_server_is_sent_back_to_the_queue(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    # as a rule it cannot be
    assert rig.slurm.run("scontrol", "requeue", str(job.id)).returncode
    assert rig.answers("alice")
    rig.slurm.command("scontrol", "update", f"jobid={job.id}", "requeue=1")
    rig.slurm.command("scontrol", "requeue", str(job.id))
    hub.gone("alice")
    rig.no_route()
    rig.form_says("The server is gone: its job was stopped and sent back to the queue.")
    eventually(lambda: not rig.our_jobs(), "the job is removed")
    eventually(lambda: rig.slurm.job(job.id).state == "CANCELLED", "and does not run again")  # type: ignore[union-attr]
    assert hub.new_log().count("The server is gone") == 1
    assert len(rig.commands.calls("sbatch")) == 1


def test_a_server_is_suspended_and_goes_on(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    pid = hub.server_get("alice", "facts").json()["pid"]
    rig.slurm.command("scontrol", "suspend", str(job.id))
    rig.looks(3)
    assert hub.model("alice")["ready"] and "/user/alice/" in hub.routes()
    rig.slurm.command("scontrol", "resume", str(job.id))
    assert hub.server_get("alice", "facts").json()["pid"] == pid


def test_a_suspended_server_can_be_stopped(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    rig.slurm.command("scontrol", "suspend", str(job.id))
    hub.stop_server("alice")
    hub.gone("alice")
    eventually(lambda: not rig.our_jobs() and not rig.slurm.processes(job.id), "nothing is left")


def test_jobs_with_the_tags_of_others(hub: RealHub, rig: FaultRig) -> None:
    bobs = rig.start("bob")
    forged = [
        rig.slurm.submit("sleep 1000", f"--comment={bobs.comment}", f"--job-name={bobs.name}", user="alice"),
        rig.slurm.submit("sleep 1000", f"--comment={bobs.comment[:-1]}", f"--job-name={bobs.name}", user="alice"),
        # somebody's who has no account like the tag's user, or of another hub, or of nobody
        rig.slurm.submit("sleep 1000", "--comment=hepspawner:x:y:alice:", f"--job-name={bobs.name}", user="alice"),
        rig.slurm.submit("sleep 1000", "--comment=nonsense|:::", f"--job-name={bobs.name}", user="alice"),
    ]
    rig.looks(4)
    assert rig.answers("bob") and hub.model("bob")["ready"]
    # nor is such a job taken for the one of a submission of which sbatch does not tell
    rig.commands.break_("sbatch", 'echo "sbatch: error: the dog has eaten it" >&2; exit 1')
    assert hub.start_server("alice", {"image": "tiny"}).status_code == 503
    hub.stop_server("bob")
    hub.gone("bob")
    rig.looks(3)
    assert sorted(job.id for job in rig.slurm.jobs()) == forged
    assert not [call for call in rig.commands.calls("scancel") if set(call[2].split()) & set(map(str, forged))]
    rig.slurm.cancel_all()


def test_a_user_who_changes_the_tag_of_his_server(hub: RealHub, rig: FaultRig) -> None:
    bobs = rig.start("bob")
    one, two = rig.start("alice"), rig.start("alice", "second")
    for comment in ("mine", bobs.comment, two.comment):
        rig.slurm.command("scontrol", "update", f"jobid={one.id}", f"comment={comment}", user="alice")
        rig.looks(4)
        assert rig.answers("alice") and rig.answers("alice", "second") and rig.answers("bob")
    hub.stop_server("alice")
    hub.gone("alice")
    eventually(lambda: one.id not in rig.ids(), "it can be stopped all the same")
    assert rig.answers("alice", "second") and rig.answers("bob")


def test_an_id_that_slurm_gives_out_again(hub: RealHub, rig: FaultRig) -> None:
    saved = rig.slurm.directory / "state/job_state"
    before = saved.stat().st_mtime_ns if saved.exists() else 0
    rig.slurm.submit("true")
    # the controller does not save its state again for 5 s
    eventually(lambda: saved.exists() and saved.stat().st_mtime_ns > before, "the state is saved")
    old = rig.start("alice")
    rig.slurm.kill_controller(crash=True)
    rig.slurm.start_controller()
    rig.slurm.drain("c1")  # which still has the old job, and would not take another of its id
    assert rig.queue("bob").id == old.id
    hub.stop_server("alice")
    hub.gone("alice")
    hub.ready("bob")
    assert [(job.id, job.user) for job in rig.our_jobs()] == [(old.id, "bob")]
