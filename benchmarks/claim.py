"""Claims a second that one hub answers, on one core: real claims over HTTP to a real hub, against its /hub/health.

The hub's sessions are stood in for by runs made in it, so that what is measured is the handler: ticket, claim, the
server's environment and argv, JSON. Each claim is repeated by its own claimant, which the hub must answer as the first.
"""

import asyncio
import json
import os
import sys
import time

from hubs import PREFIX, TRIVIAL, Hub, hepspawner
from tornado.httpclient import AsyncHTTPClient

# A spawner whose `python` is a script that keeps its job for us and waits: the session stays unclaimed.
KEEPER = """\
#!/bin/sh
umask 077; cat > "$HOME_OF_BENCH/job.new"; mv "$HOME_OF_BENCH/job.new" "$HOME_OF_BENCH/job"; exec sleep 600
"""
SECONDS = 5.0
AT_ONCE = 20


def unclaimed(hub: Hub) -> dict[str, object]:
    """Start a server whose launcher only keeps its job, and return that job."""
    hub.api("POST", "/users/claimer")
    try:
        hub.api("POST", "/users/claimer/server", {}, timeout=2)
    except TimeoutError:
        pass
    path = hub.directory / "job"
    deadline = time.monotonic() + 20
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("no job was submitted")
        time.sleep(0.05)
    return json.loads(path.read_text())


async def rate(url: str, body: bytes | None) -> float:
    """Requests a second with some at once, for some seconds."""
    client, count = AsyncHTTPClient(force_instance=True, max_clients=AT_ONCE), 0
    end = time.perf_counter() + SECONDS

    async def ask() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await client.fetch(url, method="POST" if body else "GET", body=body)
            count += 1

    start = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    return count / (time.perf_counter() - start)


def main() -> int:
    """Print the rate of claims and that of /hub/health, which is what the hub's HTTP alone costs."""
    hub = hepspawner([str(PREFIX / "bin/python"), "-I", "-S", str(TRIVIAL)])
    hub.prepare = lambda directory: _keeper(hub, directory)
    with hub:
        job = unclaimed(hub)
        claim = {"ticket": job["ticket"], "claimant": "c" * 32, "host": "127.0.0.1", "port": 40000}
        url = hub.hub_url + "/api/hepspawner/claim"
        claims = asyncio.run(rate(url, json.dumps(claim).encode()))
        health = asyncio.run(rate(hub.hub_url + "/health", None))
    print(f"claims: {claims:.0f} a second on one core")
    print(f"  /hub/health of the same hub, which does nothing: {health:.0f} (ratio {claims / health:.2f})")
    return 0


def _keeper(hub: Hub, directory: object) -> None:
    path = f"{directory}/keeper"
    with open(path, "w") as file:
        file.write(KEEPER.replace("$HOME_OF_BENCH", str(directory)))
    os.chmod(path, 0o755)
    hub.config = hub.config.replace("'type': 'local'", f"'type': 'local', 'python': {path!r}")


if __name__ == "__main__":
    sys.exit(main())
