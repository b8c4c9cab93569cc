"""HEPSpawner and KubeSpawner side by side on a real Kubernetes: a JupyterLab, many starts, and 500 pods that just run.

    python benchmarks/kubernetes.py [lab | storm | steady]… [--servers 20] [--pods 500] [--seconds 120]
        [--rounds 3]

Only for root. Both hubs use the same cluster (`tests/kubernetes.py`), image and server process; KubeSpawner is in an
environment of its own (`tests/rigs/setup.sh venv-kube`). The 500 pods are on kubemark's nodes, where nothing runs: what
their launchers would tell the hub is told by this, and neither hub waits for their servers to answer.
"""

import argparse
import asyncio
import json
import os
import re
import secrets
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hubs import PREFIX, TRIVIAL, Hub, storm
from table import Table

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))
from hepspawner.hub.tickets import Tickets  # noqa: E402
from tests.kubernetes import HOME, HOST, RIG, Kubernetes  # noqa: E402

PARTS = ("lab", "storm", "steady")
KUBE = PREFIX.parent / "venv-kube"
SPACE = "bench"
IMAGE = "rig.local/host:1"
NOWHERE = "192.168.192.168"
"""The address of each pod of kubemark's."""

_COMMON = f"""\
c.JupyterHub.hub_bind_url = c.JupyterHub.hub_bind_url.replace("127.0.0.1", "0.0.0.0")
c.JupyterHub.hub_connect_ip = "{HOST}"
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 120}}  # a POST lasts as long as its start
c.JupyterHub.cookie_secret_file = os.getcwd() + "/secret"
if os.environ.get("BENCH_HOLLOW"):
    import jupyterhub.user
    async def up(*_, **__): pass
    jupyterhub.user.User._wait_up = up
"""
_OURS = """\
c.JupyterHub.spawner_class = "hepspawner"
c.HEPSpawner.site = {site!r}
"""
_PEER = """\
c.JupyterHub.spawner_class = "kubespawner.KubeSpawner"
c.KubeSpawner.namespace = {space!r}
c.KubeSpawner.image = {image!r}
c.KubeSpawner.image_pull_policy = "IfNotPresent"
c.KubeSpawner.uid, c.KubeSpawner.gid = 1000, 100
c.KubeSpawner.environment = {{"HOME": "/tmp"}}
c.KubeSpawner.volumes = {volumes!r}
c.KubeSpawner.volume_mounts = {mounts!r}
c.KubeSpawner.node_selector, c.KubeSpawner.tolerations = {selector!r}, {tolerations!r}
c.KubeSpawner.cmd = {cmd!r}
"""


class Bench:
    """The cluster, and hubs before it."""

    def __init__(self, cluster: Kubernetes):
        self.cluster = cluster

    def _hub(self, name: str, python: Path, config: str, hollow: bool) -> Hub:
        hub = Hub(name, _COMMON + config, str(python), account=None)
        hub.environment |= {"KUBECONFIG": str(self.cluster.admin), "BENCH_HOLLOW": "1" if hollow else ""}
        hub.prepare = _make_secret
        return hub

    def ours(self, cmd: list[str], hollow: bool = False) -> Hub:
        """HEPSpawner."""
        selector, tolerations = _where(hollow)
        backend = {"type": "kubernetes", "namespace": SPACE, "kubeconfig": str(self.cluster.admin)}
        backend |= {"run_as": {"uid": 1000, "gid": 100}, "image_pull_policy": "IfNotPresent"}
        backend |= {"mounts": [{"source": path} for path in _paths(hollow)], "node_selector": selector}
        images = [{"name": "bench", "oci": IMAGE, "command": cmd}]
        site = {"images": images, "backends": {"k8s": {**backend, "tolerations": tolerations}}}
        return self._hub("HEPSpawner", PREFIX / "bin/python", _OURS.format(site=site), hollow)

    def peer(self, cmd: list[str], hollow: bool = False) -> Hub:
        """KubeSpawner."""
        selector, tolerations = _where(hollow)
        volumes = [{"name": f"v{i}", "hostPath": {"path": path}} for i, path in enumerate(_paths(hollow))]
        mounts = [{"name": f"v{i}", "mountPath": path, "readOnly": True} for i, path in enumerate(_paths(hollow))]
        values = {"space": SPACE, "image": IMAGE, "volumes": volumes, "mounts": mounts, "cmd": cmd}
        config = _PEER.format(**values, selector=selector, tolerations=tolerations)
        return self._hub("KubeSpawner", KUBE / "bin/python", config, hollow)

    def clean(self) -> None:
        """Remove all pods."""
        # Not `delete --all`: kubectl asks for five of them a second.
        self.cluster.kubectl("delete", "--raw", f"/api/v1/namespaces/{SPACE}/pods?gracePeriodSeconds=1")
        while self.cluster.get("pods", SPACE):
            time.sleep(1)

    def requests(self) -> dict[str, float]:
        """How many requests for pods and events of our namespace the API server had, by verb."""
        found: dict[str, float] = {}
        for line in self.cluster.kubectl("get", "--raw", "/metrics").splitlines():
            wanted = ("apiserver_request_total{", 'scope="namespace"', 'subresource=""')
            if all(one in line for one in wanted) and re.search(r'resource="(pods|events)"', line):
                verb = line.partition('verb="')[2].partition('"')[0]
                found[verb] = found.get(verb, 0) + float(line.split()[-1])
        return found


