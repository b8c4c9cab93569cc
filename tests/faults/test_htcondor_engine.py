"""What HTCondor does to jobs, and what is told of it: the backend alone, before a real pool.

The jobs' launchers find no hub, so they wait for one: a job that runs and does nothing.
"""

import asyncio
import logging
import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hepspawner.backends.base import BackendError, JobStatus, Phase, Tag
from hepspawner.backends.htcondor import HTCondorBackend, HTCondorConfig
from hepspawner.choice import Who
from tests.htcondor import Condor, counting_commands
from tests.slurm import Commands

pytestmark = pytest.mark.needs("htcondor", "users")
HUB = "0123456789ab"
PATIENCE = 40.0


@pytest.fixture(scope="module")
def pool() -> Iterator[Condor]:
    with Condor() as one:
        yield one


@pytest.fixture(autouse=True)
def tidy(pool: Condor) -> Iterator[None]:
    yield
    for daemon in ("schedd", "negotiator", "collector"):
        pool.thaw(daemon)
    pool.remove_all()


@pytest.fixture
def calls() -> Iterator[Commands]:
    with tempfile.TemporaryDirectory(prefix="condor-commands-") as directory:
        yield counting_commands(directory)


class Server:
    """A job of a user, as a spawner has it."""

    def __init__(self, backend: HTCondorBackend, user: str = "alice", **session: Any):
        self.backend, self.tag = backend, Tag(HUB, user, "", secrets.token_hex(16))
        plain = {"cpus": 1, "memory": 2**27, "gpu": None, "gpus": 0, "runtime": None, "extra": {}}
        self.session: Any = SimpleNamespace(**{**plain, **session})
        self.job = ""

    async def submit(self) -> "Server":
        hub = {"session": self.tag.session, "ticket": f"{self.tag.session}.secret", "hub": "http://127.0.0.1:1/hub/api"}
        job_input = {**hub, "expires": time.time() + 600, "address": None, "scratch": None}
        self.job = await self.backend.submit(self.session, self.tag, job_input)
        return self

    async def status(self) -> JobStatus:
        return await self.backend.status(self.job, self.tag)

    async def until(self, what: Callable[[JobStatus], object]) -> JobStatus:
        """Wait for a status."""
        end = time.monotonic() + PATIENCE
        while not what(status := await self.status()):
            assert time.monotonic() < end, status
            await asyncio.sleep(0.1)
        return status

    async def waiting(self) -> "Server":
        """Until its files are in the spool: before that HTCondor itself holds it."""
        await self.until(lambda status: "looked" in status.reason or "room" in status.reason)
        return self

    async def running(self) -> "Server":
        await self.until(lambda status: status.phase is Phase.RUNNING)
        return self

    async def ended(self) -> JobStatus:
        return await self.until(lambda status: status.phase is Phase.ENDED)

    async def cancel(self) -> None:
        await self.backend.cancel(self.job, self.tag, 0)


Make = Callable[..., HTCondorBackend]


@pytest.fixture
async def make(pool: Condor, calls: Commands) -> AsyncIterator[Make]:
    """Makes a backend of the pool; its commands are counted, and have 3 s."""
    made: list[HTCondorBackend] = []

    def new(**more: Any) -> HTCondorBackend:
        paths = {name: str(calls.directory / name) for name in calls.names}
        commands = {"paths": paths, "environment": pool.env, "timeouts": dict.fromkeys(calls.names, "3s")}
        part = {"type": "htcondor", "poll_interval": "1s", "commands": commands, **more}
        one = HTCondorBackend("farm", HTCondorConfig.model_validate(part), logging.getLogger("test"))
        one.hub = HUB
        one.open()
        made.append(one)
        return one

    yield new
    for one in made:
        await one.close()


async def soon(condition: Callable[[], Any], what: str) -> Any:
    """What `condition()` returns as soon as that is true. The backend goes on meanwhile."""
    end = time.monotonic() + PATIENCE
    while not (value := await asyncio.to_thread(condition)):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.1)
    return value


