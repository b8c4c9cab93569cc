"""Hubs on a real batch system, and accounts for their users."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubs import PREFIX, TRIVIAL, Hub, simple

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))  # for `tests`

BATCH = PREFIX.parent / "venv-batch"

_COMMON = """\
c.JupyterHub.cleanup_servers = False
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 120}}  # a POST lasts as long as its start
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.auth_token = "bench"
if os.environ.get("BENCH_LOOP"):
    import sys
    sys.path.insert(0, {here!r})
    import loop
    loop.watch(os.environ["BENCH_LOOP"])
"""
_OURS = """\
c.JupyterHub.spawner_class = "hepspawner"
c.HEPSpawner.site = {site!r}
"""
_PEER = """\
import batchspawner
kind = batchspawner.{kind}
c.JupyterHub.spawner_class = kind
c[kind.__name__].environment = {environment!r}
# the defaults, but counted: sudo has a PATH of its own
for name in ("batch_submit_cmd", "batch_query_cmd", "batch_cancel_cmd"):
    c[kind.__name__][name] = "{commands}/" + kind.class_traits()[name].default_value
c.BatchSpawnerBase.batchspawner_singleuser_cmd = "{batch}/bin/batchspawner-singleuser"
def choose(spawner):
    spawner.cmd = ["{batch}/bin/jupyterhub-singleuser" if spawner.user.name == "alice" else {trivial!r}]
    if spawner.user.name.startswith("more"):
        spawner.batchspawner_singleuser_cmd = {wrapper!r}
c.Spawner.pre_spawn_hook = choose
"""
# What batchspawner-singleuser does, by the standard library alone, and gone when the server runs.
_WRAPPER = """\
import json, os, socket, sys
from http.client import HTTPConnection
from urllib.parse import urlparse
with socket.socket() as one:
    one.bind(("", 0))
    port = one.getsockname()[1]
api = urlparse(os.environ["JUPYTERHUB_API_URL"])
connection = HTTPConnection(api.hostname, api.port)
headers = {"Authorization": "token " + os.environ["JUPYTERHUB_API_TOKEN"], "Content-Type": "application/json"}
connection.request("POST", api.path + "/batchspawner", json.dumps({"port": port}), headers)
assert connection.getresponse().status < 300
url = urlparse(os.environ["JUPYTERHUB_SERVICE_URL"])
os.environ["JUPYTERHUB_SERVICE_URL"] = url._replace(netloc=f"{url.hostname}:{port}").geturl()
os.execv(sys.argv[1], sys.argv[1:])
"""


def names(word: str, count: int) -> list[str]:
    """Names of so many users."""
    return [f"{word}{i}" for i in range(count)]


def in_own_namespace() -> None:
    """Begin anew where what is mounted is seen by this process, and what it starts, alone."""
    if os.environ.get("BENCH_NAMESPACE") != "own":
        os.environ["BENCH_NAMESPACE"] = "own"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])


def make_accounts(users: list[str], directory: Path) -> None:
    """Accounts with homes, in this namespace; those of the machine stay."""
    homes = directory / "homes"
    homes.mkdir()
    lines: dict[str, list[str]] = {"passwd": [], "group": [], "shadow": []}
    for number, user in enumerate(users, 60000):
        home = homes / user
        home.mkdir(0o700)
        os.chown(home, number, number)
        lines["passwd"].append(f"{user}:x:{number}:{number}::{home}:/bin/bash")
        lines["group"].append(f"{user}:x:{number}:")
        lines["shadow"].append(f"{user}:*:19000:0:99999:7:::")
    for name, more in lines.items():
        real, copy = Path("/etc", name), directory / name
        copy.touch(0o600)
        copy.write_text(real.read_text().rstrip("\n") + "\n" + "\n".join(more) + "\n")
        shutil.copystat(real, copy)
        os.chown(copy, real.stat().st_uid, real.stat().st_gid)
        subprocess.run(["mount", "--bind", copy, real], check=True)


class BatchHub(Hub):
    """A hub of root, whose proxy and servers live on without it."""

    commands: Any

    def before(self, ports: list[int]) -> None:
        self.directory.chmod(0o711)  # condor_submit looks, as the user, whether it is where it stands
        proxy = [str(PREFIX / "bin/configurable-http-proxy"), "--ip", "127.0.0.1", "--port", str(ports[0])]
        proxy += ["--api-ip", "127.0.0.1", "--api-port", str(ports[2])]
        self.environment["CONFIGPROXY_AUTH_TOKEN"] = "bench"
        self.proxy = self.run([*proxy, "--error-target", f"http://127.0.0.1:{ports[1]}/hub/error"])
        while True:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", ports[2])) == 0:
                    return
            time.sleep(0.05)

    def __exit__(self, *error: object) -> None:
        for process in (self.process, self.proxy):
            process.kill()
            process.wait()
        self.log.close()

    def kill(self) -> None:
        """SIGKILL for the hub alone."""
        self.process.kill()
        self.process.wait()

    def count(self) -> int:
        """How many servers are ready."""
        return len(json.loads(self.api("GET", "/users?state=ready")[1]))


@dataclass
class Engine:
    """What a benchmark needs to know of a batch system."""

    name: str
    cluster: Any
    """That of the tests, a context manager: with `directory`, and `env`, by which commands find it."""
    counting: Callable[[Path], Any]
    """Its commands in a directory, counted."""
    clear: Callable[[], None]
    """Ends all jobs."""
    backend: dict[str, Any]
    """The site's backend, without its commands."""
    peer: str
    """batchspawner's class."""
    peer_config: str
    """More of its configuration."""


class Bench:
    """A cluster, and hubs on it."""

    def __init__(self, engine: Engine):
        self.engine, self.count = engine, 0
        self.trivial = self._script("trivial", TRIVIAL.read_text())
        self.wrapper = self._script("wrapper", _WRAPPER)

    def _script(self, name: str, text: str) -> str:
        path = self.engine.cluster.directory / name
        path.write_text(f"#!{BATCH}/bin/python -IS\n{text}")
        path.chmod(0o755)
        return str(path)

    def _hub(self, name: str, python: str) -> BatchHub:
        self.count += 1
        hub = BatchHub(name, _COMMON.format(here=str(Path(__file__).parent)), python, account=None)
        hub.commands = self.engine.counting(self.engine.cluster.directory / f"commands{self.count}")
        hub.environment |= self.engine.cluster.env
        return hub

    def ours(self) -> BatchHub:
        """HEPSpawner."""
        hub = self._hub("HEPSpawner", sys.executable)
        images = [{"name": name, "prefix": str(BATCH), "command": [self.trivial]} for name in ("bench", "lab")]
        del images[1]["command"]
        paths = {name: str(hub.commands.directory / name) for name in hub.commands.names}
        backend = {**self.engine.backend, "commands": {"environment": self.engine.cluster.env, "paths": paths}}
        hub.config += _OURS.format(site={"images": images, "backends": {"cluster": backend}})
        return hub

    def peer(self) -> BatchHub:
        """batchspawner."""
        hub = self._hub("batchspawner", str(BATCH / "bin/python"))
        values = {"kind": self.engine.peer, "environment": self.engine.cluster.env, "commands": hub.commands.directory}
        hub.config += _PEER.format(**values, batch=BATCH, trivial=self.trivial, wrapper=self.wrapper)
        hub.config += self.engine.peer_config
        return hub

    def floor(self) -> Hub:
        """JupyterHub's own spawner of local processes."""
        return simple([str(BATCH / "bin/python"), "-I", "-S", str(TRIVIAL)])
