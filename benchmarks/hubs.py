"""Hubs to measure: the same JupyterHub, proxy and server process under one spawner or another."""

import asyncio
import json
import os
import pwd
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PREFIX = Path(sys.prefix)
TRIVIAL = Path(__file__).parent / "trivial_server.py"

_CONFIG = """\
c = get_config()  # noqa
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.log_level = "WARN"
c.JupyterHub.services = [{{"name": "bench", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [
    {{"name": "bench", "scopes": ["admin:users", "admin:servers", "list:users"], "services": ["bench"]}}
]
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.api_page_default_limit = c.JupyterHub.api_page_max_limit = 2000
c.JupyterHub.cleanup_servers = True
import os
c.SimpleLocalProcessSpawner.home_dir_template = os.getcwd() + "/home-{{username}}"
c.Spawner.http_timeout = 120
c.Spawner.start_timeout = 300
"""


class Hub:
    """A hub process with a spawner; use as a context manager."""

    def __init__(self, name: str, config: str, python: str = sys.executable, account: str | None = "alice"):
        """`account`: whose processes they are where root runs this; None: root's."""
        self.name, self.config, self.python, self.account = name, config, python, account
        self.token = secrets.token_hex(16)
        self.environment: dict[str, str] = {}
        self.prepare: Callable[[Path], None] = lambda directory: None
        """Called with the hub's directory before it starts."""

    def __enter__(self) -> "Hub":
        self.directory = Path(tempfile.mkdtemp(prefix="hepspawner-bench-"))
        self.prepare(self.directory)
        ports = free_ports(3)
        self.url = f"http://127.0.0.1:{ports[0]}/hub"
        self.hub_url = f"http://127.0.0.1:{ports[1]}/hub"
        text = _CONFIG.format(
            port=ports[0],
            hub_port=ports[1],
            proxy_port=ports[2],
            proxy=str(PREFIX / "bin/configurable-http-proxy"),
            token=self.token,
        )
        (self.directory / "config.py").write_text(text + self.config)
        self.log = (self.directory / "hub.log").open("wb")
        self.before(ports)
        self.start()
        return self

    def before(self, ports: list[int]) -> None:
        """Whatever a derived class needs before the hub: those of the proxy, the hub and the proxy's API."""

    def start(self) -> None:
        """The hub's process; returns when it answers."""
        self.process = self.run([self.python, "-m", "jupyterhub", "-f", "config.py"])
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.hub_url + "/health", timeout=2).read()
                urllib.request.urlopen(self.url + "/health", timeout=2).read()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise RuntimeError(f"hub {self.name} did not start: see {self.directory}/hub.log") from None
                time.sleep(0.05)

    def run(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """A process in the hub's directory and for its account."""
        process = as_user(self.directory) if self.account else {}
        process["env"] = {**process.get("env", os.environ), **self.environment}
        more: dict[str, Any] = {"cwd": self.directory, "start_new_session": True, **process}
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **more)

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()

    def api(self, method: str, path: str, body: Any = None, timeout: float = 300) -> tuple[int, bytes]:
        """One request to the hub's API; not through the proxy, which waits for 20 s only."""
        request = urllib.request.Request(
            self.hub_url + "/api" + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read()

    def ready(self, user: str) -> bool:
        """Whether a user's server is ready."""
        model = json.loads(self.api("GET", f"/users/{user}")[1])
        return bool(model["servers"].get("", {}).get("ready"))

    def server_gone(self, user: str) -> bool:
        """Whether a user has no server."""
        return not json.loads(self.api("GET", f"/users/{user}")[1])["servers"]


def as_user(directory: Path) -> dict[str, Any]:
    """Process arguments that run a hub as an ordinary user: JupyterLab refuses root."""
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("alice")
    os.chown(directory, account.pw_uid, account.pw_gid)
    environment = {"HOME": account.pw_dir, "USER": "alice", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": [], "env": environment}


def simple(command: list[str] | None = None) -> Hub:
    """JupyterHub's own SimpleLocalProcessSpawner."""
    cmd = command or [str(PREFIX / "bin/jupyterhub-singleuser")]
    return Hub("SimpleLocalProcessSpawner", f"c.JupyterHub.spawner_class = 'simple'\nc.Spawner.cmd = {cmd!r}\n")


def hepspawner(command: list[str] | None = None) -> Hub:
    """HEPSpawner with the local backend and the same prefix."""
    image: dict[str, Any] = {"name": "bench", "prefix": str(PREFIX)}
    if command:
        image["command"] = command
    site = {"images": [image], "backends": {"local": {"type": "local"}}}
    return Hub("HEPSpawner", f"c.JupyterHub.spawner_class = 'hepspawner'\nc.HEPSpawner.site = {site!r}\n")


def free_ports(count: int) -> list[int]:
    """Ports that nobody has at the moment."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


async def storm(hub: Hub, users: list[str], pause: float = 0.02, at_once: int = 1000) -> tuple[float, float]:
    """Seconds until the servers of users that were asked for at once, or so many at once, are ready, and the worst
    /hub/health meanwhile. `pause`: between two looks."""
    from tornado.httpclient import AsyncHTTPClient

    AsyncHTTPClient.configure(None, max_clients=200)
    client = AsyncHTTPClient(force_instance=True)
    headers = {"Authorization": f"token {hub.token}", "Content-Type": "application/json"}
    stop, turn = asyncio.Event(), asyncio.Semaphore(at_once)
    health = asyncio.ensure_future(worst_health(hub.hub_url, stop))
    await asyncio.sleep(0.3)
    before = await _ready(client, hub, headers)

    async def start(user: str) -> None:
        async with turn:
            url = f"{hub.hub_url}/api/users/{user}/server"
            for _ in range(3):  # of many at once batchspawner's fail now and then
                answer = await client.fetch(
                    url, method="POST", body="{}", headers=headers, request_timeout=600, raise_error=False
                )
                if answer.code < 400:
                    return
            raise RuntimeError(f"{hub.name}: {answer.code}: {answer.body[:500]!r}")

    begin = time.perf_counter()
    await asyncio.gather(*map(start, users))
    while await _ready(client, hub, headers) < before + len(users):
        if time.perf_counter() - begin > 600:
            raise RuntimeError(f"{hub.name}: the servers are not ready: see {hub.directory}/hub.log")
        await asyncio.sleep(pause)
    seconds = time.perf_counter() - begin
    stop.set()
    return seconds, await health


async def _ready(client: Any, hub: Hub, headers: dict[str, str]) -> int:
    answer = await client.fetch(f"{hub.hub_url}/api/users?state=ready", headers=headers, request_timeout=60)
    return len(json.loads(answer.body))


async def worst_health(url: str, stop: asyncio.Event) -> float:
    """The longest that /hub/health took, in seconds, asked every 20 ms until `stop`."""
    from tornado.httpclient import AsyncHTTPClient

    client, worst = AsyncHTTPClient(force_instance=True), 0.0
    while not stop.is_set():
        start = time.perf_counter()
        await client.fetch(url + "/health", request_timeout=60)
        worst = max(worst, time.perf_counter() - start)
        await asyncio.sleep(0.02)
    return worst