def _paths(hollow: bool) -> list[str]:
    return [] if hollow else ["/usr", str(KUBE), str(TRIVIAL.parent)]  # kubemark's nodes have no directories


def _where(hollow: bool) -> tuple[dict[str, str], list[dict[str, str]]]:
    if not hollow:
        return {}, []
    return {"rig/hollow": "true"}, [{"key": "rig/hollow", "operator": "Exists"}]


def _make_secret(directory: Path) -> None:
    path = directory / "secret"
    path.touch(0o600)
    path.write_text(secrets.token_hex(32))


LAB = [f"{KUBE}/bin/jupyterhub-singleuser"]
SMALL = ["/usr/bin/python3", "-I", "-S", str(TRIVIAL)]


def one_lab(hub: Hub) -> tuple[float, float]:
    """Seconds from asking for a JupyterLab until it is ready, and from asking for its end until it is gone."""
    begin = time.perf_counter()
    hub.api("POST", "/users/alice/server", {})
    while not hub.ready("alice"):
        time.sleep(0.02)
    ready = time.perf_counter()
    hub.api("DELETE", "/users/alice/server")
    while not hub.server_gone("alice"):
        time.sleep(0.02)
    return ready - begin, time.perf_counter() - ready


def labs(bench: Bench, rounds: int) -> dict[str, tuple[float, float]]:
    """The medians of some, in turns."""
    times: dict[str, list[tuple[float, float]]] = {}
    with bench.peer(LAB) as peer, bench.ours(LAB) as ours:
        for hub in (peer, ours):
            hub.api("POST", "/users/alice")
        for i in range(rounds + 1):
            for hub in (peer, ours):
                figures = one_lab(hub)
                if i:  # the first warms caches
                    times.setdefault(hub.name, []).append(figures)
    return {name: (median(row[0] for row in rows), median(row[1] for row in rows)) for name, rows in times.items()}


def median(values: Any) -> float:
    """The median of some values."""
    return float(statistics.median(list(values)))


