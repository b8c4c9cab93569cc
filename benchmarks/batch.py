"""HEPSpawner and batchspawner side by side on a real batch system: what slurm.py and htcondor.py measure.

Both hubs use the same cluster, server process and versions; batchspawner is in an environment of its own
(`tests/rigs/setup.sh venv-batch`), configured as its documentation says. Where many run, its wrapper, which stays in
memory with 60 MB a server, gives way to a small one that does the same. Of batchspawner no more than --peer run: the
1200 commands a minute for 600 are more than 2 cores can do beside all else. Each user has an account, for this process
and what it starts alone (a mount namespace).
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from batch_hubs import CHECKOUT, BatchHub, Bench, Engine, in_own_namespace, make_accounts, names
from hubs import Hub, storm
from table import Table

PARTS = ("lab", "storm", "commands", "restart")
GENTLY = 12
"""Starts at once of the many."""


def one_lab(hub: BatchHub) -> float:
    """Seconds from asking for a JupyterLab until it is ready; it is stopped again."""
    begin = time.perf_counter()
    hub.api("POST", "/users/alice/server", {"image": "lab"} if hub.name == "HEPSpawner" else {})
    while not hub.ready("alice"):
        time.sleep(0.02)
    seconds = time.perf_counter() - begin
    hub.api("DELETE", "/users/alice/server")
    while not hub.server_gone("alice"):
        time.sleep(0.1)
    return seconds


def lab(bench: Bench, hubs: Sequence[BatchHub], rounds: int = 5) -> dict[str, float]:
    """The median of some, in turns."""
    times: dict[str, list[float]] = {}
    for i in range(rounds + 1):
        for hub in hubs:
            seconds = one_lab(hub)
            bench.engine.clear()  # batchspawner does not wait for its job's end, which would take from the next start
            time.sleep(3)
            if i:  # the first warms caches
                times.setdefault(hub.name, []).append(seconds)
    return {name: statistics.median(each) for name, each in times.items()}


def per_minute(hubs: Sequence[BatchHub], settle: float, seconds: float = 60) -> dict[str, float]:
    """Scheduler commands a minute, while nothing happens."""
    time.sleep(settle)
    before = {hub.name: len(hub.commands.calls()) for hub in hubs}
    time.sleep(seconds)
    return {hub.name: (len(hub.commands.calls()) - before[hub.name]) * 60 / seconds for hub in hubs}


class Restart(NamedTuple):
    """What a restart of a hub took."""

    seconds: float
    commands: int
    later: int
    """Commands of the next ten seconds."""
    calls: list[str]
    ours: list[dict[str, Any]]
    """The longest times for which our code held the loop."""
    callbacks: list[dict[str, Any]]
    """The longest callbacks of all."""


def restart(hub: BatchHub, count: int) -> Restart:
    """Start a hub that was killed, and wait until all servers are ready again."""
    hub.commands.clear()
    report = hub.directory / "loop.json"
    hub.environment["BENCH_LOOP"] = str(report)
    begin = time.perf_counter()
    hub.start()
    while hub.count() < count:
        if time.perf_counter() - begin > 300:
            raise RuntimeError(f"{hub.name}: not all are ready again: see {hub.directory}/hub.log")
        time.sleep(0.3)
    seconds, commands = time.perf_counter() - begin, len(hub.commands.calls())
    time.sleep(10)
    calls = hub.commands.calls()
    found = json.loads(report.read_text())
    texts = [f"{name} {arguments}"[:100] for _, name, arguments in calls[:20]]
    return Restart(seconds, commands, len(calls) - commands, texts, found["ours"][:8], found["callbacks"][:8])


def restarts(hubs: Sequence[BatchHub], counts: dict[str, int]) -> dict[str, Restart]:
    """Restarts of hubs, one after the other, so that none disturbs the other."""
    for hub in hubs:
        hub.kill()
    results = {}
    for hub in hubs:
        results[hub.name] = restart(hub, counts[hub.name])
        hub.kill()
    for hub in hubs:
        del hub.environment["BENCH_LOOP"]
        hub.start()
    return results


def storms(bench: Bench, count: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Of each spawner the median time until all are ready and that of the worst health, each with a fresh hub.

    batchspawner, which takes most of the time, has one round.
    """
    results: dict[str, list[tuple[float, float]]] = {}
    for i in range(rounds):
        makers: list[Callable[[], Hub]] = [bench.floor, bench.ours, *([] if i else [bench.peer])]
        for make in makers:
            with make() as hub:
                hub.api("POST", "/users", {"usernames": names("few", count)})
                results.setdefault(hub.name, []).append(asyncio.run(storm(hub, names("few", count), 0.1)))
            bench.engine.clear()
    return {
        name: (statistics.median(r[0] for r in rows), statistics.median(r[1] for r in rows))
        for name, rows in results.items()
    }


def add_lab(table: Table, bench: Bench, hubs: Sequence[BatchHub]) -> None:
    """One JupyterLab."""
    times = lab(bench, hubs)
    peer, ours = times["batchspawner"], times["HEPSpawner"]
    table.add("JupyterLab, POST to ready, median of 5", peer, ours, "faster", ours < peer)


