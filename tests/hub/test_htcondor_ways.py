"""The ways to a pool: as whom jobs are submitted, from another machine than the schedd's, and to several pools."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.htcondor_rig import HTCondorRig
from tests.htcondor import Condor
from tests.hubs import pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "htcondor", "users")
KEEPER = "hepcondorkeeper"
READER = ("condor_token_create", "-identity", "hub@rig.local", "-authz", "READ")
SUDOERS = Path("/etc/sudoers.d/hepspawner-htcondor-tests")


@pytest.fixture(scope="module")
def rig(engines: dict[str, Any]) -> Iterator[HTCondorRig]:
    one = HTCondorRig(engines)
    yield one
    one.close()


@pytest.fixture
def keeper() -> Iterator[str]:
    """The account of a hub that is not root."""
    subprocess.run(["userdel", "-f", "-r", KEEPER], capture_output=True)
    subprocess.run(["useradd", "-m", KEEPER], check=True)
    yield KEEPER
    subprocess.run(["userdel", "-f", "-r", KEEPER], capture_output=True)


def site(rig: HTCondorRig, **backends: dict[str, Any]) -> dict[str, Any]:
    return {"images": rig.images(), "backends": backends}


def round_trip(hub: RealHub, pool: Condor, user: str = "alice", **options: Any) -> None:
    """A server starts as a job of its user, outlives the hub, and is stopped."""
    answer = hub.start_server(user, {"image": "tiny", **options})
    assert answer.status_code in (201, 202), answer.text
    hub.ready(user)
    assert [job.user for job in running(hub, pool)] == [user]
    facts = hub.server_get(user, "facts").json()
    assert facts["uid"] and facts["gid"] and 0 not in facts["groups"]
    hub.restart()
    hub.ready(user)
    hub.stop_server(user)
    hub.gone(user)
    eventually(lambda: not running(hub, pool), "the job is gone")
    assert "Traceback" not in hub.log()


def running(hub: RealHub, pool: Condor) -> list[Any]:
    return [job for job in pool.jobs(hub.id) if job.state != "completed"]


def test_a_hub_of_root_without_runuser(rig: HTCondorRig, engines: dict[str, Any]) -> None:
    hub = RealHub(engines["hub6"], site(rig, engine={**rig.part(), "run_as": "setuid"}))
    try:
        round_trip(hub.start(), rig.condor)
    finally:
        hub.stop()


def test_a_hub_with_sudo(rig: HTCondorRig, engines: dict[str, Any], keeper: str) -> None:
    """The lines of docs/htcondor.md are all that it needs, for those users and no others."""
    hub = RealHub(engines["hub6"], site(rig, engine={**rig.part(), "run_as": "sudo"}), account=keeper)
    preview = [Path(engines["hub6"]).parent / "hepspawner", "preview", hub.site_file, "--user", "alice"]
    shown = subprocess.run(preview, capture_output=True, text=True, check=True).stdout
    first = next(line for line in shown.splitlines() if "sudo" in line)
    before, _, rest = first.partition(" -- ")
    assert before == "# sudo -n -u alice"
    submit = rest.partition(", with")[0]
    fetch = submit.replace("submit.sh", "fetch.sh 8192").partition(" -spool")[0]
    fetch = fetch.replace("condor_submit", "condor_transfer_data")
    paths = rig.condor.paths
    commands = [submit, paths["condor_rm"], f"{fetch} *", f"{shutil.which('tail')} *"]
    SUDOERS.write_text(
        f'Defaults:{keeper} env_keep += "CONDOR_CONFIG"\n{keeper} ALL=(alice) NOPASSWD: {", ".join(commands)}\n'
    )
    SUDOERS.chmod(0o440)
    try:
        round_trip(hub.start(), rig.condor)
        answer = hub.start_server("bob", {"image": "tiny"})
        assert answer.status_code == 503 and "the hub may not submit jobs for you" in answer.json()["message"]
        # what the launcher said is brought back, too
        old = rig.directory / "old-python"
        old.write_text("#!/bin/sh\necho 'a Python of 2008' >&2\nexit 1\n")
        old.chmod(0o755)
        hub.change_site(site(rig, engine={**rig.part(), "run_as": "sudo", "python": str(old)}))
        hub.start_server("alice", {"image": "tiny"})
        eventually(lambda: "a Python of 2008" in hub.browser("alice").form().text, "the form tells")
    finally:
        SUDOERS.unlink()
        hub.stop()
        rig.condor.remove_all()


def test_a_hub_that_is_neither_root_nor_on_the_schedds_machine(
    rig: HTCondorRig, engines: dict[str, Any], keeper: str
) -> None:
    """It has a configuration of its own, which names no pool; a key for users' tokens; a token of its own to read."""
    signing_key(rig.condor)
    hub = RealHub(engines["hub6"], {"images": rig.images(), "backends": {"engine": {"type": "local"}}}, account=keeper)
    keys, own = hub.home / "keys", hub.home / "tokens"
    for path, text in (
        (keys / "POOL", (rig.condor.directory / "etc/passwords.d/POOL").read_bytes()),
        (own / "token", rig.condor.command(*READER).encode()),
    ):
        path.parent.mkdir(mode=0o700)
        path.write_bytes(text)
        path.chmod(0o600)
        for one in (path, path.parent):
            shutil.chown(one, keeper, keeper)
    conf = hub.directory / "condor_config"
    conf.write_text(
        f"TRUST_DOMAIN = {rig.condor.command('condor_config_val', 'TRUST_DOMAIN')}"
        "CONDOR_HOST = nowhere.invalid\n"
        "SEC_CLIENT_AUTHENTICATION_METHODS = IDTOKENS\nSEC_DEFAULT_ENCRYPTION = OPTIONAL\n"
    )
    conf.chmod(0o644)
    environment = {
        "CONDOR_CONFIG": str(conf),
        "_CONDOR_SEC_PASSWORD_DIRECTORY": str(keys),
        "_CONDOR_SEC_TOKEN_DIRECTORY": str(own),
    }
    part = {
        **rig.part(),
        "commands": {"paths": rig.condor.paths, "environment": environment},
        "run_as": "none",
        "token": {"domain": "rig.local", "lifetime": "10m"},
        "schedd": rig.condor.command("condor_status", "-schedd", "-af", "Name").strip(),
        "pool": f"127.0.0.1:{rig.condor.port}",
    }
    hub.write_site(site(rig, engine=part))
    try:
        round_trip(hub.start(), rig.condor)
    finally:
        hub.stop()
        rig.condor.remove_all()