async def within(seconds: float, work: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(work, seconds)


# --- the schedd is away, hangs, comes back


async def test_a_schedd_that_is_down_is_not_the_end_of_its_jobs(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    pool.off("schedd")
    try:
        with pytest.raises(BackendError, match="schedd is not there"):
            await Server(server.backend).submit()
        with pytest.raises(BackendError):
            await server.backend.find(server.tag)
        await asyncio.sleep(3)
        assert (await server.status()).phase is Phase.RUNNING
    finally:
        pool.on("schedd")
    assert await server.backend.find(server.tag) == server.job
    assert (await server.status()).phase is Phase.RUNNING
    await server.cancel()
    assert not pool.job(int(server.job))


async def test_a_schedd_that_hangs_holds_nothing_up(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    pool.freeze("schedd")
    ticks = asyncio.ensure_future(late())
    other = Server(server.backend)
    submit = asyncio.ensure_future(other.submit())
    cancel = asyncio.ensure_future(server.cancel())
    await asyncio.sleep(8)
    assert (await server.status()).phase is Phase.RUNNING
    assert not submit.done() and not cancel.done()
    pool.thaw("schedd")
    await within(PATIENCE, cancel)
    try:
        await within(PATIENCE, submit)
    except BackendError:
        await soon(lambda: not pool.jobs(other.tag.session), "no job is left of a start that failed")
    else:
        assert [str(job.id) for job in pool.jobs(other.tag.session)] == [other.job]
    ticks.cancel()
    assert await ticks < 1


async def late() -> float:
    """The longest that the event loop was held up."""
    worst = 0.0
    try:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.02)
            worst = max(worst, time.monotonic() - began - 0.02)
    except asyncio.CancelledError:
        return worst


async def test_a_start_that_is_cancelled_while_the_schedd_hangs_leaves_no_job(make: Make, pool: Condor) -> None:
    backend = make()
    backend.owned = lambda tag: False
    server = Server(backend)
    pool.freeze("schedd")
    submit = asyncio.ensure_future(server.submit())
    await asyncio.sleep(0.5)
    submit.cancel()
    await asyncio.sleep(1)
    pool.thaw("schedd")
    await asyncio.sleep(6)
    assert not pool.jobs(server.tag.session)


async def test_jobs_outlive_a_restart_of_the_schedd(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    seen: list[JobStatus] = []
    server.backend.on_change = lambda job, status: seen.append(status)
    try:
        pool.off("schedd")
    finally:
        pool.on("schedd")
    await server.backend.find(server.tag)
    await asyncio.sleep(3)
    assert (await server.status()).phase is Phase.RUNNING
    assert not [status for status in seen if status.phase in (Phase.ENDED, Phase.LOST) or status.again], seen


async def test_a_collector_that_is_away_is_not_the_end(make: Make, pool: Condor) -> None:
    server = await (await Server(make()).submit()).running()
    pool.freeze("collector")
    await asyncio.sleep(6)
    assert (await server.status()).phase is Phase.RUNNING
    pool.thaw("collector")
    await within(PATIENCE, server.backend.find(server.tag))


async def test_answers_that_are_empty_or_cut_off_for_a_moment(make: Make, calls: Commands) -> None:
    server = await (await Server(make()).submit()).running()
    calls.break_("condor_q", '"$real" "$@" | head -c 50')
    await asyncio.sleep(3)
    assert (await server.status()).phase is Phase.RUNNING
    calls.break_("condor_q", "echo 'Error: CEDAR:6001:Failed to connect' >&2; exit 1")
    await asyncio.sleep(3)
    assert (await server.status()).phase is Phase.RUNNING
    calls.mend()
    await server.backend.find(server.tag)
    assert (await server.status()).phase is Phase.RUNNING


# --- why it waits


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


async def test_room_that_is_in_use_is_told_as_such(make: Make, pool: Condor) -> None:
    others = pool.sleeper("request_cpus = 60", user="bob", count=3)
    await soon(lambda: sum(job.state == "running" for job in pool.jobs()) == 3, f"{others} fill the pool")
    server = await Server(make(), cpus=8).submit()
    # which of the two it says depends on whose turn it was in the negotiation
    told = lambda status: "enough room free" in status.reason or "others are before it" in status.reason  # noqa: E731
    await server.until(told)
    await asyncio.sleep(4)
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
    await backend._see_what_is_free()
    known = backend.availability(Who("alice"))
    assert known and not known.problem
    room = known.rooms[0]
    assert room.cores and (room.cores.total, room.cores.free) == (192, 188)
    assert {kind: (one.free, one.total) for kind, one in room.gpus.items()} == {
        "a100": (3, 4),
        "new": (0, 0),
        "elsewhere": (0, 0),
    }
    await server.cancel()


# --- held


async def held(server: Server, pool: Condor, *said: str) -> JobStatus:
    """It ended, the sentence holds some words, and the job is removed."""
    status = await server.ended()
    assert all(word in status.reason for word in said), status
    assert status.advice
    await soon(lambda: not pool.jobs(server.tag.session), "the job is removed")
    return status


async def test_held_for_a_python_that_is_not_there(make: Make, pool: Condor) -> None:
    server = await Server(make(python="/nonexistent/python")).submit()
    await held(server, pool, "its node could not run the job's Python", "No such file or directory")


async def test_held_by_the_pool_s_rules(make: Make, pool: Condor) -> None:
    server = await Server(make(attributes={"PeriodicHold": "JobStatus == 2"})).submit()
    await held(server, pool, "the pool's rules hold it")


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
    assert await server.backend.last_words(server.job, server.tag) == []


async def test_what_a_job_wrote_is_brought_back(make: Make, pool: Condor) -> None:
    server = Server(make())
    server.tag = Tag(HUB, "alice", "", secrets.token_hex(16))
    job_input = {"session": server.tag.session, "ticket": "t", "hub": "http://127.0.0.1:1/hub/api", "expires": 1}
    server.job = await server.backend.submit(server.session, server.tag, job_input)
    status = await server.ended()
    assert "could not reach the hub in time" in status.reason and status.exit_code == 75
    words = await server.backend.last_words(server.job, server.tag)
    assert any("could not be claimed in time" in line for line in words), words


# --- many jobs, secrets, tokens


async def test_a_thousand_jobs_of_others_cost_nothing(make: Make, pool: Condor, calls: Commands) -> None:
    pool.off("negotiator")
    try:
        pool.sleeper(user="bob", count=1000)
        server = await Server(make()).submit()
        calls.clear()
        began = time.monotonic()
        assert await server.backend.find(server.tag) == server.job
        assert time.monotonic() - began < 3
        listed = await server.backend._list()
        assert list(listed) == [server.job]
        assert len(calls.calls("condor_q")) <= 5
    finally:
        pool.on("negotiator")


async def test_one_question_for_all_and_one_for_how_they_ended(make: Make, pool: Condor, calls: Commands) -> None:
    backend = make(poll_interval="5s")
    servers = [Server(backend) for _ in range(12)]
    await asyncio.gather(*(server.submit() for server in servers))
    await asyncio.gather(*(server.running() for server in servers))
    calls.clear()
    pool.command("condor_rm", "alice")
    ends = await asyncio.gather(*(server.ended() for server in servers))
    assert all("removed the job" in end.reason for end in ends)
    assert len(calls.calls("condor_history")) <= 3
    assert len(calls.calls("condor_q")) <= 8


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


TOKEN = {"run_as": "none", "token": {"domain": "rig.local", "lifetime": "60s"}}


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
