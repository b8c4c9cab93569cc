"""How long starts take: one JupyterLab, and 50 trivial servers at once, against SimpleLocalProcessSpawner."""

import argparse
import asyncio
import statistics
import sys
import time

from hubs import PREFIX, TRIVIAL, Hub, hepspawner, simple, storm

USERS = [f"user{i}" for i in range(50)]


def one_lab(hub: Hub, times: list[float]) -> None:
    """Start a JupyterLab and stop it."""
    start = time.perf_counter()
    hub.api("POST", "/users/lab/server", {})
    while not hub.ready("lab"):
        time.sleep(0.02)
    times.append(time.perf_counter() - start)
    hub.api("DELETE", "/users/lab/server")
    while not hub.server_gone("lab"):
        time.sleep(0.05)


def labs(rounds: int) -> tuple[float, float]:
    """Median seconds from POST to ready, of both spawners, taken in turns."""
    with simple() as peer, hepspawner() as ours:
        times: dict[str, list[float]] = {"peer": [], "ours": []}
        for hub in (peer, ours):
            hub.api("POST", "/users/lab")
            one_lab(hub, [])  # warms caches
        for _ in range(rounds):
            one_lab(peer, times["peer"])
            one_lab(ours, times["ours"])
    return statistics.median(times["peer"]), statistics.median(times["ours"])


def storms(rounds: int) -> dict[str, tuple[float, float]]:
    """Of each spawner the median time for all and the median of the worst health, each round with a fresh hub."""
    command = [str(PREFIX / "bin/python"), "-I", "-S", str(TRIVIAL)]
    results: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for make in (simple, hepspawner):
            with make(command) as hub:
                hub.api("POST", "/users", {"usernames": USERS})
                results.setdefault(hub.name, []).append(asyncio.run(storm(hub, USERS)))
    return {
        name: (statistics.median(r[0] for r in rows), statistics.median(r[1] for r in rows))
        for name, rows in results.items()
    }


def main() -> int:
    """Print the figures; 1 where they are not what the project promises."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    peer, ours = labs(max(3, rounds))
    name = "SimpleLocalProcessSpawner"
    print("JupyterLab, POST to ready, median")
    print(f"  {name} {peer:.2f} s, HEPSpawner {ours:.2f} s ({ours - peer:+.2f} s)")
    figures = storms(rounds)
    (peer_all, peer_health), (ours_all, ours_health) = figures[name], figures["HEPSpawner"]
    print("50 trivial servers at once, all ready")
    print(f"  {name} {peer_all:.2f} s, HEPSpawner {ours_all:.2f} s (ratio {ours_all / peer_all:.2f})")
    print("  worst /hub/health meanwhile")
    print(f"  {name} {peer_health:.2f} s, HEPSpawner {ours_health:.2f} s ({ours_health - peer_health:+.2f} s)")
    good = ours <= peer + 0.3 and ours_all <= 1.5 * peer_all and ours_health <= peer_health + 0.1
    print("as promised" if good else "NOT as promised: at most +0.3 s, ratio 1.5, +0.1 s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
