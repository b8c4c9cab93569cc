"""Waiting for what happens on this machine, and looking at its processes and ports."""

import os
import random
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 30.0
"""Seconds that a test waits for what has to happen; not spent where it does."""


def eventually(condition: Callable[[], Any], what: str = "", seconds: float = PATIENCE) -> Any:
    """What `condition()` returns as soon as that is true; an AssertionError where it never is."""
    end = time.monotonic() + seconds
    pause = 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:.0f} s: {what or condition}; last: {value!r}")
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


# Workers of one run (pytest-xdist) have ports of their own, and what was handed out lately is not handed out again:
# between the look and its use a port is nobody's.
_LOWEST = 12000 + 4500 * (int(os.environ.get("PYTEST_XDIST_WORKER", "gw3")[2:]) % 4)
_lately: deque[int] = deque(maxlen=1000)


def free_ports(count: int) -> int:
    """The first of some ports in a row that nobody has, outside the range from which the kernel hands out its own."""
    while True:
        first = random.randint(_LOWEST, _LOWEST + 4500 - count)
        ports = range(first, first + count)
        if any(port in _lately for port in ports):
            continue
        try:
            for port in ports:
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
        except OSError:
            continue
        _lately.extend(ports)
        return first


def free_port() -> int:
    """One such port."""
    return free_ports(1)


def processes_with(*texts: str) -> dict[int, str]:
    """Living processes in whose environment one of the texts is, as far as this account may see, with their command."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
                if any(text.encode() in environment for text in texts) and alive(int(entry.name)):
                    found[int(entry.name)] = (
                        (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    )
            except OSError:
                continue
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def connects(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0
