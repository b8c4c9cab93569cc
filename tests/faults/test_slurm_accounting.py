"""Where Slurm has accounting: who cancelled a job, accounts and qualities of service, and a cluster by its name."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.rig import FaultRig
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "slurm", "slurmdbd")


@pytest.fixture(scope="module")
def rig(engines: dict[str, Any]) -> Iterator[FaultRig]:
    """A cluster with accounting, and its hub. alice may have the account physics."""
    one = FaultRig(engines, DBD=1)
    one.slurm.account("add", "qos", "short")
    one.slurm.account("modify", "qos", "short", "set", "MaxWall=00:10:00")
    one.slurm.account("modify", "user", "where", "name=alice", "set", "qos+=short")
    yield one
    one.close()


@pytest.mark.parametrize("by", [None, "alice"])
def test_who_cancelled_a_server_that_ran(hub: RealHub, rig: FaultRig, by: str | None) -> None:
    job = rig.start("alice")
    rig.slurm.command("scancel", str(job.id), user=by)
    hub.gone("alice")
    rig.form_says(f"The server is gone: {by or 'root'} cancelled the job")
    rig.no_route()


def test_who_cancelled_a_server_that_waited(hub: RealHub, rig: FaultRig) -> None:
    rig.slurm.drain()
    start = hub.begin("alice", {"image": "tiny"})
    hub.reached("submitted", "alice")
    rig.slurm.command("scancel", str(rig.job_of("alice").id))
    answer = start.result(20)
    assert answer.status_code == 422
    assert "root cancelled the job" in answer.json()["message"], answer.text


@pytest.mark.parametrize("field", ["account", "qos"])
def test_what_slurm_does_not_let_the_user_have(hub: RealHub, rig: FaultRig, field: str) -> None:
    hub.change_site(rig.site(accounts=["physics", "nosuch"], qos=["normal", "nosuch"]))
    answer = hub.start_server("alice", {"image": "tiny", field: "nosuch"})
    assert answer.status_code == 503, answer.text
    assert answer.json()["message"].startswith(f"The server could not be started: {field}: it cannot be used")
    assert not rig.ids()


def test_more_time_than_the_quality_of_service_allows(hub: RealHub, rig: FaultRig) -> None:
    hub.change_site(rig.site(qos=["short"], runtime={"default": "5m", "max": "1h"}))
    answer = hub.start_server("alice", {"image": "tiny", "runtime": "1h"})
    assert answer.status_code == 422, answer.text
    assert "would wait for ever" in answer.json()["message"] and "time" in answer.json()["message"]
    eventually(lambda: not rig.ids(), "the job is removed")
    rig.start("alice", runtime="5m")


def test_a_limit_of_jobs(hub: RealHub, rig: FaultRig) -> None:
    rig.slurm.limit("alice", MaxSubmitJobs=1)
    try:
        rig.start("alice")
        answer = hub.start_server("alice", {"image": "tiny"}, "second")
        assert answer.status_code == 503, answer.text
        assert "you have as many jobs as are allowed" in answer.json()["message"]
        assert rig.answers("alice") and len(rig.ids()) == 1
    finally:
        rig.slurm.limit("alice", MaxSubmitJobs=-1)


def test_accounting_that_does_not_answer(hub: RealHub, rig: FaultRig) -> None:
    """Nobody can tell who cancelled a job; that it ended all the same can be told."""
    job = rig.start("alice")
    rig.start("bob")
    rig.commands.break_("sacct", 'echo "sacct: error: Problem talking to the database" >&2; exit 1')
    rig.slurm.command("scancel", str(job.id))
    hub.gone("alice")
    rig.form_says("the job was cancelled, not by this hub")
    assert rig.answers("bob")


def test_a_cluster_by_its_name(hub: RealHub, rig: FaultRig) -> None:
    hub.change_site(rig.site(cluster=rig.slurm.name))
    rig.commands.clear()
    job = rig.start("alice")
    rig.start("bob")
    hub.restart()
    for user in ("alice", "bob"):
        hub.ready(user)
    rig.slurm.command("scancel", str(job.id))
    hub.gone("alice")
    rig.form_says("root cancelled the job")
    hub.stop_server("bob")
    hub.gone("bob")
    assert not rig.ids()
    calls = rig.commands.calls("sbatch", "scancel", "sacct")
    assert {call[1] for call in calls} == {"sbatch", "scancel", "sacct"}
    assert all(f"-M {rig.slurm.name}" in call[2] for call in calls)
