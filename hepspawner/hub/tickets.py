"""Tickets: what a job carries instead of secrets. Signed by the hub, for one session, for a limited time.

Keys come from the hub's cookie secret, so a ticket outlives a restart of the hub; that it is good only once is the
business of `hepspawner.hub.run`. Nothing here is ever logged or stored.
"""

import hmac
import re
import time
from hashlib import sha256

_TICKET = re.compile(r"([0-9a-f]{32})\.([0-9]{1,12})\.([0-9a-f]{64})")


class TicketError(Exception):
    """A ticket or key that is not accepted; the message says why, without quoting it."""


class Tickets:
    """Makes and checks tickets and report keys of one hub."""

    def __init__(self, secret: bytes):
        self._secret = hmac.new(secret, b"hepspawner", sha256).digest()

    def issue(self, session: str, expires: float) -> str:
        """The ticket of a session, good until `expires` (seconds since the epoch)."""
        until = int(expires)
        return f"{session}.{until}.{self._sign('ticket', session, until)}"

    def redeem(self, ticket: object) -> str:
        """The session of a ticket. Raises TicketError."""
        match = _TICKET.fullmatch(ticket) if isinstance(ticket, str) else None
        if not match:
            raise TicketError("malformed ticket")
        session, until = match[1], int(match[2])
        if not hmac.compare_digest(match[3], self._sign("ticket", session, until)):
            raise TicketError("ticket with a wrong signature")
        if until < time.time():
            raise TicketError("ticket is too old")
        return session

    def report_key(self, session: str) -> str:
        """What authorises the reports of a session; given to the launcher by claim."""
        return self._sign("report", session, 0)

    def check_key(self, session: object, key: object) -> str:
        """The session that a report is for. Raises TicketError."""
        if not isinstance(session, str) or not isinstance(key, str) or not (session + key).isascii():
            raise TicketError("malformed report")
        if not hmac.compare_digest(key, self.report_key(session)):
            raise TicketError("report with a wrong key")
        return session

    def _sign(self, purpose: str, session: str, until: int) -> str:
        return hmac.new(self._secret, f"{purpose}\0{session}\0{until}".encode(), sha256).hexdigest()
