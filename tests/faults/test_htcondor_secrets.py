"""What other users see of a job, and tokens."""

import asyncio
import os
import secrets
import subprocess
from pathlib import Path

import pytest

from hepspawner.backends.base import BackendError
from tests.faults.condor import Make, Server, within
from tests.htcondor import Condor

pytestmark = pytest.mark.needs("htcondor", "users")
TOKEN = {"run_as": "none", "token": {"domain": "rig.local", "lifetime": "60s"}}


async def test_another_user_finds_no_secret(make: Make, pool: Condor) -> None:
    pool.drain()
    server = await Server(make()).submit()
    secret = f"{server.tag.session}.secret"

    def look() -> str:
        seen = [pool.command(*argv, user="bob", check=False) for argv in COMMANDS]
        return "\n".join([*seen, pool.shell(f"grep -rs . {pool.directory} /tmp/tmp.* /proc/*/cmdline", "bob")])

    COMMANDS = [["condor_q", "-l", server.job], ["condor_history", "-l"], ["condor_history", "-epochs", "-l"]]
    COMMANDS += [["condor_status", "-l"], ["condor_transfer_data", server.job], ["condor_tail", server.job]]
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
    await asyncio.sleep(2.5)
    server = Server(backend)
    with pytest.raises(BackendError, match="may not submit jobs for you"):
        await within(20, server.submit())
    assert not pool.jobs(server.tag.session)
    backend._tokens._minted.clear()  # as half an hour later
    await server.submit()


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
