"""Slurm's controller is killed, or hangs: during a submission, a look, a stop."""

import pytest

from tests.faults.rig import FaultRig
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "slurm")


def test_killed_while_servers_run(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    rig.slurm.kill_controller()
    rig.looks(2)
    assert rig.answers("alice")
    # who wants to start one is told, and not after minutes
    answer = hub.start_server("bob", {"image": "tiny"})
    assert answer.status_code == 503, answer.text
    assert "Slurm does not answer" in answer.json()["message"]
    assert hub.model("alice")["ready"]
    rig.slurm.start_controller()
    rig.looks(2)
    assert hub.model("alice")["ready"] and rig.answers("alice")
    assert rig.ids() == [job.id]
    assert "cannot tell what its jobs do" in hub.new_log() and "answers again" in hub.new_log()
    rig.start("bob")


def test_killed_while_a_server_is_queued(hub: RealHub, rig: FaultRig) -> None:
    rig.slurm.drain()
    job = rig.queue("alice")
    rig.slurm.kill_controller()
    rig.looks(2)
    assert hub.model("alice")["pending"] == "spawn"
    rig.slurm.start_controller()
    rig.slurm.resume()
    hub.ready("alice")
    assert rig.ids() == [job.id]


def test_killed_when_a_server_is_to_stop(hub: RealHub, rig: FaultRig) -> None:
    rig.start("alice")
    rig.slurm.kill_controller()
    rig.done("scancel", lambda: hub.stop_server("alice"))
    rig.slurm.start_controller()
    hub.gone("alice")
    eventually(lambda: not rig.our_jobs(), "no job is left")
    rig.start("alice")


@pytest.mark.parametrize("gives_up", ["sbatch", "hub"])
def test_hung_during_a_submission(hub: RealHub, rig: FaultRig, gives_up: str) -> None:
    if gives_up == "hub":
        part = rig.part()
        part["commands"]["timeouts"] = {"sbatch": "1s"}
        hub.change_site({**rig.site(), "backends": {"engine": part}})
        rig.looks(1)
    rig.slurm.freeze_controller()
    rig.done("sbatch", lambda: hub.begin("alice", {"image": "tiny"}))
    assert hub.model("alice")["pending"] == "spawn"
    rig.slurm.thaw_controller()
    hub.ready("alice")
    assert len(rig.our_jobs()) == 1
    assert len(rig.commands.calls("sbatch")) == 1
    assert "was made after all" in hub.new_log()


def test_hung_while_servers_run(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    rig.slurm.freeze_controller()
    eventually(lambda: "cannot tell what its jobs do" in hub.new_log(), "a look fails")
    assert rig.answers("alice") and hub.model("alice")["ready"]
    assert hub.api("GET", "/users").elapsed.total_seconds() < 1
    rig.slurm.thaw_controller()
    eventually(lambda: "answers again" in hub.new_log(), "a look succeeds")
    assert rig.answers("alice") and rig.ids() == [job.id]


def test_hung_while_a_server_stops(hub: RealHub, rig: FaultRig) -> None:
    rig.start("alice")
    rig.slurm.freeze_controller()
    hub.stop_server("alice")
    eventually(lambda: rig.commands.calls("scancel"), "scancel is called")
    assert hub.model("alice")["pending"] == "stop"
    rig.slurm.thaw_controller()
    hub.gone("alice")
    eventually(lambda: not rig.our_jobs(), "no job is left")
    rig.start("alice")


def test_hung_until_the_stop_is_given_up(hub: RealHub, rig: FaultRig) -> None:
    rig.start("alice")
    rig.slurm.freeze_controller()
    hub.stop_server("alice")
    eventually(lambda: "cannot be told whether job" in hub.new_log(), "the stop fails", 60)
    rig.slurm.thaw_controller()
    eventually(lambda: not rig.our_jobs(), "no job is left once Slurm answers again")
    hub.gone("alice")
    rig.start("alice")