def add_storm(table: Table, bench: Bench, count: int, rounds: int) -> None:
    """Many starts at once."""
    found = storms(bench, count, rounds)
    floor, peer, ours = (found[name] for name in ("SimpleLocalProcessSpawner", "batchspawner", "HEPSpawner"))
    good = ours[0] <= peer[0] / 4
    table.add(f"{count} at once, all ready", peer[0], ours[0], "at most a quarter", good, more={"floor": floor[0]})
    goal = f"{floor[1]:.2f} s + 0.10 s (floor: SimpleLocalProcessSpawner)"
    table.add(
        "  worst /hub/health meanwhile", peer[1], ours[1], goal, ours[1] <= floor[1] + 0.1, more={"floor": floor[1]}
    )


def of(counts: dict[str, int]) -> str:
    """How many servers each hub has, in words."""
    peer, ours = counts["batchspawner"], counts["HEPSpawner"]
    return f"{ours} running" if peer == ours else f"{ours} running (peer: {peer})"


def add_commands(table: Table, hubs: Sequence[BatchHub], counts: dict[str, int]) -> None:
    """What watching over servers costs."""
    rates = per_minute(hubs, settle=10)
    peer, ours = rates["batchspawner"], rates["HEPSpawner"]
    table.add(f"commands a minute, {of(counts)}", peer, ours, "at most 4", ours <= 4, "")


def add_restart(table: Table, hubs: Sequence[BatchHub], counts: dict[str, int]) -> None:
    """A restart with many servers."""
    found = restarts(hubs, counts)
    peer, ours = found["batchspawner"], found["HEPSpawner"]
    more = {name: one._asdict() for name, one in found.items()}
    title = f"restart, {of(counts)}:"
    table.add(f"{title} commands", peer.commands, ours.commands, "at most 2", ours.commands <= 2, "", more)
    table.add("  … all are ready again", peer.seconds, ours.seconds, "", True)
    # What comes in the first callback of all is the hub's reading of its configuration: nobody waits for the loop yet.
    own = [entry for entry in ours.ours if entry["callback"] > 0][:3]
    longest = own[0]["ms"] if own else 0.0
    others = peer.callbacks[0]["ms"] if peer.callbacks else 0.0
    table.add("  … the loop is held by our code (peer: by any)", others, longest, "at most 10 ms", longest <= 10, "ms")
    for name, entries in (("ours", own), ("of the whole hub", ours.callbacks[:3])):
        for entry in entries:
            print(f"      {name}: {entry['ms']} ms ({entry['cpu_ms']} ms of CPU) in {entry['where']}")


def main(about: str | None, make: Callable[[], Engine], servers: int) -> int:
    """Print the figures; 1 where they are not what the project promises. `servers`: as many are few."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; absent: all")
    parser.add_argument("--servers", type=int, default=servers)
    parser.add_argument("--more", type=int, default=600, help="running servers in the end; 0: no more than --servers")
    parser.add_argument("--peer", type=int, default=200, help="no more of batchspawner than so many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="all figures once more in the end, with details")
    options = parser.parse_args()
    options.more = max(options.more, options.servers)
    parts = options.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    if os.geteuid() != 0:
        print("only root can run the daemons of a batch system")
        return 0
    in_own_namespace()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # nothing is left then, either
    subprocess.run([CHECKOUT / "tests/rigs/setup.sh", "venv-batch"], check=True)
    engine = make()
    print(f"JupyterHub, {engine.name} and all servers on {os.cpu_count()} cores; batchspawner 1.3.0", flush=True)
    table = Table("batchspawner")
    with engine.cluster:
        users = [*names("few", options.servers), *names("more", options.more)]
        make_accounts(users, engine.cluster.directory)
        bench = Bench(engine)
        if "storm" in parts:
            add_storm(table, bench, options.servers, options.rounds)
        if {"lab", "commands", "restart"} & set(parts):
            with ExitStack() as stack:
                hubs = bench.ours(), bench.peer()
                for hub in hubs:
                    stack.enter_context(hub)
                many(table, options, parts, bench, hubs)
    if options.json:
        print(json.dumps(table.rows))
    print("as promised" if table.good else "NOT as promised")
    return 0 if table.good else 1


def many(
    table: Table, options: argparse.Namespace, parts: Iterable[str], bench: Bench, hubs: Sequence[BatchHub]
) -> None:
    """What needs both hubs at the same time: few servers first, then many."""
    for hub in hubs:
        hub.api("POST", "/users", {"usernames": ["alice", *names("more", options.more)]})
    if "lab" in parts:
        add_lab(table, bench, hubs)
    running = dict.fromkeys((hub.name for hub in hubs), 0)
    for count in dict.fromkeys((options.servers, options.more)):
        if not {"commands", "restart"} & set(parts):
            continue
        for hub in hubs:
            wanted = min(count, options.peer) if hub.name == "batchspawner" else count
            new = names("more", wanted)[running[hub.name] :]
            running[hub.name] = wanted
            if new:
                begin = time.perf_counter()
                asyncio.run(storm(hub, new, 0.5, GENTLY))
                print(f"  ({len(new)} more of {hub.name}: {time.perf_counter() - begin:.0f} s, {GENTLY} at a time)")
        if "commands" in parts:
            add_commands(table, hubs, running)
        if "restart" in parts:
            add_restart(table, hubs, running)
