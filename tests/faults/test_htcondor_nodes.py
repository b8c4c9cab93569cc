"""What happens on nodes: they fail, evict jobs, cannot start them, or a job takes more than it asked for."""

import pytest

from hepspawner.backends.base import Phase
from tests.faults.condor import Make, Server, held
from tests.htcondor import HTCONDOR, Condor

pytestmark = pytest.mark.needs("htcondor", "users")


async def test_a_job_that_is_evicted_by_an_admin_is_told_to_come_back(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    pool.command("condor_vacate_job", server.job)
    status = await server.until(lambda status: status.again)
    assert status.phase is Phase.QUEUED and "sent back to the queue" in status.reason
    await server.cancel()
    assert not pool.jobs(server.tag.session)


async def test_a_job_that_is_evicted_for_another(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    pool.drain()  # else it would start again at once
    pool.configure("PREEMPT = True")
    status = await server.until(lambda status: status.again)
    assert status.phase is Phase.QUEUED and "sent back to the queue" in status.reason


async def test_a_startd_that_dies_takes_its_jobs_along_and_no_others(make: Make, pool: Condor) -> None:
    backend = make(attributes={"JobLeaseDuration": "5"})
    server = await (await Server(backend, cpus=40).submit()).running()
    other = await (await Server(backend, cpus=40).submit()).running()  # not on the same node: it has 64 cores
    pool.drain()
    pool.kill(pool.startd_of(int(server.job)))
    status = await server.until(lambda status: status.again)
    assert status.phase is Phase.QUEUED and "sent back to the queue" in status.reason
    assert (await other.status()).phase is Phase.RUNNING


async def test_nodes_that_cannot_start_it(make: Make, pool: Condor) -> None:
    """It flaps: idle, running, idle."""
    broken = pool.directory / "starter"
    broken.write_text(
        f'#!/bin/sh\ncase $* in *-classad*) exec {HTCONDOR}/usr/sbin/condor_starter "$@";; esac\nexit 1\n'
    )
    broken.chmod(0o755)
    pool.configure(f"STARTER = {broken}")
    server = await Server(make()).submit()
    status = await server.until(lambda status: status.hopeless)
    assert status.phase is Phase.QUEUED and "nodes in turn could not start it" in status.reason and status.advice


async def test_more_memory_than_was_asked_for(make: Make, pool: Condor) -> None:
    eater = pool.directory / "eater"
    eater.write_text("#!/usr/bin/python3\nimport time\nmuch = bytearray(b'x') * (3 * 10**8)\ntime.sleep(600)\n")
    eater.chmod(0o755)
    server = await Server(make(python=str(eater)), memory=2**27).submit()
    status = await held(server, pool, "it needed more memory than was asked for", "memory usage exceeded")
    assert "Ask for more memory" in status.advice
