"""Nodes fail, and jobs come to their end: their time is over, their memory does not suffice, their log is not there."""

import os
import signal
import time

import pytest

from tests.faults.rig import FaultRig, nothing, write
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "slurm")


def test_slurmd_dies_and_comes_back(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    rig.slurm.kill_node(job.node)
    rig.looks(2)
    assert rig.answers("alice") and hub.model("alice")["ready"]
    rig.slurm.start_node(job.node)
    rig.looks(2)
    assert rig.answers("alice") and rig.ids() == [job.id]
    hub.stop_server("alice")
    hub.gone("alice")


def test_a_node_that_launches_nothing(hub: RealHub, rig: FaultRig) -> None:
    rig.slurm.drain("c2")
    rig.slurm.freeze_node("c1")
    start = hub.begin("alice", {"image": "tiny"})
    answer = start.result(30)
    assert answer.status_code == 422, answer.text
    assert "Node c1 is said to run the job, but nothing was heard from it" in answer.json()["message"]
    assert "Node c1 is said to run" in rig.form_says("Start it again")
    nothing("jobs", lambda: [job for job in rig.our_jobs() if job.state != "COMPLETING"])
    rig.slurm.command("scontrol", "update", "nodename=c1", "state=down", "reason=tests")
    nothing("jobs", rig.our_jobs)
    rig.slurm.thaw_node("c1")
    rig.slurm.resume("c1")
    rig.start("alice")


def test_minutes(hub: RealHub, rig: FaultRig) -> None:
    """A node that fails, and a time limit: Slurm takes its time for both, so both at once."""
    runtime = {"default": "1m", "max": "1h"}
    hub.change_site(rig.site(runtime=runtime))
    rig.slurm.drain("c2")
    began = time.time()
    rig.start("alice", image="odd", runtime="1m")
    deadline = float(hub.server_get("alice", "facts").json()["environment"]["HEPSPAWNER_DEADLINE"])
    assert began + 30 < deadline < began + 75
    rig.slurm.resume("c2")
    rig.slurm.drain("c1")
    bobs = rig.start("bob", runtime="1h")
    assert bobs.node == "c2"
    pid = hub.server_get("bob", "facts").json()["pid"]
    rig.slurm.kill_node("c2", jobs=True)
    os.kill(pid, signal.SIGKILL)  # has too little of a job's environment to be found
    hub.gone("bob", seconds=60)
    rig.no_route("bob")
    assert "its node c2 failed (NODE_FAIL)" in rig.form_says("The server is gone", "bob")
    assert rig.answers("alice")

    hub.gone("alice", seconds=90)
    form = rig.form_says("The time that was asked for is over")
    assert "odd: saved" in form and "Ask for more time" in form
    rig.no_route("alice")
    eventually(lambda: not rig.ids(), "no job is left")


def test_too_much_memory(hub: RealHub, rig: FaultRig) -> None:
    """Without cgroups Slurm looks at it now and then, and kills."""
    hub.change_site(rig.site(memory={"default": "300M", "max": "1G"}))
    rig.start("alice", image="odd")
    rig.start("bob", image="odd", memory="1G")
    for user in ("alice", "bob"):
        os.kill(hub.server_get(user, "facts").json()["pid"], signal.SIGUSR2)
    hub.gone("alice")
    rig.no_route("alice")
    form = rig.form_says("The server is gone")
    assert "memory" in form and "Ask for more memory" in form
    rig.looks(2)
    assert rig.answers("bob")


def test_a_log_that_cannot_be_written(hub: RealHub, rig: FaultRig) -> None:
    hub.change_site(rig.site(log="/proc/no/such/%j.log"))
    answer = hub.start_server("alice", {"image": "tiny"})
    assert answer.status_code == 422, answer.text
    assert "could not start the job" in answer.json()["message"] and "key log" in answer.json()["message"]
    eventually(lambda: not rig.ids(), "no job is left")


def test_what_a_job_said_before_its_claim(hub: RealHub, rig: FaultRig) -> None:
    rig.start("alice", image="odd")  # whose words, in the server's log, are not those of the next
    hub.stop_server("alice")
    hub.gone("alice")
    old = write(rig.directory / "old-python", "#!/bin/sh\necho 'a Python of 2008' >&2\nexit 1\n")
    old.chmod(0o755)
    logs = rig.directory / "logs"
    logs.mkdir()
    logs.chmod(0o777)
    hub.change_site(rig.site(python=str(old), log=f"{logs}/%j.log"))
    answer = hub.start_server("alice", {"image": "tiny"})
    assert answer.status_code == 422, answer.text
    form = rig.form_says("the job ended with exit code 1")
    assert "a Python of 2008" in form and "odd: saved" not in form
