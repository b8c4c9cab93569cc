"""Why a job waits, and what is free."""

import asyncio
import time
from typing import Any

import pytest

from hepspawner.backends.base import Phase
from hepspawner.backends.htcondor import backend as backend_module
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


async def test_what_no_machine_has_is_named_for_as_long(
    make: Make, calls: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    for often in ("_BLAME_INTERVAL", "_BLAME_PAUSE"):
        monkeypatch.setattr(backend_module, often, 1.0)
    server = await Server(make(requirements="ArcticCooling =?= true")).submit()
    status = await server.until(lambda status: "no machine of the pool" in status.reason)
    assert "ArcticCooling is true" in status.reason and status.advice and not status.hopeless
    calls.break_("condor_q", 'case $* in *-better-analyze*) exit 0;; esac\nexec "$real" "$@"')  # blames nothing now
    await server.until(lambda status: "enough room free" in status.reason)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"cpus": 65}, "Cpus >= 65"),
        ({"gpu": "any", "gpus": 3}, "GPUs >= 3"),
        ({"gpu": "new", "gpus": 1}, "GPUs >= 1 with Capability >= 9.0"),
        ({"extra": {"disk": "900T"}}, "Disk >= 9"),
    ],
    ids=["cores", "gpus", "capability", "disk"],
)
async def test_more_than_any_machine_has(make: Make, asked: dict[str, Any], named: str) -> None:
    gpus = {"any": {"max": 3}, "new": {"capability": 9.0}}
    backend = make(gpus=gpus, disk={"default": "1G", "max": "900T"})
    await backend._see_what_is_free()
    server = await Server(backend, **asked).submit()
    status = await server.until(lambda status: "no machine of the pool" in status.reason)
    assert named in status.reason


async def test_room_that_is_in_use_is_told_as_such(make: Make, pool: Condor, calls: Commands) -> None:
    others = pool.sleeper("request_cpus = 60", user="bob", count=3)
    await soon(lambda: sum(job.state == "running" for job in pool.jobs()) == 3, f"{others} fill the pool")
    server = await Server(make(), cpus=8).submit()
    # which of the two it says depends on whose turn it was in the negotiation
    told = lambda status: "enough room free" in status.reason or "others are before it" in status.reason  # noqa: E731
    await server.until(told)
    await looked(calls)
    assert told(await server.status())


async def test_what_site_and_user_say_of_a_job_is_what_it_has(make: Make, pool: Condor) -> None:
    a100 = {
        "require": 'DeviceName == "A100-SXM4-40GB"',
        "requirements": "GPUs_Capability >= 8.0",
        "capability": 8.0,
        "memory": "40G",
        "max": 2,
    }
    site = {"requirements": 'Arch == "X86_64"', "rank": "KFlops", "accounting_groups": ["group_physics"]}
    asked = {"gpu": "a100", "gpus": 2, "runtime": 3600, "extra": {"accounting_group": "group_physics"}}
    server = await (await Server(make(gpus={"a100": a100}, **site), **asked).submit()).running()
    job = pool.job(int(server.job))
    assert job and job.ad["RequestGPUs"] == 2 and "node2" not in job.ad["RemoteHost"]
    assert job.ad["AcctGroup"] == "group_physics" and job.ad["AllowedExecuteDuration"] == 3720
    ad = pool.command("condor_q", "-l", server.job)
    for said in ("Rank = KFlops", a100["require"], a100["requirements"], site["requirements"]):
        assert str(said) in ad


async def test_availability_counts_cores_and_gpus_by_kind(make: Make, pool: Condor) -> None:
    gpus = {
        "a100": {"require": 'DeviceName == "A100-SXM4-40GB"', "max": 2},
        "new": {"capability": 9.0},
        "elsewhere": {"requirements": 'Machine == "elsewhere"'},
    }
    backend = make(gpus=gpus)
    server = await (await Server(backend, gpu="a100", gpus=1, cpus=4).submit()).running()
    gpus_now = {"a100": (3, 4), "new": (0, 0), "elsewhere": (0, 0)}
    end, seen, used = time.monotonic() + PATIENCE, None, 0
    # nodes tell of themselves now and then, and may keep the room of a job before for a while
    while used < 4 or seen != ((192 - used, 192), gpus_now):
        assert time.monotonic() < end, (seen, used)
        slots = await asyncio.to_thread(pool.command, "condor_status", "-const", 'SlotType == "Dynamic"', "-af", "Cpus")
        used = sum(int(cpus) for cpus in slots.split())
        await backend._see_what_is_free()
        known = backend.availability(Who("alice"))
        assert known and not known.problem
        room = known.rooms[0]
        assert room.cores
        gpus_seen = {kind: (one.free, one.total) for kind, one in room.gpus.items()}
        seen = ((room.cores.free, room.cores.total), gpus_seen)
    await server.cancel()
