"""Why a job waits, and what is free."""

import time

import pytest

from hepspawner.backends.base import Phase
from hepspawner.choice import Who
from tests.faults.condor import PATIENCE, Make, Server, looked, soon
from tests.htcondor import Condor
from tests.slurm import Commands

pytestmark = pytest.mark.needs("htcondor", "users")


async def test_without_a_negotiator_it_says_that_nobody_looked(make: Make, pool: Condor) -> None:
    pool.off("negotiator")
    try:
        server = await Server(make()).submit()
        status = await server.until(lambda status: "has not looked at it yet" in status.reason)
        assert status.phase is Phase.QUEUED and not status.hopeless
    finally:
        pool.on("negotiator")
    await server.running()


async def test_what_no_machine_has_is_named(make: Make) -> None:
    server = await Server(make(requirements="ArcticCooling =?= true")).submit()
    status = await server.until(lambda status: "no machine of the pool" in status.reason)
    assert "ArcticCooling is true" in status.reason and status.advice and not status.hopeless


async def test_more_cores_than_any_machine_has(make: Make) -> None:
    backend = make()
    backend.availability(Who("alice"))
    server = await Server(backend, cpus=65).submit()
    status = await server.until(lambda status: "no machine of the pool" in status.reason)
    assert "Cpus >= 65" in status.reason


async def test_room_that_is_in_use_is_told_as_such(make: Make, pool: Condor, calls: Commands) -> None:
    others = pool.sleeper("request_cpus = 60", user="bob", count=3)
    await soon(lambda: sum(job.state == "running" for job in pool.jobs()) == 3, f"{others} fill the pool")
    server = await Server(make(), cpus=8).submit()
    # which of the two it says depends on whose turn it was in the negotiation
    told = lambda status: "enough room free" in status.reason or "others are before it" in status.reason  # noqa: E731
    await server.until(told)
    await looked(calls)
    assert told(await server.status())


async def test_a_gpu_is_asked_for_and_had(make: Make, pool: Condor) -> None:
    gpus = {"a100": {"capability": 8.0, "memory": "40G", "max": 2}}
    server = await Server(make(gpus=gpus), gpu="a100", gpus=2).submit()
    await server.running()
    job = pool.job(int(server.job))
    assert job and job.ad["RequestGPUs"] == 2 and "node2" not in job.ad["RemoteHost"]


async def test_availability_counts_cores_and_gpus_by_kind(make: Make) -> None:
    gpus = {
        "a100": {"require": 'DeviceName == "A100-SXM4-40GB"', "max": 2},
        "new": {"capability": 9.0},
        "elsewhere": {"requirements": 'Machine == "elsewhere"'},
    }
    backend = make(gpus=gpus)
    server = await (await Server(backend, gpu="a100", gpus=1, cpus=4).submit()).running()
    gpus_now = {"a100": (3, 4), "new": (0, 0), "elsewhere": (0, 0)}
    end, seen = time.monotonic() + PATIENCE, None
    while seen != ((188, 192), gpus_now):  # nodes tell of themselves now and then
        assert time.monotonic() < end, seen
        await backend._see_what_is_free()
        known = backend.availability(Who("alice"))
        assert known and not known.problem
        room = known.rooms[0]
        assert room.cores
        gpus_seen = {kind: (one.free, one.total) for kind, one in room.gpus.items()}
        seen = ((room.cores.free, room.cores.total), gpus_seen)
    await server.cancel()
