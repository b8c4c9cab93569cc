"""Claims and reports: who may have what a server is started with, and who may not."""

import secrets
import time
from typing import Any

import pytest
import requests

from hepspawner.hub.tickets import Tickets
from tests.conformance.rig import BackendRig
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")


def claim(hub: RealHub, ticket: Any, claimant: Any = None, **more: Any) -> requests.Response:
    """What a launcher would send, without any other right."""
    body = {"ticket": ticket, "claimant": claimant or secrets.token_hex(16), "host": "127.0.0.1", "port": 12345, **more}
    return requests.post(f"{hub.url}/hub/api/hepspawner/claim", json=body, timeout=30)


def report(hub: RealHub, session: Any, key: Any, **more: Any) -> requests.Response:
    body = {"session": session, "key": key, **more}
    return requests.post(f"{hub.url}/hub/api/hepspawner/report", json=body, timeout=30)


@pytest.fixture
def queued(hub: RealHub, rig: BackendRig) -> str:
    """The session of a server that waits for its launcher."""
    rig.hold()
    hub.begin(rig.users[0], {"image": "tiny"})
    return str(hub.reached("submitted", rig.users[0])["session"])


@pytest.fixture
def tickets(hub: RealHub) -> Tickets:
    """What makes the hub's tickets."""
    return Tickets(hub.secret)


def test_the_first_claimant_gets_it_and_nobody_else(
    hub: RealHub, rig: BackendRig, queued: str, tickets: Tickets
) -> None:
    ticket, claimant = tickets.issue(queued, time.time() + 60), secrets.token_hex(16)
    first = claim(hub, ticket, claimant)
    assert first.status_code == 200, first.text
    token = first.json()["environment"]["JUPYTERHUB_API_TOKEN"]
    assert hub.api("GET", "/user", token=token).json()["name"] == rig.users[0]
    assert first.json()["key"] == tickets.report_key(queued)
    # an answer may get lost: the same launcher may ask again
    assert claim(hub, ticket, claimant).json() == first.json()
    second = claim(hub, ticket)
    assert second.status_code == 403 and token not in second.text
    assert "used already" in hub.new_log()
    # the real launcher comes too late, is refused, and its job ends
    rig.release()
    hub.gone(rig.users[0])
    assert ticket not in hub.log()


def test_a_ticket_stays_used_when_the_hub_dies(hub: RealHub, rig: BackendRig, queued: str, tickets: Tickets) -> None:
    ticket, claimant = tickets.issue(queued, time.time() + 60), secrets.token_hex(16)
    first = claim(hub, ticket, claimant).json()
    hub.restart()
    assert claim(hub, ticket).status_code == 403
    again = claim(hub, ticket, claimant)
    assert again.status_code == 200
    # the hub knows the old token by its hash alone: there is a new one, and the old one is worth nothing
    old, new = (answer["environment"]["JUPYTERHUB_API_TOKEN"] for answer in (first, again.json()))
    assert hub.api("GET", "/user", token=new).json()["name"] == rig.users[0]
    assert old == new or hub.api("GET", "/user", token=old).status_code == 403


@pytest.mark.parametrize("what", ["forged", "expired", "other hub", "unknown session"])
def test_wrong_tickets_are_refused(hub: RealHub, queued: str, tickets: Tickets, what: str) -> None:
    good = tickets.issue(queued, time.time() + 60)
    ticket = {
        "forged": good[:-1] + ("0" if good[-1] != "0" else "1"),
        "expired": tickets.issue(queued, time.time() - 1),
        "other hub": Tickets(b"another secret").issue(queued, time.time() + 60),
        "unknown session": tickets.issue(secrets.token_hex(16), time.time() + 60),
    }[what]
    answer = claim(hub, ticket)
    assert answer.status_code == 403, answer.text
    assert "environment" not in answer.json()
    log = hub.new_log()
    assert "refused /hub/api/hepspawner/claim" in log
    assert ticket not in log and good not in log
    assert claim(hub, good).status_code == 200  # and the right one is as good as before


