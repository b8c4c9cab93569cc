"""The schedd is away, hangs, comes back, or has much to do."""

import asyncio

import pytest

from hepspawner.backends import batch
from hepspawner.backends.base import BackendError, JobStatus, Phase
from tests.faults.condor import HUB, PATIENCE, Make, Server, looked, soon, within
from tests.htcondor import Condor
from tests.slurm import Commands

pytestmark = pytest.mark.needs("htcondor", "users")


async def test_a_schedd_that_is_down_is_not_the_end_of_its_jobs(make: Make, pool: Condor, calls: Commands) -> None:
    server = await (await Server(make()).submit()).running()
    pool.off("schedd")
    try:
        with pytest.raises(BackendError, match="schedd is not there"):
            await Server(server.backend).submit()
        with pytest.raises(BackendError):
            await server.backend.find(server.tag)
        await looked(calls)
        assert (await server.status()).phase is Phase.RUNNING
    finally:
        pool.on("schedd")
    assert await server.backend.find(server.tag) == server.job
    assert (await server.status()).phase is Phase.RUNNING
    await server.cancel()
    assert not pool.job(int(server.job))


async def test_a_schedd_that_hangs_holds_nothing_up(
    make: Make, pool: Condor, calls: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    for patience in ("_CANCEL_PATIENCE", "_RECONCILE_PATIENCE"):
        monkeypatch.setattr(batch, patience, 600.0)  # whose end is no matter of this test
    server = await (await Server(make("3s")).submit()).running()
    pool.freeze("schedd")
    other = Server(server.backend)
    submit = asyncio.ensure_future(other.submit())
    cancel = asyncio.ensure_future(server.cancel())
    await soon(lambda: len(calls.calls("condor_rm")) > 1, "it gave one condor_rm up, and tries again")
    await within(PATIENCE, server.backend._see_what_is_free())  # which is not the schedd's to say
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


async def test_a_log_that_is_not_to_be_had_leaves_nothing_behind(make: Make, pool: Condor) -> None:
    folder = pool.directory / "temporary"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    server = await (await Server(make(environment={"TMPDIR": str(folder)})).submit()).running()
    pool.freeze("schedd")
    words = asyncio.ensure_future(server.backend._fetch(server.job, await server.backend.account("alice")))
    await soon(lambda: list(folder.iterdir()), "a place for it is made")
    assert await within(PATIENCE, words) == []
    assert not list(folder.iterdir())


async def test_a_cancelled_start_leaves_no_job_of_a_hung_schedd(make: Make, pool: Condor, calls: Commands) -> None:
    backend = make("3s")
    backend.owned = lambda tag: False
    server = Server(backend)
    pool.freeze("schedd")
    submit = asyncio.ensure_future(server.submit())
    await soon(lambda: calls.calls("condor_submit"), "the command runs")
    submit.cancel()
    pool.thaw("schedd")
    await soon(lambda: not pool.commands("condor_submit"), "the command has ended")
    await looked(calls)
    await soon(lambda: not pool.jobs(server.tag.session), "there is no job")


@pytest.mark.parametrize("crash", [False, True])
async def test_jobs_outlive_a_restart_of_the_schedd(make: Make, pool: Condor, calls: Commands, crash: bool) -> None:
    server = await (await Server(make()).submit()).running()
    seen: list[JobStatus] = []
    server.backend.on_change = lambda job, status: seen.append(status)
    if crash:
        pool.kill("schedd")  # the master starts another
    else:
        try:
            pool.off("schedd")
        finally:
            pool.on("schedd")
    await soon(lambda: pool.run("condor_q").returncode == 0, "the schedd answers")
    await server.backend.find(server.tag)
    await looked(calls)
    assert (await server.status()).phase is Phase.RUNNING
    assert not [status for status in seen if status.phase in (Phase.ENDED, Phase.LOST) or status.again], seen


async def test_a_collector_that_is_away_is_not_the_end(make: Make, pool: Condor, calls: Commands) -> None:
    server = await (await Server(make()).submit()).running()
    pool.freeze("collector")
    await looked(calls, 2)
    assert (await server.status()).phase is Phase.RUNNING
    pool.thaw("collector")
    await within(PATIENCE, server.backend.find(server.tag))


async def test_answers_that_are_empty_or_cut_off_for_a_moment(make: Make, calls: Commands) -> None:
    server = await (await Server(make()).submit()).running()
    once = f"mkdir {calls.directory}/once"
    calls.break_("condor_q", f'{once} 2>/dev/null && exit\nexec "$real" "$@"')
    await looked(calls)
    assert (calls.directory / "once").exists()
    assert (await server.status()).phase is Phase.RUNNING
    calls.break_("condor_q", '"$real" "$@" | head -c 50')
    await looked(calls)
    assert (await server.status()).phase is Phase.RUNNING
    calls.break_("condor_q", "echo 'Error: CEDAR:6001:Failed to connect' >&2; exit 1")
    await looked(calls)
    assert (await server.status()).phase is Phase.RUNNING
    calls.mend()
    await server.backend.find(server.tag)
    assert (await server.status()).phase is Phase.RUNNING


async def test_a_thousand_jobs_of_others_cost_nothing(make: Make, pool: Condor, calls: Commands) -> None:
    pool.off("negotiator")
    try:
        pool.sleeper(user="bob", count=1000)
        # some say that they are ours, at length
        much = f'"{"x" * 30000}"'
        for more in (f"+LastVacateReason = {much}", f"+ExitCode = size({much})"):
            pool.sleeper(f'+HEPSpawnerHub = "{HUB}"', more, user="bob")
        server = await Server(make()).submit()
        calls.clear()
        assert await server.backend.find(server.tag) == server.job
        listed = await server.backend._list()
        assert list(listed) == [server.job]
        assert len(questions(calls)) == 1
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
    assert len(calls.calls("condor_history")) < len(servers) / 2
    assert len(questions(calls)) == 1


def questions(calls: Commands) -> set[str]:
    """What was asked of the queue; how often is a matter of time."""
    return {arguments for _, _, arguments in calls.calls("condor_q")}
