"""The event log: what is read of it, whatever it is in, and followed by the real tail whatever happens to the file."""

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepspawner.backends.base import Phase, Tag
from hepspawner.backends.command import Commands, CommandsConfig
from hepspawner.backends.htcondor import HTCondorBackend, HTCondorConfig, events
from hepspawner.backends.htcondor.config import HTCondorCommands
from hepspawner.backends.tags import write_tag
from tests.conformance.rig import command_lines
from tests.machine import eventually

TAG = Tag("0123456789ab", "alice", "", "f" * 32)
NOW = 1_800_000_000.0


def event(kind: int, **more: Any) -> dict[str, Any]:
    """An event as the schedd adds it to another of some kind, see EVENT_LOG_JOB_AD_INFORMATION_ATTRS."""
    own = {"EventTypeNumber": 28, "TriggerEventTypeNumber": kind, "Cluster": 7, "Proc": 0, "Owner": "alice"}
    return {**own, "HEPSpawnerTag": write_tag(TAG), "NumJobStarts": 1, **more}


def written(*many: Mapping[str, Any]) -> bytes:
    return "".join(json.dumps(one, indent=2) + "\n" for one in many).encode()


@pytest.mark.parametrize(
    ("kind", "more", "phase", "said"),
    [
        (1, {"SlotName": "slot1_2@node3@worker.example.org"}, Phase.RUNNING, ""),
        (5, {"TerminatedNormally": True, "ReturnValue": 75}, Phase.ENDED, "could not reach the hub"),
        (5, {"TerminatedNormally": False, "TerminatedBySignal": 9}, Phase.ENDED, "killed by signal 9"),
        (9, {"Reason": "via condor_rm (by user bob)"}, Phase.ENDED, "bob removed the job"),
        (12, {"HoldReason": "Failed to execute", "HoldReasonCode": 6}, Phase.ENDED, "could not run the job's Python"),
        (12, {"HoldReason": "(by user eve)", "HoldReasonCode": 1, "NumJobStarts": 0}, Phase.QUEUED, "eve holds it"),
    ],
)
def test_what_events_mean(kind: int, more: dict[str, Any], phase: Phase, said: str) -> None:
    read = events.read_event(event(kind, **more), NOW)
    assert read and (read.job, read.owner, read.tag) == ("7", "alice", TAG)
    assert read.status and read.status.phase is phase and said in read.status.reason
    assert read.held == (kind == 12)
    assert kind != 1 or read.status.host == "node3@worker.example.org"


def test_an_eviction_alone_tells_too_little() -> None:
    read = events.read_event(event(4, Reason="x"), NOW)
    assert read and read.status is None


@pytest.mark.parametrize("other", [{}, event(0), event(6), event(5, EventTypeNumber=5), event(5, Cluster="7")])
def test_other_events_mean_nothing(other: dict[str, Any]) -> None:
    assert events.read_event(other, NOW) is None


@given(st.dictionaries(st.sampled_from([*event(1), "SlotName", "ReturnValue", "HoldReasonCode"]), st.integers()))
def test_odd_events_do_no_harm(odd: dict[str, Any]) -> None:
    events.read_event({**event(12), **odd}, NOW)


@given(st.lists(st.integers(1, 400), max_size=30))
def test_events_come_in_any_pieces(sizes: list[int]) -> None:
    text, reader = written(event(1), event(9, Reason="}\n{\n...\n")), events.Reader()
    pieces = []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    read = [one for piece in [*pieces, text] for one in reader.feed(piece)]
    assert [one["TriggerEventTypeNumber"] for one in read] == [1, 9] and not reader.odd


@pytest.mark.parametrize(
    ("rubbish", "odd"),
    [
        (b"000 (001.000.000) 11/21 Job submitted\n...\n", True),
        (b"<c>\n", True),
        (b"\xff\0\n", False),
        (b"{\n nonsense\n}\n", False),
        (written(event(9))[:50], False),
        (written(event(9))[50:], False),
    ],
)
def test_what_cannot_be_read_is_left_out_and_what_follows_read(rubbish: bytes, odd: bool) -> None:
    reader = events.Reader()
    assert len(reader.feed(rubbish + b"\n" + written(event(1)))) == 1
    assert reader.odd == odd


def test_it_takes_no_more_memory_than_an_event_may_have() -> None:
    reader = events.Reader()
    for _ in range(100):
        assert not reader.feed(b"x" * 65536)
    assert not reader.feed(b"\n{\n")
    for _ in range(100):
        assert not reader.feed(b"y" * 8192 + b"\n")
    kept = len(reader._rest) + sum(map(len, reader._lines))
    assert kept < 300_000
    assert reader.feed(b"\n" + written(event(1)))


