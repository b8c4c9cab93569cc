"""Tickets and report keys: good for one session of one hub, for their time, and for nothing else."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepspawner.hub.tickets import TicketError, Tickets

SESSION = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
LATER = time.time() + 3600

tickets = Tickets(b"the hub's cookie secret")


def test_a_ticket_is_good_for_its_session():
    assert tickets.redeem(tickets.issue(SESSION, LATER)) == SESSION


def test_a_ticket_outlives_a_restart_of_the_hub():
    assert Tickets(b"the hub's cookie secret").redeem(tickets.issue(SESSION, LATER)) == SESSION


def test_a_ticket_ends(monkeypatch):
    ticket = tickets.issue(SESSION, LATER)
    monkeypatch.setattr(time, "time", lambda: LATER + 2)
    with pytest.raises(TicketError, match=r"^ticket is too old$"):
        tickets.redeem(ticket)


@pytest.mark.parametrize(
    "change",
    [
        lambda ticket: ticket.replace(SESSION, OTHER),
        lambda ticket: ticket.replace(str(int(LATER)), str(int(LATER) + 9999)),
        lambda ticket: ticket[:-1] + ("0" if ticket[-1] != "0" else "1"),
        lambda ticket: Tickets(b"another hub's").issue(SESSION, LATER),
        lambda ticket: f"{SESSION}.{int(LATER)}.{tickets.report_key(SESSION)}",
    ],
    ids=["session", "time", "signature", "another hub's", "a report key"],
)
def test_a_changed_ticket_is_refused(change):
    with pytest.raises(TicketError, match=r"^ticket with a wrong signature$"):
        tickets.redeem(change(tickets.issue(SESSION, LATER)))


@pytest.mark.parametrize(
    "ticket",
    [
        None,
        7,
        b"",
        "",
        [],
        {},
        "a.b.c",
        SESSION,
        f"{SESSION}.1",
        f"{SESSION.upper()}.1.{'0' * 64}",
        "\ud800",
        "x" * 10**6,
    ]
    + [tickets.issue(SESSION, LATER) + end for end in ("\n", " ", ".", "0", "\0")],
)
def test_a_malformed_ticket_is_refused_and_not_quoted(ticket):
    with pytest.raises(TicketError, match=r"^malformed ticket$"):
        tickets.redeem(ticket)


def test_a_key_is_good_for_the_reports_of_its_session():
    assert tickets.check_key(SESSION, tickets.report_key(SESSION)) == SESSION
    for session, key in [
        (OTHER, tickets.report_key(SESSION)),
        (SESSION, tickets.report_key(OTHER)),
        (SESSION, Tickets(b"another hub's").report_key(SESSION)),
        (SESSION, tickets.issue(SESSION, 0).rpartition(".")[2]),
        (SESSION, ""),
    ]:
        with pytest.raises(TicketError, match=r"^report with a wrong key$"):
            tickets.check_key(session, key)


@pytest.mark.parametrize("session, key", [(None, ""), ("", None), (7, 7), ("\ud800", "x"), ("x", "ü"), ([], {})])
def test_a_malformed_report_is_refused(session, key):
    with pytest.raises(TicketError, match=r"^malformed report$"):
        tickets.check_key(session, key)


def test_neither_ticket_nor_key_tells_the_secret():
    assert "cookie" not in tickets.issue(SESSION, LATER) + tickets.report_key(SESSION)


@given(st.text() | st.integers() | st.none(), st.text() | st.integers() | st.none())
def test_nothing_else_is_ever_accepted(one, other):
    for attempt in (lambda: tickets.redeem(one), lambda: tickets.check_key(one, other)):
        with pytest.raises(TicketError):
            attempt()
