"""That the rig of Slurm is what the other tests take it for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import eventually
from tests.slurm import Job, Slurm, counting_commands

pytestmark = pytest.mark.needs("slurm")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A cluster."""
    with Slurm(KILLWAIT=2, MESSAGETIMEOUT=2) as one:
        yield one


def test_jobs_of_users_run_and_outlive_daemons(slurm: Slurm) -> None:
    jobs = {
        user: slurm.submit("sleep 1000", "--export=NONE", f"--comment=of {user}|", user=user)
        for user in ("alice", "bob")
    }
    for user, number in jobs.items():
        job = slurm.wait_for(number, "RUNNING")
        assert job == Job(number, "RUNNING", "None", user, "sbatch", "c1", f"of {user}|")

    slurm.kill_controller()
    assert slurm.run("squeue").returncode == 1
    slurm.start_controller()
    slurm.kill_node("c1")
    slurm.start_node("c1")
    assert [job.state for job in slurm.jobs()] == ["RUNNING", "RUNNING"]
    assert all("sleep 1000 " in slurm.processes(number).values() for number in jobs.values())

    assert "denied" in slurm.run("scancel", str(jobs["alice"]), user="bob").stderr
    slurm.cancel_all()
    assert {slurm.job(number).state for number in jobs.values()} == {"CANCELLED"}
    eventually(lambda: not slurm.processes(), "nothing of the jobs runs")


def test_jobs_wait_for_drained_nodes(slurm: Slurm) -> None:
    slurm.drain()
    number = slurm.submit("true")
    assert slurm.job(number).state == "PENDING"
    slurm.resume()
    slurm.wait_for(number, "COMPLETED")


def test_a_frozen_controller_does_not_answer(slurm: Slurm) -> None:
    slurm.freeze_controller()
    assert slurm.run("timeout", "0.3", "squeue").returncode == 124
    slurm.thaw_controller()
    assert slurm.run("squeue").returncode == 0


def test_commands_are_counted_and_break(slurm: Slurm, tmp_path: Path) -> None:
    directory = slurm.directory / "commands"  # where users may go
    commands = counting_commands(directory)
    squeue = str(directory / "squeue")
    assert "JOBID" in slurm.command(squeue, "-o", "%A|%T a", user="alice")
    commands.break_("squeue", 'echo nonsense; "$real" -h; exit 3')
    done = slurm.run(squeue, user="bob")
    assert (done.returncode, done.stdout) == (3, "nonsense\n")
    commands.mend()
    assert slurm.run(squeue, "--bogus").returncode == 1
    assert [call[1:] for call in commands.calls()] == [
        ("squeue", "-o %A|%T a"),
        ("squeue", ""),
        ("squeue", "--bogus"),
    ]
    commands.clear()
    assert commands.calls("squeue") == []


def test_nothing_is_left_whatever_was_killed(slurm: Slurm) -> None:
    """Of one cluster; another is none the worse for it."""
    neighbour = slurm.submit("sleep 1000")
    slurm.wait_for(neighbour, "RUNNING")
    other = Slurm(KILLWAIT=60).start()
    stubborn = "trap '' TERM; env -i sh -c 'trap \"\" TERM; exec sleep 1234'"
    number = other.submit(stubborn, "--nodelist=c2")
    other.wait_for(number, "RUNNING")
    pids = eventually(lambda: other.processes(number), "it runs")
    other.command("scancel", str(number))
    other.kill_node("c2")
    other.kill_controller(crash=True)
    other.freeze_node("c1")
    other.stop()
    assert not other.directory.exists()
    assert not other.processes()
    everything = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [text for text in everything if b"sleep\x001234" in text or str(other.directory).encode() in text]
    assert pids
    assert slurm.wait_for(neighbour, "RUNNING")
    slurm.cancel_all()
