"""What users of a pool notice when all is well: its event log, what a job said, several pools, as whom jobs run."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.conformance.htcondor_rig import HTCondorRig
from tests.htcondor import counting_commands
from tests.hubs import pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "htcondor", "users")

# As docs/htcondor.md has it, but so small that it is rotated again and again.
EVENTS = """
EVENT_LOG = $(LOG)/EventLog
EVENT_LOG_FORMAT_OPTIONS = JSON
EVENT_LOG_JOB_AD_INFORMATION_ATTRS = HEPSpawnerTag, Owner, NumJobStarts, LastRemoteHost
EVENT_LOG_MAX_SIZE = 20000
"""


class Pool(HTCondorRig):
    """A pool whose event log the hub reads, and whose commands are counted."""

    def __init__(self, engines: dict[str, Any]):
        super().__init__(engines, EXTRA_CONF=EVENTS)
        self.commands = counting_commands(self.directory / "commands")

    def part(self, **more: Any) -> dict[str, Any]:
        paths = {name: str(self.commands.directory / name) for name in self.commands.names}
        part = super().part()
        return {**part, "commands": {**part["commands"], "paths": paths}, **more}

    def site(self, **more: Any) -> dict[str, Any]:
        return {"images": self.images(), "backends": {"engine": self.part(**more)}}


@pytest.fixture(scope="module")
def rig(engines: dict[str, Any]) -> Iterator[Pool]:
    one = Pool(engines)
    yield one
    one.close()


@pytest.fixture(scope="module")
def module_hub(rig: Pool, engines: dict[str, Any]) -> Iterator[RealHub]:
    one = RealHub(engines["hub6"], rig.site())
    one.start()
    yield one
    one.stop()


@pytest.fixture
def hub(module_hub: RealHub, rig: Pool) -> Iterator[RealHub]:
    yield module_hub
    rig.release()
    module_hub.stop_servers()
    rig.condor.remove_all()


def start(hub: RealHub, user: str, **options: Any) -> None:
    """A server that runs."""
    answer = hub.start_server(user, {"image": "tiny", **options})
    assert answer.status_code in (201, 202), answer.text
    hub.ready(user)


def form_says(hub: RealHub, user: str, words: str) -> None:
    """The form tells how the last server ended."""
    person = hub.browser(user)
    eventually(lambda: words in unescape(person.form().text), f"the form tells: {words}")


def launchers(rig: Pool) -> list[int]:
    return [pid for pid, line in rig.condor.processes().items() if "launcher.py" in line]


# --- the event log: the queue is asked once in an hour


@pytest.fixture
def listening(hub: RealHub, rig: Pool) -> RealHub:
    hub.change_site(rig.site(poll_interval="1h", event_log=str(rig.condor.directory / "log/EventLog")))
    return hub


@contextmanager
def nobody_to_ask(rig: Pool) -> Iterator[None]:
    """What is known all the same, only the event log can have told."""
    for name in ("condor_q", "condor_history"):
        rig.commands.break_(name, "exit 1")
    try:
        yield
    finally:
        rig.commands.mend()


def test_a_launcher_that_was_killed_is_known_at_once(listening: RealHub, rig: Pool) -> None:
    start(listening, "alice")
    (launcher,) = launchers(rig)
    with nobody_to_ask(rig):
        subprocess.run(["kill", "-KILL", str(launcher)], check=True)
        form_says(listening, "alice", "it was killed by signal 9")


def test_a_queued_job_that_is_held_released_and_removed(listening: RealHub, rig: Pool) -> None:
    rig.hold()
    listening.begin("alice", {"image": "tiny"})
    job = int(listening.reached("submitted", "alice")["job"])
    rig.condor.wait_for(job, "idle")
    person = listening.browser("alice")
    says = lambda words: eventually(lambda: words in unescape(person.get("/hub/spawn-pending/alice").text), words)  # noqa: E731
    says("the pool has not looked at it yet")
    rig.condor.hold(job)
    says("condor holds it")
    rig.condor.release(job)
    says("the pool has not looked at it yet")
    with nobody_to_ask(rig):
        rig.condor.remove(job)
        form_says(listening, "alice", "condor removed the job")


def test_what_htcondor_holds_is_told_and_removed(listening: RealHub, rig: Pool) -> None:
    listening.change_site(
        rig.site(poll_interval="1h", event_log=str(rig.condor.directory / "log/EventLog"), python="/nonexistent/python")
    )
    listening.start_server("alice", {"image": "tiny"})
    form_says(listening, "alice", "its node could not run the job's Python")
    eventually(lambda: not rig.jobs(listening.id), "the job is removed")


# --- how the hub reaches a server


def test_a_node_is_reached_by_its_name_where_the_site_says_so(hub: RealHub, rig: Pool) -> None:
    hub.change_site(rig.site(address="hostname"))
    start(hub, "alice")
    (target,) = [
        route["target"] for path, route in hub.api("GET", "/proxy").json().items() if path.startswith("/user/alice/")
    ]
    assert urlsplit(target).hostname == socket.getfqdn().lower()


# --- the last words of a job that never claimed


def test_what_a_job_said_before_its_claim_reaches_its_user(hub: RealHub, rig: Pool) -> None:
    old = rig.directory / "old-python"
    old.write_text("#!/bin/sh\necho 'SyntaxError: invalid syntax, said a Python of 2008' >&2\nexit 1\n")
    old.chmod(0o755)
    hub.change_site(rig.site(python=str(old)))
    hub.start_server("alice", {"image": "tiny"})
    form_says(hub, "alice", "the job ended with exit code 1")
    form_says(hub, "alice", "said a Python of 2008")
