"""The site offers what Slurm does not have: the message names the field, and no job waits for ever."""

from typing import Any

import pytest

from tests.faults.rig import FaultRig
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "slurm")

TOO_MUCH: dict[str, Any] = {
    "cpus": {"default": 1, "max": 1000},
    "memory": {"default": "128M", "max": "4T"},
    "runtime": {"default": "1h", "max": "30d"},
    "gpus": {"a100": {"max": 9}, "h100": {"max": 1}},
    "partitions": {"cpu": {"gpus": {"h100": 1}}, "gpu": {"gpus": {"a100": 9}}, "nosuch": {"gpus": {}}},
}
REFUSED: dict[str, Any] = {
    "partition": ({"partition": "nosuch"}, "Slurm has no such partition"),
    "memory": ({"memory": "3T"}, "memory"),
    "gpu": ({"gpu": "h100"}, "no node of the partition has so many of that kind"),
}


@pytest.mark.parametrize("field", list(REFUSED))
def test_what_slurm_does_not_have(hub: RealHub, rig: FaultRig, field: str) -> None:
    options, words = REFUSED[field]
    if hub.site != rig.site(**TOO_MUCH):
        hub.change_site(rig.site(**TOO_MUCH))
    answer = hub.start_server("alice", {"image": "tiny", "partition": "cpu", **options})
    assert answer.status_code == 503, answer.text
    message = answer.json()["message"]
    assert message.startswith(f"The server could not be started: {field}: ") and words in message, message
    assert "Slurm says: " in message
    assert field in rig.form_says("could not be started")
    assert not rig.ids()


@pytest.mark.parametrize("options", [{"runtime": "2d"}, {"cpus": 500}], ids=["time", "cores"])
def test_what_slurm_takes_and_would_have_wait_for_ever(hub: RealHub, rig: FaultRig, options: Any) -> None:
    hub.change_site(rig.site(**TOO_MUCH))
    answer = hub.start_server("alice", {"image": "tiny", "partition": "cpu", **options})
    assert answer.status_code == 422, answer.text
    message = answer.json()["message"]
    assert "The job would wait for ever: " in message and "Partition" in message
    assert "choose another partition" in message
    eventually(lambda: not rig.ids(), "the job is removed")
    rig.form_says("would wait for ever")


def test_a_reservation_and_a_constraint_that_there_are_not(hub: RealHub, rig: FaultRig) -> None:
    for key in ("reservation", "constraint"):
        hub.change_site(rig.site(**{key: "nosuch"}))
        answer = hub.start_server("alice", {"image": "tiny"})
        assert answer.status_code == 503, answer.text
        assert f"started: {key}: " in answer.json()["message"]
        assert f"key {key}" in answer.json()["message"]
    assert not rig.ids()


def test_a_job_that_an_admin_makes_hopeless(hub: RealHub, rig: FaultRig) -> None:
    rig.slurm.drain()
    start = hub.begin("alice", {"image": "tiny"})
    hub.reached("submitted", "alice")
    other = rig.slurm.submit("exit 1", "--hold", user="alice")
    job = rig.job_of("alice")
    rig.slurm.command("scontrol", "update", f"jobid={job.id}", f"dependency=afterok:{other}")
    rig.waits_for("it waits for another job (Dependency)")
    rig.slurm.command("scancel", str(other))
    answer = start.result(20)
    assert answer.status_code == 422, answer.text
    assert "would wait for ever: the job that it waits for failed" in answer.json()["message"]
    eventually(lambda: not rig.ids(), "the job is removed")
