"""The account of the machine that a user's jobs run as."""

import asyncio
import os
import pwd
from dataclasses import dataclass
from typing import Any

from .base import BackendError

_DEADLINE = 30.0


@dataclass(frozen=True)
class Account:
    """An account, and what a process needs to run as it (empty where it is the hub's own)."""

    name: str
    uid: int
    home: str
    process: dict[str, Any]


def own_account() -> Account:
    """The account that the hub runs as."""
    entry = pwd.getpwuid(os.geteuid())
    return Account(entry.pw_name, entry.pw_uid, entry.pw_dir, {})


async def account_of(user: str, allow_root: bool = False) -> Account:
    """The account that is called like a user. Raises BackendError where there is none, or it is root."""
    try:
        # In a thread, with a deadline: accounts may come over the network.
        return await asyncio.wait_for(asyncio.to_thread(_look_up, user, allow_root), _DEADLINE)
    except asyncio.TimeoutError:
        raise BackendError(f"the account {user!r} could not be looked up within {_DEADLINE:.0f} s") from None


def _look_up(user: str, allow_root: bool) -> Account:
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):  # ValueError: a NUL in the name
        raise BackendError(f"there is no account {user!r} on this machine") from None
    if entry.pw_uid == 0 and not allow_root:
        raise BackendError("servers do not run as root here (the key allow_root of a local backend would let them)")
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    process = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
    return Account(entry.pw_name, entry.pw_uid, entry.pw_dir, process)