async def test_nobody_ends_another_s_job_by_an_event_of_his_own() -> None:
    backend = HTCondorBackend("farm", HTCondorConfig(type="htcondor"), logging.getLogger("test"))
    seen = list[Phase]()
    backend.hub, backend.on_change = TAG.hub, lambda session, status: seen.append(status.phase)
    backend._track("7", TAG)
    end = {"TerminatedNormally": True, "ReturnValue": 0}
    other = write_tag(Tag(TAG.hub, "alice", "", "e" * 32))
    for wrong in ({"Owner": "bob"}, {"Cluster": 8}, {"HEPSpawnerTag": other}, {"HEPSpawnerTag": "x"}):
        backend._happened(event(5, **{**end, **wrong}))
    assert not seen
    backend._happened(event(1, SlotName="slot1@worker"))
    backend._happened(event(5, **end))
    backend._happened(event(1, SlotName="slot1@worker"))
    assert seen == [Phase.RUNNING, Phase.ENDED]


# --- the file


class Following:
    """What was told of a file that is followed."""

    def __init__(self, path: Path):
        self.path, self.told = path, list[int]()
        commands = Commands(CommandsConfig())
        note = lambda event: self.told.append(event["Cluster"])  # noqa: E731
        self.task = asyncio.ensure_future(events.follow(str(path), commands, note, logging.getLogger("test")))

    def append(self, job: int) -> None:
        with self.path.open("ab") as file:
            file.write(written(event(1, Cluster=job)))

    async def has_told(self, *jobs: int) -> None:
        end = time.monotonic() + 40
        while self.told[-len(jobs) :] != list(jobs):
            assert time.monotonic() < end, self.told
            await asyncio.sleep(0.02)

    async def listens(self) -> None:
        """Until it does: only what is new is told."""
        end = time.monotonic() + 40
        while not self.told:
            assert time.monotonic() < end
            self.append(0)
            await asyncio.sleep(0.2)


@pytest.fixture
async def follow(tmp_path: Path) -> AsyncIterator[Callable[[], Following]]:
    made: list[Following] = []

    def new() -> Following:
        made.append(Following(tmp_path / "EventLog"))
        return made[-1]

    yield new
    for one in made:
        one.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await one.task


async def test_what_is_appended_is_told_and_what_was_there_is_not(
    follow: Callable[[], Following], tmp_path: Path
) -> None:
    (tmp_path / "EventLog").write_bytes(written(*(event(1, Cluster=number) for number in range(1, 100))))
    log = follow()
    await log.listens()
    assert set(log.told) == {0}
    log.append(100)
    await log.has_told(100)


async def test_a_log_that_is_rotated_cut_or_not_there_yet(follow: Callable[[], Following], tmp_path: Path) -> None:
    log = follow()
    await log.listens()
    os.rename(log.path, tmp_path / "EventLog.old")
    log.append(1)
    await log.has_told(1)
    log.append(2)
    await log.has_told(1, 2)
    log.path.write_bytes(b"")
    await log.listens()
    log.append(3)
    await log.has_told(3)
    log.path.unlink()
    log.append(4)
    await log.has_told(4)


async def test_a_log_that_is_no_json_is_told_once(
    follow: Callable[[], Following], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "_AGAIN", 0.05)
    log = follow()
    await log.listens()
    for _ in range(20):
        with log.path.open("ab") as file:
            file.write(b"000 (001.000.000) 11/21 10:11:50 Job submitted\n...\n")
        await asyncio.sleep(0.05)
    log.told.clear()
    await log.listens()
    assert [record.message for record in caplog.records if "no JSON" in record.message] == [
        f"The event log {log.path} cannot be followed: it is no JSON, see docs/htcondor.md"
    ]


def test_nothing_follows_once_the_hub_was_killed(tmp_path: Path) -> None:
    script = f"""
import asyncio, logging
from hepspawner.backends.command import Commands, CommandsConfig
from hepspawner.backends.htcondor import events
asyncio.run(events.follow({str(tmp_path / "EventLog")!r}, Commands(CommandsConfig()), print, logging.getLogger()))
"""
    hub = subprocess.Popen([sys.executable, "-c", script])
    follows = lambda: [line for line in command_lines().values() if line.startswith("tail") and str(tmp_path) in line]  # noqa: E731
    try:
        eventually(follows, "the log is followed")
    finally:
        hub.kill()
        hub.wait()
    eventually(lambda: not follows(), "it is not followed any more")


def test_a_log_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    config = HTCondorConfig.model_validate({"type": "htcondor", "event_log": str(tmp_path / "none")})
    problems = HTCondorBackend("farm", config, logging.getLogger("test")).problems()
    assert f"{tmp_path}/none cannot be read (event_log)" in problems


async def test_without_tail_it_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    commands = Commands(HTCondorCommands(paths={"tail": "/nonexistent/tail"}))
    task = asyncio.ensure_future(events.follow("/x", commands, lambda event: None, logging.getLogger("test")))
    end = time.monotonic() + 40
    while "/nonexistent/tail cannot be run" not in caplog.text:
        assert time.monotonic() < end
        await asyncio.sleep(0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
