"""Jobs that are held, removed or killed."""

import os
import secrets

import pytest

from hepspawner.backends.base import Phase, Tag
from tests.faults.condor import HUB, Make, Server, held, soon
from tests.htcondor import Condor

pytestmark = pytest.mark.needs("htcondor", "users")


async def test_held_by_the_pool_s_rules(make: Make, pool: Condor) -> None:
    server = await Server(make(attributes={"PeriodicHold": "JobStatus == 2"})).submit()
    await held(server, pool, "the pool's rules hold it")


async def test_held_for_want_of_its_python_or_its_log(make: Make, pool: Condor) -> None:
    """The log is written by the schedd itself (early) or brought back by HTCondor (late)."""
    python = await Server(make(python="/nonexistent/python")).submit()
    pool.drain()
    early = await (await Server(make(attributes={"StreamOut": "true"})).submit()).waiting()
    late = await (await Server(make(python="/bin/true")).submit()).waiting()
    for server in (early, late):
        spool = next(pool.directory.glob(f"spool/*/*/cluster{server.job}.proc0.subproc0"))
        os.chown(spool, 0, 0)
        spool.chmod(0o555)
    pool.resume()
    await held(early, pool, "its log could not be written", "standard output")
    await held(late, pool, "what it wrote could not be brought back", "Permission denied")
    await held(python, pool, "its node could not run the job's Python", "No such file or directory")


async def test_held_because_its_files_are_gone(make: Make, pool: Condor) -> None:
    pool.drain()
    server = await Server(make()).submit()
    await server.waiting()
    for path in pool.directory.glob(f"spool/*/*/cluster{server.job}.proc0.subproc0/launcher.py"):
        path.unlink()
    pool.resume()
    await held(server, pool, "its files could not be sent to the node")


async def test_held_when_its_time_is_over(make: Make, pool: Condor) -> None:
    server = await Server(make(attributes={"AllowedExecuteDuration": "3"})).submit()
    status = await held(server, pool, "its time was over")
    assert "Ask for more time" in status.advice


async def test_held_by_a_person_before_it_ran_and_released(make: Make, pool: Condor) -> None:
    pool.drain()
    server = await (await Server(make()).submit()).waiting()
    pool.hold(int(server.job))
    status = await server.until(lambda status: "holds it" in status.reason)
    assert status.phase is Phase.QUEUED and "condor_release" in status.advice and not status.hopeless
    pool.release(int(server.job))
    pool.resume()
    await server.running()


async def test_held_by_a_person_while_it_ran(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    await soon(lambda: (job := pool.job(int(server.job))) and job.ad.get("NumJobStarts"), "it really runs")
    pool.hold(int(server.job))
    await held(server, pool, "holds it, which ended it")


async def test_removed_by_an_admin(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    pool.remove(int(server.job))
    status = await server.ended()
    assert "condor removed the job" in status.reason, status  # who root is to HTCondor


async def test_removed_by_its_user(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    pool.command("condor_rm", server.job, user="alice")
    assert "alice removed the job" in (await server.ended()).reason


async def test_a_launcher_that_is_killed(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    pids = await soon(lambda: [pid for pid, line in pool.processes().items() if "launcher.py" in line], "it runs")
    for pid in pids:
        os.kill(pid, 9)
    status = await server.ended()
    assert "signal 9" in status.reason and status.exit_code == 137
    assert await server.backend.last_words(server.job, server.tag, started=False) == []


async def test_what_a_job_wrote_is_brought_back(make: Make, pool: Condor) -> None:
    server = Server(make())
    server.tag = Tag(HUB, "alice", "", secrets.token_hex(16))
    job_input = {"session": server.tag.session, "ticket": "t", "hub": "http://127.0.0.1:1/hub/api", "expires": 1}
    server.job = await server.backend.submit(server.session, server.tag, job_input)
    status = await server.ended()
    assert "could not reach the hub in time" in status.reason and status.exit_code == 75
    words = await server.backend.last_words(server.job, server.tag)
    assert any("could not be claimed in time" in line for line in words), words
