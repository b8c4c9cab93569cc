"""Accounts that vanish, hubs that are not root, and two clusters at once."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.faults.rig import SHORT_OF_PATIENCE, FaultRig, nothing
from tests.realhub import RealHub, eventually
from tests.slurm import Slurm

pytestmark = pytest.mark.needs("hub6", "slurm", "users")
GHOST, KEEPER = "hepghost", "hepkeeper"
SUDOERS = Path("/etc/sudoers.d/hepspawner-tests")


def account(name: str) -> Iterator[str]:
    subprocess.run(["userdel", "-f", "-r", name], capture_output=True)
    subprocess.run(["useradd", "-m", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", "-f", "-r", name], capture_output=True)


@pytest.fixture
def ghost() -> Iterator[str]:
    """A user who has an account, still."""
    yield from account(GHOST)


@pytest.fixture
def keeper() -> Iterator[str]:
    """The account of a hub that is not root."""
    yield from account(KEEPER)


def test_an_account_vanishes_while_its_server_runs(hub: RealHub, rig: FaultRig, ghost: str) -> None:
    job = rig.start(ghost)
    subprocess.run(["userdel", "-f", ghost], check=True, capture_output=True)
    rig.slurm.command("scontrol", "reconfigure")
    rig.looks(3)
    assert rig.answers(ghost) and hub.model(ghost)["ready"]
    answer = hub.start_server(ghost, {"image": "tiny"}, "second")
    assert answer.status_code == 503, answer.text
    assert f"there is no account '{ghost}'" in answer.json()["message"]
    hub.stop_server(ghost)
    hub.gone(ghost)
    nothing("jobs", rig.our_jobs)
    nothing("processes", lambda: rig.slurm.processes(job.id))
    rig.start("alice")


@pytest.mark.parametrize("run_as", ["setuid", "runuser"])
def test_a_hub_of_root(hub: RealHub, rig: FaultRig, run_as: str) -> None:
    hub.change_site(rig.site(run_as=run_as))
    assert rig.start("alice").user == "alice"
    facts = hub.server_get("alice", "facts").json()
    assert facts["uid"] and facts["gid"] and 0 not in facts["groups"]
    hub.stop_server("alice")
    hub.gone("alice")
    assert not rig.ids()


def test_a_hub_with_sudo(rig: FaultRig, engines: Any, keeper: str, ghost: str) -> None:
    """It may do what one line of sudoers says, made of what `hepspawner preview` prints, and no more."""
    site = rig.site(run_as="sudo")
    hub = RealHub(engines["hub6"], site, config=SHORT_OF_PATIENCE, account=keeper)
    shown = subprocess.run(
        [Path(engines["hub6"]).parent / "hepspawner", "preview", hub.site_file, "--user", "alice"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    first = next(line for line in shown.splitlines() if "sudo" in line)
    before, _, rest = first.partition(" -- ")
    assert before == "# sudo -n -u alice"
    sbatch, scancel = rest.partition(", with")[0], rig.commands.directory / "scancel"
    line = f"{keeper} ALL=(alice,{ghost}) NOPASSWD: {sbatch}, {scancel}\n"
    SUDOERS.write_text(f'Defaults:{keeper} env_keep += "SLURM_CONF"\n{line}')
    SUDOERS.chmod(0o440)
    try:
        hub.start()
        for user in ("alice", ghost):
            assert hub.start_server(user, {"image": "tiny"}).status_code in (201, 202)
            hub.ready(user)
        jobs = {job.user: job.id for job in rig.slurm.jobs() if hub.id in job.comment}
        assert set(jobs) == {"alice", ghost}
        assert hub.server_get("alice", "facts").json()["uid"] != 0
        # no more than that
        answer = hub.start_server("bob", {"image": "tiny"})
        assert answer.status_code == 503 and "the hub may not submit jobs for you" in answer.json()["message"]
        # an account that has gone keeps nobody else's server
        subprocess.run(["userdel", "-f", ghost], check=True, capture_output=True)
        for user in (ghost, "alice"):
            hub.stop_server(user)
        eventually(lambda: jobs["alice"] not in [job.id for job in rig.slurm.jobs()], "alice's job is removed")
        hub.gone("alice")
        assert "Traceback" not in hub.log()
    finally:
        SUDOERS.unlink()
        hub.stop()
        with suppress(AssertionError):
            rig.slurm.cancel_all()


def test_two_clusters(hub: RealHub, rig: FaultRig) -> None:
    with Slurm(KILLWAIT=2, MESSAGETIMEOUT=3) as second:
        commands = {"environment": second.env}
        other = {"type": "slurm", "title": "The other", "poll_interval": "1s", "commands": commands}
        hub.change_site({**rig.site(), "backends": {"engine": rig.part(), "other": other}})
        try:
            rig.start("alice", backend="engine")
            hub.start_server("bob", {"image": "tiny", "backend": "other"})
            hub.ready("bob")
            assert [job.user for job in rig.our_jobs()] == ["alice"]
            assert [job.user for job in second.jobs()] == ["bob"]
            # the ids are the same ones on both; the trouble of one is not the other's
            rig.slurm.kill_controller()
            hub.stop_server("bob")
            hub.gone("bob")
            assert not second.jobs()
            assert rig.answers("alice")
            hub.start_server("bob", {"image": "tiny", "backend": "other"})
            hub.ready("bob")
            rig.slurm.start_controller()
            hub.stop_server("alice")
            hub.gone("alice")
            assert not rig.ids()
            assert "pid" in hub.server_get("bob", "facts").json()
        finally:
            hub.stop_server("bob")
            hub.gone("bob")
