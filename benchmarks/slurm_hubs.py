"""Hubs on a real Slurm, and accounts for their users."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hubs import PREFIX, TRIVIAL, Hub, simple

CHECKOUT = Path(__file__).parents[1]
sys.path.insert(0, str(CHECKOUT))
from tests.slurm import Slurm, counting_commands  # noqa: E402

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
c.JupyterHub.spawner_class = "batchspawner.SlurmSpawner"
c.SlurmSpawner.req_memory = "1G"
c.SlurmSpawner.environment = {{"SLURM_CONF": {conf!r}}}
c.SlurmSpawner.state_exechost_exp = "127.0.0.1"  # the rig's nodes have no address of their own
# the defaults, but counted: sudo has a PATH of its own
c.SlurmSpawner.batch_submit_cmd = "{commands}/sbatch --parsable"
c.SlurmSpawner.batch_query_cmd = "{commands}/squeue -h -j {{job_id}} -o '%T %B'"
c.SlurmSpawner.batch_cancel_cmd = "{commands}/scancel {{job_id}}"
c.SlurmSpawner.batchspawner_singleuser_cmd = "{batch}/bin/batchspawner-singleuser"
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


class SlurmHub(Hub):
    """A hub of root, whose proxy and servers live on without it."""

    commands: Any

    def before(self, ports: list[int]) -> None:
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


class Bench:
    """A cluster, and hubs on it."""

    def __init__(self, slurm: Slurm):
        self.slurm, self.count = slurm, 0
        self.trivial = self._script("trivial", TRIVIAL.read_text())
        self.wrapper = self._script("wrapper", _WRAPPER)

    def _script(self, name: str, text: str) -> str:
        path = self.slurm.directory / name
        path.write_text(f"#!{BATCH}/bin/python -IS\n{text}")
        path.chmod(0o755)
        return str(path)

    def _hub(self, name: str, python: str) -> SlurmHub:
        self.count += 1
        hub = SlurmHub(name, _COMMON.format(here=str(Path(__file__).parent)), python, account=None)
        hub.commands = counting_commands(self.slurm.directory / f"commands{self.count}")
        hub.environment |= self.slurm.env
        return hub

    def ours(self) -> SlurmHub:
        """HEPSpawner."""
        hub = self._hub("HEPSpawner", sys.executable)
        images = [{"name": name, "prefix": str(BATCH), "command": [self.trivial]} for name in ("bench", "lab")]
        del images[1]["command"]
        backend = {"type": "slurm", "memory": {"default": "1G", "max": "1G"}}
        backend["commands"] = {"environment": self.slurm.env}
        hub.config += _OURS.format(site={"images": images, "backends": {"slurm": backend}})
        hub.environment["PATH"] = f"{hub.commands.directory}:{os.environ['PATH']}"
        return hub

    def peer(self) -> SlurmHub:
        """batchspawner."""
        hub = self._hub("batchspawner", str(BATCH / "bin/python"))
        values = {"conf": str(self.slurm.conf), "commands": hub.commands.directory, "batch": BATCH}
        hub.config += _PEER.format(**values, trivial=self.trivial, wrapper=self.wrapper)
        return hub

    def floor(self) -> Hub:
        """JupyterHub's own spawner of local processes."""
        return simple([str(BATCH / "bin/python"), "-I", "-S", str(TRIVIAL)])
