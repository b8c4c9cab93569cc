"""What other users see of a job, and tokens."""

import base64
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from hepspawner.backends.base import BackendError
from tests.faults.condor import PATIENCE, Make, Server, soon, within
from tests.htcondor import PATH, Condor
from tests.slurm import Commands

pytestmark = pytest.mark.needs("htcondor", "users")
TOKEN = {"run_as": "none", "token": {"domain": "rig.local", "lifetime": "60s"}}


def says(pool: Condor) -> str:
    """What a job can run, to end at once and leave a log."""
    program = pool.directory / "says"
    program.write_text("#!/bin/sh\necho said\n")
    program.chmod(0o755)
    return str(program)


async def test_another_user_finds_no_secret(make: Make, pool: Condor) -> None:
    pool.drain()
    server = await Server(make()).submit()
    secret = f"{server.tag.session}.secret"

    def look() -> str:
        seen = [pool.command(*argv, user="bob", check=False) for argv in COMMANDS]
        return "\n".join([*seen, pool.shell(f"grep -rs . {pool.directory} /tmp/tmp.* /proc/*/cmdline", "bob")])

    COMMANDS = [["condor_q", "-l", server.job], ["condor_history", "-l"], ["condor_history", "-epochs", "-l"]]
    COMMANDS += [["condor_status", "-l"]]
    queued = look()
    pool.resume()
    await server.running()
    running = look()
    await server.cancel()
    ended = look()
    for text in (queued, running, ended):
        assert server.tag.session in text and secret not in text
    own = pool.directory.glob(f"spool/*/*/cluster{server.job}.proc0.subproc0")
    assert not list(own)


async def test_another_user_gets_no_file_of_a_job(make: Make, pool: Condor) -> None:
    server = await Server(make(python=says(pool))).submit()
    await server.ended()
    script = f"cd $(mktemp -d) && condor_transfer_data {server.job} >&2; ls -A; rm -r $PWD"
    got = {user: pool.run("sh", "-c", f"PATH={PATH}:$PATH; {script}", user=user).stdout for user in ("bob", "alice")}
    assert got["bob"] == "" and "log" in got["alice"]


async def test_the_secret_s_file_is_its_owner_s_alone(make: Make, pool: Condor) -> None:
    pool.drain()
    server = await Server(make()).submit()
    spool = next(pool.directory.glob(f"spool/*/*/cluster{server.job}.proc0.subproc0"))
    holders = [path for path in spool.iterdir() if server.tag.session.encode() in path.read_bytes()]
    assert [path.stat().st_mode & 0o777 for path in holders] == [0o600]
    assert spool.stat().st_mode & 0o077 == 0 and spool.owner() == "alice"


@pytest.fixture
def signing_key(pool: Condor) -> None:
    key = pool.directory / "etc/passwords.d/POOL"
    if not key.exists():
        pool.command("condor_store_cred", "add", "-c", "-p", secrets.token_hex(16), check=False)
        pool.reconfigure()
    assert key.exists()


async def test_a_hub_submits_with_a_token_of_the_user(make: Make, pool: Condor, signing_key: None) -> None:
    server = await Server(make(**TOKEN)).submit()
    job = pool.job(int(server.job))
    assert job and job.user == "alice"
    await server.running()
    assert await server.backend.find(server.tag) == server.job
    await server.cancel()
    assert not pool.jobs(server.tag.session)


async def test_a_token_that_expired_is_told(make: Make, pool: Condor, signing_key: None) -> None:
    backend = make(**TOKEN)
    assert backend._tokens
    await backend._tokens.environment("alice")
    directory = (await backend._tokens.environment("alice"))["_CONDOR_SEC_TOKEN_DIRECTORY"]
    argv = ["condor_token_create", "-identity", "alice@rig.local", "-lifetime", "1"]
    Path(directory, "token").write_text(pool.command(*argv))
    token = Path(directory, "token").read_text()
    payload = token.split(".")[1]
    over = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
    await soon(lambda: time.time() > over + 1, "it has expired")
    server = Server(backend)
    with pytest.raises(BackendError, match="may not submit jobs for you"):
        await within(PATIENCE, server.submit())
    assert not pool.jobs(server.tag.session)
    await server.submit()  # with another


async def test_tokens_that_were_tidied_up_are_minted_again(make: Make, pool: Condor, signing_key: None) -> None:
    backend = make(**TOKEN)
    assert backend._tokens
    directory = Path((await backend._tokens.environment("alice"))["_CONDOR_SEC_TOKEN_DIRECTORY"])
    (directory / "token").unlink()
    await Server(backend).submit()
    shutil.rmtree(directory.parent)
    directory.parent.mkdir(mode=0o777)  # by somebody else
    shutil.chown(directory.parent, "bob")
    try:
        await Server(backend).submit()
        assert not list(directory.parent.iterdir())
    finally:
        shutil.rmtree(directory.parent)


async def test_tokens_that_cannot_be_kept(
    make: Make, signing_key: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(BackendError, match="a token cannot be kept: No such file"):
        await Server(make(**TOKEN)).submit()


async def test_files_of_a_job_are_not_fetched_by_a_hub_that_is_not_its_user(
    make: Make, pool: Condor, calls: Commands, signing_key: None, tmp_path: Path
) -> None:
    """Its user may say in the ad where they are to be put."""
    server = await Server(make(python=says(pool), **TOKEN)).submit()
    await server.ended()
    pool.command("condor_qedit", server.job, "SUBMIT_Iwd", f'"{tmp_path}"', user="alice")
    await server.backend.last_words(server.job, server.tag)
    assert not list(tmp_path.iterdir()) and not calls.calls("condor_transfer_data")


@pytest.mark.parametrize("user", ["root", "condor", "Condor", "a b", "alice@evil", "../alice", "", "-x"])
async def test_nobody_gets_a_token_of_htcondor_itself(make: Make, user: str) -> None:
    with pytest.raises(BackendError, match="none of an account"):
        await Server(make(**TOKEN), user).submit()


async def test_the_tokens_are_for_the_hub_alone(make: Make, signing_key: None) -> None:
    backend = make(**TOKEN)
    assert backend._tokens
    directory = (await backend._tokens.environment("alice"))["_CONDOR_SEC_TOKEN_DIRECTORY"]
    found = subprocess.run(["find", os.path.dirname(directory), "-printf", "%m "], capture_output=True, text=True)
    assert set(found.stdout.split()) == {"700", "600"}
    await backend.close()
    assert not os.path.exists(directory)
