"""`hepspawner demo`: a hub on this machine with the local backend, without a password, on loopback only."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

_CVMFS = Path("/cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000")
_MOST = 200

_CONFIG = """\
# Written by `hepspawner demo`, anew at each start.
c = get_config()  # noqa
c.JupyterHub.spawner_class = "hepspawner"
c.HEPSpawner.site = {site!r}

c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.JupyterHub.log_level = "WARN"
c.JupyterHub.db_url = {database!r}
c.JupyterHub.cookie_secret_file = {cookie!r}
c.ConfigurableHTTPProxy.pid_file = {pid_file!r}
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"admin"}}
"""


def run_demo(port: int, images: str | None) -> int:
    """Write a site and a configuration below the user's state directory and run a hub on them, until Ctrl-C."""
    if os.geteuid() == 0:
        print(
            "hepspawner demo: not as root: everybody who signs in would be root. Use an ordinary account.",
            file=sys.stderr,
        )
        return 1
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "hepspawner-demo"
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not _free(port):
        print(f"hepspawner demo: port {port} is taken; choose another with PORT=", file=sys.stderr)
        return 1
    proxy = Path(sys.executable).parent / "configurable-http-proxy"
    if not proxy.exists():
        print(
            "hepspawner demo: configurable-http-proxy is missing: pip install configurable-http-proxy", file=sys.stderr
        )
        return 1
    site = state / "site.json"
    site.write_text(json.dumps(demo_site(images), indent=2))
    config = state / "jupyterhub_config.py"
    config.write_text(
        _CONFIG.format(
            site=str(site),
            port=port,
            hub_port=_any_port(),
            proxy_port=_any_port(),
            proxy=[str(proxy), "--log-level", "ERROR"],
            database=f"sqlite:///{state / 'jupyterhub.sqlite'}",
            cookie=str(state / "cookie_secret"),
            pid_file=str(state / "proxy.pid"),
        )
    )
    hub = subprocess.Popen([sys.executable, "-m", "jupyterhub", "-f", str(config)], cwd=state)
    try:
        if _answers(f"http://127.0.0.1:{port}/hub/health", hub):
            print(
                f"\nHEPSpawner demo: http://127.0.0.1:{port}\n"
                "  Sign in with any name and no password; 'admin' is an admin.\n"
                "  Everybody who can reach this address of this machine can do so, and works as you. Ctrl-C ends it.\n"
                f"  Site file: {site} (edit it: changes are picked up)\n",
                flush=True,
            )
        return hub.wait()
    except KeyboardInterrupt:  # the hub got it, too
        hub.wait()
        return 0


def _answers(url: str, hub: "subprocess.Popen[bytes]") -> bool:
    """Wait until the hub answers; False where it ends before."""
    while hub.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except OSError:
            time.sleep(0.1)
    return False


def demo_site(images: str | None) -> dict[str, Any]:
    """A site of this machine's own environment and the images that are found."""
    entries: list[dict[str, Any]] = [
        {
            "name": "this-machine",
            "title": "This machine",
            "description": "The Python environment that the hub runs in, without a container.",
            "prefix": sys.prefix,
        }
    ]
    apptainer = shutil.which("apptainer") or shutil.which("singularity")
    places = [Path(images).expanduser().absolute()] if images else [_CVMFS]
    found = [path for place in places for path in _images_in(place)] if apptainer else []
    entries += {entry["name"]: entry for entry in map(_entry, found)}.values()
    if images and not apptainer:
        print("hepspawner demo: apptainer is not on PATH, so images cannot be run and are not shown", file=sys.stderr)
    elif images and not found:
        print(f"hepspawner demo: no image (sandbox directory or .sif file) in {places[0]}", file=sys.stderr)
    local = {"type": "local", "title": "This machine", "runtime": {"default": "8h", "max": "1d"}}
    if apptainer:
        local["apptainer"] = apptainer
    return {"images": entries, "backends": {"local": local}}


def _entry(path: Path) -> dict[str, Any]:
    return {
        "name": _name(path),
        "title": path.name.removesuffix(".sif"),
        "description": "A SIF file" if path.suffix == ".sif" else "A sandbox directory",
        "group": str(path.parent),
        "path": str(path),
    }


def _images_in(place: Path) -> list[Path]:
    try:
        paths = sorted(place.iterdir())[:_MOST]
    except OSError:
        return []
    paths = [path for path in paths if str(path).isprintable()]
    return [path for path in paths if path.suffix == ".sif" or os.path.isdir(path / "usr")]


def _name(path: Path) -> str:
    plain = re.sub(r"[^A-Za-z0-9._:+@-]", "-", path.name.removesuffix(".sif"))[:100]
    return ("sif-" if path.suffix == ".sif" else "") + (plain if plain[:1].isalnum() else "x" + plain)


def _free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