def signing_key(pool: Condor) -> None:
    if not (pool.directory / "etc/passwords.d/POOL").exists():
        pool.command("condor_store_cred", "add", "-c", "-p", secrets.token_hex(16), check=False)
        pool.reconfigure()


def test_two_pools_side_by_side(rig: HTCondorRig, engines: dict[str, Any]) -> None:
    with Condor() as second:
        part = {**rig.part(), "commands": {"paths": second.paths, "environment": second.env}}
        hub = RealHub(engines["hub6"], site(rig, engine=rig.part(), second=part))
        pools = {"engine": rig.condor, "second": second}
        try:
            hub.start()
            for name in pools:
                assert hub.start_server("alice", {"image": "tiny", "backend": name}, name).status_code in (201, 202)
            for name, pool in pools.items():
                hub.ready("alice", name)
                assert [job.tag.rpartition(":")[2] for job in running(hub, pool)] == [name]
            # the trouble of one is not the other's, though ids are the same on both
            rig.condor.off("schedd")
            try:
                hub.stop_server("alice", "second")
                hub.gone("alice", "second")
                assert not running(hub, second)
                assert "pid" in hub.server_get("alice", "facts", "engine").json()
            finally:
                rig.condor.on("schedd")
            hub.restart()
            hub.ready("alice", "engine")
            hub.stop_server("alice", "engine")
            hub.gone("alice", "engine")
            assert not running(hub, rig.condor)
        finally:
            hub.stop()
            rig.condor.remove_all()


def test_with_homes_that_nodes_share(rig: HTCondorRig, engines: dict[str, Any]) -> None:
    hub = RealHub(engines["hub6"], site(rig, engine={**rig.part(), "shared_homes": True}))
    hub.start()
    try:
        round_trip(hub, rig.condor)
    finally:
        hub.stop()
