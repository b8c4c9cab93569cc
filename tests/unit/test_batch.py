"""What batch systems have in common, on one that is made up: faults that a real one cannot be made to show at will."""

import asyncio
import logging

import pytest

from hepspawner.backends import batch
from hepspawner.backends.base import BackendError, JobStatus, Phase, Tag
from hepspawner.backends.batch import BatchBackend, BatchConfig, Listed
from hepspawner.backends.command import CommandError
from hepspawner.backends.tags import as_written

LOG = logging.getLogger("test")
INTERVAL = 0.05
RUNNING, QUEUED = JobStatus(Phase.RUNNING, host="c1"), JobStatus(Phase.QUEUED, "wait")
ENDED = JobStatus(Phase.ENDED, "it ended")


def tag(session, user="me"):
    return Tag("hub", user, "", session)


class Farm(BatchBackend):
    """A batch system in memory; `down` makes every question fail."""

    def __init__(self, *jobs):
        config = BatchConfig.model_validate({"type": "farm", "run_as": "none"})
        super().__init__("farm", config.model_copy(update={"poll_interval": INTERVAL}), LOG)
        self.jobs = {job: Listed(job, self._own.name, as_written(tag(session)), RUNNING) for job, session in jobs}
        self.hub, self.down = "hub", ""
        self.looks = 0
        self.removed, self.changes, self.known = [], [], {}
        self.submission = lambda tag: "new"
        self.on_change = lambda session, status: self.changes.append((session, status))

    def preview(self, session):
        return ""

    async def _submit(self, session, tag, job_input, account):
        answer = self.submission(tag)
        return await answer if asyncio.iscoroutine(answer) else answer

    async def _list(self):
        self.looks += 1
        if self.down:
            raise BackendError(self.down)
        return {job: one for job, one in self.jobs.items() if self.trusted(one.account, one.tag) or one.tag is None}

    async def _explain(self, ended):
        if self.down:
            raise BackendError(self.down)
        return {job: self.known[job] for job in ended if job in self.known}

    async def _end(self, jobs, account):
        if self.down:
            raise CommandError(self.down)
        self.removed.append(sorted(jobs))
        for job in jobs:
            self.jobs.pop(job, None)

    def set(self, job, status):
        self.jobs[job] = Listed(job, self._own.name, self.jobs[job].tag, status)


@pytest.fixture
async def farm():
    farms = []

    def make(*jobs):
        farms.append(Farm(*jobs))
        farms[-1].open()
        return farms[-1]

    yield make
    for one in farms:
        await one.close()


async def until(condition):
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that")


async def test_however_many_ask_there_is_one_look(farm):
    one = farm(*((str(i), f"s{i}") for i in range(600)))
    await one._watcher.look()
    looks = one.looks
    found = await asyncio.gather(*(one.find(tag(f"s{i}")) for i in range(600)))
    assert found == [str(i) for i in range(600)]
    assert one.looks - looks <= 2
    looks = one.looks
    statuses = [await one.status(str(i), tag(f"s{i}")) for i in range(600)]
    assert statuses == [RUNNING] * 600
    assert one.looks - looks <= 1


async def test_what_cannot_be_told_is_not_the_end(farm):
    one = farm(("1", "s"))
    assert await one.find(tag("s")) == "1"
    one.down = "no answer"
    looks = one.looks
    await until(lambda: one.looks > looks + 3)
    assert await one.status("1", tag("s")) == RUNNING
    with pytest.raises(BackendError, match="no answer"):
        await one.find(tag("s"))
    one.down = ""
    assert await one.find(tag("s")) == "1"
    assert not one.changes


async def test_before_the_first_look_nothing_is_known(farm):
    one = farm()
    one.down = "no answer"
    assert (await one.status("1", tag("s"))).phase is Phase.UNKNOWN


async def test_a_job_that_is_listed_no_more_is_asked_about_and_lost_only_the_second_time(farm):
    one = farm(("1", "s"), ("2", "t"))
    await one.find(tag("s"))
    await one.find(tag("t"))
    one.known = {"2": JobStatus(Phase.ENDED, "exit code 3", 3)}
    one.jobs.clear()
    await until(lambda: len(one.changes) >= 2)
    assert one.changes[0] == ("t", one.known["2"])
    session, status = one.changes[1]
    assert (session, status.phase) == ("s", Phase.LOST)
    assert "knows nothing of job 1" in status.reason


async def test_one_answer_without_a_job_is_forgiven(farm):
    one = farm(("1", "s"))
    await one.find(tag("s"))
    gone = one.jobs.pop("1")
    looks = one.looks
    await until(lambda: one.looks > looks)
    one.jobs["1"] = gone
    looks = one.looks
    await until(lambda: one.looks > looks + 2)
    assert not one.changes


async def test_a_job_that_has_the_id_of_ours_is_not_ours(farm):
    one = farm(("1", "s"))
    await one.find(tag("s"))
    one.jobs["1"] = Listed("1", one._own.name, as_written(tag("another")), RUNNING)
    one.owned = lambda tag: True
    await until(lambda: one.changes)
    assert one.changes[0][1].phase is Phase.LOST
    await one.cancel("1", tag("s"), 0)  # nothing of ours is there
    assert (await one.status("1", tag("another"))).phase is not Phase.ENDED