def storms(bench: Bench, count: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Of each spawner the median time until all are ready and that of the worst health, each with a fresh hub."""
    users = [f"user{i}" for i in range(count)]
    results: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for make in (bench.peer, bench.ours):
            with make(SMALL) as hub:
                hub.api("POST", "/users", {"usernames": [*users, "first"]})
                asyncio.run(storm(hub, ["first"]))  # it has connected to the cluster then
                results.setdefault(hub.name, []).append(asyncio.run(storm(hub, users, 0.1)))
            bench.clean()
    return {name: (median(row[0] for row in rows), median(row[1] for row in rows)) for name, rows in results.items()}


class Steady(NamedTuple):
    """What it takes to watch over pods to which nothing happens."""

    cpu: float
    """Seconds of CPU a minute."""
    memory: float
    """MiB."""
    requests: float
    """A minute."""
    lists: float


def steady(bench: Bench, hub: Hub, count: int, seconds: float) -> Steady:
    """Start so many on nodes where nothing runs, and look on."""
    users = [f"user{i}" for i in range(count)]
    with hub:
        hub.api("POST", "/users", {"usernames": users})
        asyncio.run(_start_all(bench, hub, users))
        time.sleep(20)
        before, cpu = bench.requests(), _cpu(hub)
        time.sleep(seconds)
        after = bench.requests()
        minutes = seconds / 60
        memory = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{hub.process.pid}/status").read_text())[1]) / 1024  # type: ignore[index]
        used = (_cpu(hub) - cpu) / minutes
        hub.process.kill()  # 500 servers need not be stopped one by one
        own = {verb: after[verb] - before.get(verb, 0) for verb in after}
    bench.clean()
    return Steady(used, memory, sum(own.values()) / minutes, own.get("LIST", 0) / minutes)


async def _start_all(bench: Bench, hub: Hub, users: list[str]) -> None:
    """Ask for all servers, some at a time; for the launchers that do not run there, say that they are ready."""
    done = asyncio.Event()

    async def launchers() -> None:
        tickets = Tickets(bytes.fromhex((hub.directory / "secret").read_text()))
        seen: set[str] = set()
        while not done.is_set():
            pods = await asyncio.to_thread(bench.cluster.get, "pods", SPACE, "-l=hepspawner.io/session")
            labels = [pod["metadata"]["labels"] for pod in pods if pod["status"]["phase"] == "Running"]
            for session in {one["hepspawner.io/session"] for one in labels} - seen:
                seen.add(session)
                await asyncio.to_thread(_report, hub, tickets, session)
            await asyncio.sleep(0.5)

    running = asyncio.ensure_future(launchers())
    await storm(hub, users, 1.0, 20)
    done.set()
    await running


def _report(hub: Hub, tickets: Tickets, session: str) -> None:
    where = {"host": NOWHERE, "port": 8888}
    claim = {"ticket": tickets.issue(session, time.time() + 60), "claimant": secrets.token_hex(16), **where}
    key = _post(hub, "claim", claim)["key"]
    for event in ("starting", "ready"):
        _post(hub, "report", {"session": session, "key": key, "event": event, **where})


def _post(hub: Hub, what: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{hub.hub_url}/api/hepspawner/{what}", json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def _cpu(hub: Hub) -> float:
    fields = Path(f"/proc/{hub.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Print the figures; 1 where they are not what the project promises."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; absent: all")
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--pods", type=int, default=500)
    parser.add_argument(
        "--seconds", type=float, default=120, help="for which pods to which nothing happens are watched"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    parts = options.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(unknown)}")
    if os.geteuid() != 0:
        print("only root can run a kubelet")
        return 0
    subprocess.run([CHECKOUT / "tests/rigs/setup.sh", "venv-kube"], check=True)
    print(f"JupyterHub, Kubernetes and all servers on {os.cpu_count()} cores; KubeSpawner 7.1", flush=True)
    table = Table("KubeSpawner")
    with Kubernetes() as cluster:
        cluster.namespace(SPACE)
        measure(table, Bench(cluster), parts, options)
    print("as promised" if table.good else "NOT as promised")
    return 0 if table.good else 1


def measure(table: Table, bench: Bench, parts: Sequence[str], options: argparse.Namespace) -> None:
    """The parts that were asked for."""
    names = ("KubeSpawner", "HEPSpawner")
    if "lab" in parts:
        found = labs(bench, options.rounds)
        peer, ours = (found[name] for name in names)
        table.add("JupyterLab, POST to ready", peer[0], ours[0], "at most 0.7", ours[0] <= 0.7 * peer[0])
        table.add("  … stop", peer[1], ours[1], "not slower", ours[1] <= peer[1])
    if "storm" in parts:
        found = storms(bench, options.servers, options.rounds)
        peer, ours = (found[name] for name in names)
        table.add(f"{options.servers} at once, all ready", peer[0], ours[0], "faster", ours[0] < peer[0])
        table.add("  … worst /hub/health", peer[1], ours[1], "not later", ours[1] <= peer[1])
    if "steady" in parts:
        nodes = str(-(-options.pods // 100))
        subprocess.run([RIG / "hollow-up.sh", nodes], check=True, env={**os.environ, "RIG": str(HOME)}, stdout=2)
        one = steady(bench, bench.peer(SMALL, True), options.pods, options.seconds)
        two = steady(bench, bench.ours(SMALL, True), options.pods, options.seconds)
        title = f"{options.pods} pods, nothing happens:"
        table.add(f"{title} CPU a minute", one.cpu, two.cpu, "at most 0.1", two.cpu <= 0.1 * one.cpu)
        table.add("  … API requests a minute", one.requests, two.requests, "", True, "")
        table.add("  … of which lists", one.lists, two.lists, "none", two.lists == 0, "")
        table.add("  … the hub's memory", one.memory, two.memory, "less", two.memory < one.memory, "MiB")


if __name__ == "__main__":
    sys.exit(main())