def test_a_ticket_is_worth_nothing_for_another_session(
    hub: RealHub, rig: BackendRig, queued: str, tickets: Tickets
) -> None:
    other = rig.users[1]
    hub.begin(other, {"image": "tiny"})
    session = hub.reached("submitted", other)["session"]
    answer = claim(hub, tickets.issue(session, time.time() + 60))
    assert answer.json()["environment"]["JUPYTERHUB_USER"] == other
    key = answer.json()["key"]
    # neither does the key of one session speak for another
    assert report(hub, queued, key, event="ready", host="127.0.0.1", port=12345).status_code == 403
    assert hub.model(rig.users[0])["pending"] == "spawn"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{",
        b"\xff\xfe",
        b"[" * 10000,
        b'{"ticket": ' + b"[" * 10000,
        b'{"ticket": "' + b"x" * 100_000 + b'"}',
        b'{"ticket": 5}',
        b'{"ticket": null}',
        b'{"ticket": {"a": 1}}',
        b'{"ticket": "..", "claimant": "x"}',
    ],
    ids=lambda body: body[:20].decode(errors="replace"),
)
@pytest.mark.parametrize("where", ["claim", "report"])
def test_malformed_requests_are_refused_quietly(hub: RealHub, body: bytes, where: str) -> None:
    answer = requests.post(f"{hub.url}/hub/api/hepspawner/{where}", data=body, timeout=30)
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in hub.new_log()


WRONG: list[dict[str, Any]] = [
    {"claimant": "short"},
    {"claimant": "x" * 201},
    {"claimant": 5},
    {"claimant": ["x"]},
    {"port": 0},
    {"port": 65536},
    {"port": "80"},
    {"port": True},
    {"port": None},
    {"host": ""},
    {"host": None},
    {"host": "a b"},
    {"host": "x" * 300},
    {"host": "ü"},
    {"host": "evil.example.org/path"},
    {"host": "user@host"},
]


def test_malformed_claims_are_refused(hub: RealHub, queued: str, tickets: Tickets) -> None:
    ticket = tickets.issue(queued, time.time() + 60)
    for wrong in WRONG:
        assert claim(hub, ticket, **wrong).status_code == 403, wrong
    assert "Traceback" not in hub.new_log()
    assert claim(hub, ticket).status_code == 200  # nothing was used up


def test_after_the_end_a_ticket_and_a_key_are_worth_nothing(hub: RealHub, rig: BackendRig, tickets: Tickets) -> None:
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    session = hub.state(user)["session"]
    ticket, key = tickets.issue(session, time.time() + 60), tickets.report_key(session)
    assert claim(hub, ticket).status_code == 403  # it runs: its launcher has claimed
    hub.stop_server(user)
    hub.gone(user)
    assert claim(hub, ticket).status_code == 403
    assert report(hub, session, key, event="ready", host="127.0.0.1", port=12345).status_code == 410
    assert not hub.model(user)


def test_reports_need_the_key(hub: RealHub, queued: str, tickets: Tickets) -> None:
    assert claim(hub, tickets.issue(queued, time.time() + 60)).status_code == 200
    ready = {"event": "ready", "host": "127.0.0.1", "port": 12345}
    for key in ("", "0" * 64, tickets.issue(queued, time.time() + 60), None, 5, "ü"):
        assert report(hub, queued, key, **ready).status_code == 403
    key = tickets.report_key(queued)
    assert report(hub, queued, key, event="party").status_code == 403
    assert report(hub, queued, key, event="ready", host="169.254.169.254/x", port=80).status_code == 403
    assert "Traceback" not in hub.new_log()


def test_what_a_node_reports_cannot_hurt_a_page_or_the_log(
    hub: RealHub, rig: BackendRig, queued: str, tickets: Tickets
) -> None:
    token = claim(hub, tickets.issue(queued, time.time() + 60)).json()["environment"]["JUPYTERHUB_API_TOKEN"]
    lines = ["<script>alert(1)</script>", "\x1b[31mred\x1b[0m", "x" * 5000, token, "\0"] * 8
    more = {"event": "exit", "code": 10**30, "reason": "exited", "seconds": -1, "log": lines}
    assert report(hub, queued, tickets.report_key(queued), **more).status_code == 200
    user = rig.users[0]
    hub.gone(user)
    form = hub.browser(user).form().text
    assert "<script>alert(1)" not in form and "&lt;script&gt;alert(1)" in form
    assert "\x1b" not in form + hub.new_log()
    assert "x" * 600 not in form
    assert token not in form + hub.log()


def test_a_launcher_that_is_refused_ends_its_job_and_the_start(
    hub: RealHub, rig: BackendRig, queued: str, tickets: Tickets
) -> None:
    assert claim(hub, tickets.issue(queued, time.time() + 60)).status_code == 200
    rig.release()
    eventually(lambda: not rig.jobs(queued), "the job ends")
    hub.gone(rig.users[0])