async def test_nobodys_job_is_removed_after_a_while_and_nothing_else(farm, caplog):
    one = farm(("1", "mine"), ("2", "nobody's"), ("3", "foreign"))
    one.jobs["3"] = Listed("3", "somebody", as_written(tag("foreign")), RUNNING)
    one.jobs["4"] = Listed("4", one._own.name, None, RUNNING)
    one.jobs["5"] = Listed("5", one._own.name, Tag("another hub", "me", "", "x"), RUNNING)
    one.owned = lambda tag: tag.session == "mine"
    await until(lambda: one.removed)
    assert one.removed == [["2"]]
    assert set(one.jobs) == {"1", "3", "4", "5"}
    assert "job 2 (hub/me//nobody's) belongs to no server" in caplog.text
    looks = one.looks
    await until(lambda: one.looks > looks + 5)
    assert len(one.removed) == 1


async def test_a_submission_that_seemed_to_fail_is_found(farm):
    one = farm()

    async def made_all_the_same(tag):
        one.jobs["7"] = Listed("7", one._own.name, as_written(tag), QUEUED)
        raise CommandError("no answer", unclear=True)

    one.submission = made_all_the_same
    assert await one.submit(None, tag("s"), {}) == "7"
    assert await one.status("7", tag("s")) == QUEUED


async def test_a_submission_that_was_refused_is_not_looked_for(farm):
    one = farm()

    async def refused(tag):
        raise CommandError("partition: there is none")

    one.submission = refused
    looks = one.looks
    with pytest.raises(CommandError, match="partition"):
        await one.submit(None, tag("s"), {})
    assert one.looks - looks <= 1


async def test_a_submission_that_is_given_up_leaves_no_job(farm):
    one, sent, go = farm(), asyncio.Event(), asyncio.Event()

    async def slow(tag):
        sent.set()
        await go.wait()
        one.jobs["9"] = Listed("9", one._own.name, as_written(tag), QUEUED)
        return "9"

    one.submission = slow
    work = asyncio.ensure_future(one.submit(None, tag("s"), {}))
    await sent.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    go.set()
    await until(lambda: one.removed == [["9"]])


async def test_200_stops_are_few_commands(farm):
    one = farm(*((str(i), f"s{i}") for i in range(200)))
    await one._watcher.look()
    looks = one.looks
    await asyncio.gather(*(one.cancel(str(i), tag(f"s{i}"), 5) for i in range(200)))
    assert len(one.removed) <= 2 and not one.jobs
    assert one.looks - looks < 20  # on a slow machine some are those of each interval


async def test_a_user_whose_command_hangs_keeps_no_other_s_job_alive(farm, monkeypatch):
    """As with sudo and tokens, where each user's jobs are ended by a command of their own."""
    one = farm(("1", "a"), ("2", "b"))
    end, hangs = one._end, asyncio.Event()

    async def ended_by(jobs, account):
        await (hangs.wait() if account == "alice" else end(jobs, account))

    async def account(user):
        return user

    monkeypatch.setattr(one, "_end", ended_by)
    monkeypatch.setattr(one, "account", account)
    monkeypatch.setattr(type(one), "_may_end_all", False)
    orders = asyncio.ensure_future(one._remove([("1", "alice"), ("2", "bob")]))
    await until(lambda: "2" not in one.jobs)
    assert not orders.done()
    orders.cancel()


async def test_a_stop_is_given_up_though_the_order_hangs(farm, monkeypatch):
    monkeypatch.setattr(batch, "_CANCEL_PATIENCE", 0.1)
    one = farm(("1", "a"))
    monkeypatch.setattr(one._removing, "_work", lambda jobs: asyncio.Event().wait())
    with pytest.raises(BackendError, match="the order to end it was not given in time"):
        await asyncio.wait_for(one.cancel("1", tag("a"), 0), 60)


async def test_a_job_that_will_never_start_is_looked_at_twice(farm):
    one = farm(("1", "s"))
    await one.find(tag("s"))
    one.set("1", JobStatus(Phase.QUEUED, "not yet known", hopeless=True))
    await until(lambda: one.changes)
    assert one.changes[0] == ("s", JobStatus(Phase.QUEUED, "not yet known"))
    one.set("1", JobStatus(Phase.QUEUED, "too long", hopeless=True))
    await until(lambda: len(one.changes) > 1)
    assert one.changes[1] == ("s", JobStatus(Phase.QUEUED, "too long", hopeless=True))


async def test_how_it_ended_is_waited_for_a_moment(farm):
    one = farm(("1", "s"))
    await one.find(tag("s"))
    verdict = asyncio.ensure_future(one.verdict("1"))
    await asyncio.sleep(0)
    one.set("1", ENDED)
    assert await verdict == ENDED
    one.down = "no answer"
    assert await one.verdict("1") is None


async def test_an_error_in_reading_an_answer_is_logged_and_survived(farm, caplog):
    one = farm(("1", "s"))
    await one.find(tag("s"))
    listed, one.jobs = one.jobs, None
    looks = one.looks
    await until(lambda: one.looks > looks + 1)
    one.jobs = listed
    assert await one.find(tag("s")) == "1"
    assert "a look at its jobs failed" in caplog.text
