"""Pools whose nodes share the users' homes: nothing is spooled, nothing is sent."""

import json
import pwd
import secrets
import subprocess
from pathlib import Path

import pytest

from hepspawner.backends.base import Tag
from tests.faults.condor import HUB, Make, Server
from tests.htcondor import Condor

pytestmark = pytest.mark.needs("htcondor", "users")


def directory_of(server: Server) -> Path:
    """Where a job of alice has its files."""
    return Path(pwd.getpwnam("alice").pw_dir) / ".local/state/hepspawner/jobs" / server.tag.session


async def test_a_jobs_files_are_its_users_alone(make: Make, pool: Condor) -> None:
    server = await (await Server(make(shared_homes=True)).submit()).running()
    own = directory_of(server)
    assert ".secret" in (own / "input").read_text()
    assert [path.stat().st_mode & 0o777 for path in (own, own / "input")] == [0o700, 0o600]
    seen = subprocess.run(["runuser", "-u", "bob", "--", "cat", own / "input"], capture_output=True, text=True)
    assert seen.returncode and not seen.stdout
    assert not list(pool.directory.glob(f"spool/*/*/cluster{server.job}.*"))
    job = pool.job(int(server.job))
    assert job and job.user == "alice" and ".secret" not in json.dumps(job.ad)


async def test_what_a_job_said_is_read_where_it_wrote_it(make: Make, pool: Condor) -> None:
    server = Server(make(shared_homes=True))
    server.tag = Tag(HUB, "alice", "", secrets.token_hex(16))
    job_input = {"session": server.tag.session, "ticket": "t", "hub": "http://127.0.0.1:1/hub/api", "expires": 1}
    server.job = await server.backend.submit(server.session, server.tag, job_input)
    status = await server.ended()
    assert "could not reach the hub in time" in status.reason and status.exit_code == 75
    words = await server.backend.last_words(server.job, server.tag, started=False)
    assert any("could not be claimed in time" in line for line in words), words
