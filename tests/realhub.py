"""A real JupyterHub with a real proxy for a test, in processes and a directory of its own.

The proxy runs beside the hub, so that it and the servers live on when the hub is killed. Nothing here waits by
sleeping: `eventually` asks until it is told what it wants to hear, or gives up.
"""

import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import requests
import yaml

from tests.machine import PATIENCE, connects, eventually, free_port, processes_with

__all__ = ["PATIENCE", "Browser", "RealHub", "eventually", "processes_with", "server_path"]


class RealHub:
    """A hub and its proxy, both run by `account`, or by whoever runs the tests."""

    def __init__(
        self,
        python: str,
        site: Any,
        config: str = "",
        account: str | None = None,
        version: str = "hub6",
        address: str = "127.0.0.1",
    ):
        """`python`: of an environment with JupyterHub; `site`: what the site file says, as a mapping or as its text;
        `config`: more lines of the configuration; `address`: where the hub listens for servers."""
        self.python, self.account, self.version, self.address = python, account, version, address
        self.directory = Path(tempfile.mkdtemp(prefix="realhub-"))
        self.directory.chmod(0o755)  # images and gates of tests may lie below it; the hub's own things do not
        self.home = self.directory / "hub"
        self.home.mkdir(mode=0o700)
        self.port, self.hub_port, self.proxy_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.proxy_token, self.service_token = secrets.token_hex(32), secrets.token_hex(32)
        self.site_file, self.config_file = self.directory / "site.yaml", self.home / "jupyterhub_config.py"
        self.log_file, self.database = self.home / "hub.log", self.home / "jupyterhub.sqlite"
        self.secret = secrets.token_bytes(32)
        (self.home / "cookie_secret").write_text(self.secret.hex())
        (self.home / "cookie_secret").chmod(0o600)
        self.site: Any = None
        self.write_site(site)
        self.config_file.write_text(self._config() + config)
        self._mark = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.proxy: subprocess.Popen[bytes] | None = None
        self.http = requests.Session()
        self.http.trust_env = False
        self._own()

    def _config(self) -> str:
        return f"""
c = get_config()
c.JupyterHub.spawner_class = "hepspawner"
c.HEPSpawner.site = {str(self.site_file)!r}
c.JupyterHub.bind_url = "{self.url}"
c.JupyterHub.hub_bind_url = "http://{self.address}:{self.hub_port}"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{self.proxy_port}"
c.ConfigurableHTTPProxy.auth_token = "{self.proxy_token}"
c.JupyterHub.cookie_secret_file = {str(self.home / "cookie_secret")!r}
c.JupyterHub.db_url = "sqlite:///{self.database}"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.Authenticator.admin_users = {{"admin"}}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.log_level = "DEBUG"
c.JupyterHub.init_spawners_timeout = 1
c.JupyterHub.services = [{{"name": "tests", "api_token": "{self.service_token}"}}]
c.JupyterHub.load_roles = [{{"name": "tests", "services": ["tests"], "scopes": [
    "admin:users", "admin:servers", "admin:server_state", "admin:groups", "tokens", "proxy", "access:servers"]}}]
"""

    def _own(self) -> None:
        if self.account:
            entry = pwd.getpwnam(self.account)
            for path in (self.home, *self.home.iterdir()):
                os.chown(path, entry.pw_uid, entry.pw_gid)

    # --- the processes

    def start(self, wait: bool = True) -> "RealHub":
        """The proxy, where it does not run yet, and the hub; returns when the hub answers through the proxy."""
        if self.proxy is None or self.proxy.poll() is not None:
            self._start_proxy()
        assert self.process is None or self.process.poll() is not None, "the hub runs already"
        self.process = self._run([self.python, "-m", "jupyterhub", "-f", str(self.config_file)], self.log_file)
        if wait:
            eventually(self._up, "the hub answers", 60)
        return self

    def _start_proxy(self) -> None:
        command = [str(Path(self.python).parent / "configurable-http-proxy")]
        command += ["--ip", "127.0.0.1", "--port", str(self.port)]
        command += ["--api-ip", "127.0.0.1", "--api-port", str(self.proxy_port)]
        command += ["--error-target", f"http://{self.address}:{self.hub_port}/hub/error"]
        self.proxy = self._run(command, self.home / "proxy.log", CONFIGPROXY_AUTH_TOKEN=self.proxy_token)
        eventually(lambda: connects(self.proxy_port), "the proxy answers")

    def _run(self, command: list[str], log: Path, **environment: str) -> "subprocess.Popen[bytes]":
        account: dict[str, Any] = {}
        variables = {**os.environ, "PATH": f"{Path(self.python).parent}:{os.environ['PATH']}", **environment}
        if self.account:
            entry = pwd.getpwnam(self.account)
            groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
            variables |= {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
        with log.open("ab") as out:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=variables,
                cwd=self.home,
                start_new_session=True,
                **account,
            )

    def _up(self) -> bool:
        assert self.process and self.process.poll() is None, f"the hub ended at its start:\n{self.log()[-4000:]}"
        try:
            # of the routes through the proxy, the hub's own is made last
            return self.http.get(f"{self.url}/hub/api/", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """SIGKILL: the hub has no time to put anything in order. Proxy and servers run on."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """A hub that was killed is started again, on the same database."""
        if self.process and self.process.poll() is None:
            self.kill()
        self.start()

    def stop(self) -> None:
        """End everything that this hub started, and remove its directory."""
        try:
            self.stop_servers()
        except (AssertionError, requests.RequestException):
            pass  # the hub is no more, or not well: what is left is ended below
        for process in (self.process, self.proxy):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self.end_leftovers()
        shutil.rmtree(self.directory, ignore_errors=True)

    def stop_servers(self) -> None:
        """Have the hub stop all servers of all users."""

        def stop() -> bool:
            servers = [
                (user["name"], name, server["pending"])
                for user in self.api("GET", "/users").json()
                for name, server in user["servers"].items()
            ]
            if any(pending == "check" for *_, pending in servers):
                self.end_leftovers()  # JupyterHub cannot stop a server that it has not found again yet
            with ThreadPoolExecutor(8) as pool:  # each answer takes as long as the engine does
                list(pool.map(lambda one: self.stop_server(*one[:2]), [one for one in servers if one[2] != "check"]))
            return not self.active()

        eventually(stop, "all servers are stopped", 2 * PATIENCE)

    def active(self) -> list[str]:
        """The servers that run, start or stop."""
        users = self.api("GET", "/users").json()
        return [f"{user['name']}/{name}" for user in users for name in user["servers"]]

    @property
    def id(self) -> str:
        """The mark of this hub's jobs."""
        return hashlib.sha256(b"hepspawner hub" + self.secret).hexdigest()[:12]

    def leftovers(self) -> dict[int, str]:
        """Processes of this hub's servers and jobs, whoever started them."""
        marks = [f"HEPSPAWNER_TAG={self.id}/", f"JUPYTERHUB_API_URL=http://{self.address}:{self.hub_port}/"]
        return processes_with(*marks)

    def end_leftovers(self) -> None:
        """SIGKILL for the processes that are left of servers."""
        for pid in self.leftovers():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    # --- its files

    def write_site(self, site: Any) -> None:
        """Replace the site file, at once as an editor does."""
        self.site = site
        text = site if isinstance(site, str) else yaml.safe_dump(site, sort_keys=False)
        new = self.site_file.with_suffix(".new")
        new.write_text(text)
        new.rename(self.site_file)

    def change_site(self, site: Any) -> None:
        """Replace the site file, and wait until the hub has noticed."""
        before = self.log().count("] Site: ")
        self.write_site(site)
        eventually(lambda: self.log().count("] Site: ") > before, "the hub reads its site")

    def log(self) -> str:
        """All that the hub ever logged."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def mark_log(self) -> None:
        """From here on the log is new."""
        self._mark = len(self.log())

    def new_log(self) -> str:
        """What the hub logged since `mark_log`."""
        return self.log()[self._mark :]

    # --- what people and services do

    def api(self, method: str, path: str, body: Any = None, token: str | None = None, **more: Any) -> requests.Response:
        """A request to the hub's API, by default with the rights of an admin's service."""
        headers = {"Authorization": f"token {token or self.service_token}"}
        more.setdefault("timeout", 60)
        return self.http.request(method, f"{self.url}/hub/api{path}", headers=headers, json=body, **more)

    def add_user(self, name: str) -> None:
        """Make a user known to the hub."""
        answer = self.api("POST", f"/users/{quote(name, safe='')}")
        assert answer.status_code in (201, 409), answer.text

    def user_token(self, name: str) -> str:
        """A token with all rights of a user."""
        self.add_user(name)
        answer = self.api("POST", f"/users/{quote(name, safe='')}/tokens", {"note": "tests"})
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["token"])

    def start_server(self, user: str, options: Any = None, server: str = "", **more: Any) -> requests.Response:
        """POST /users/USER/server, with the options as the body, as on every version."""
        self.add_user(user)
        return self.api("POST", server_path(user, server), options, **more)

    def begin(self, user: str, options: Any = None, server: str = "") -> "Future[requests.Response]":
        """The same in the background: what comes of it can be asked for later."""
        self.add_user(user)
        answer: Future[requests.Response] = Future()

        def ask() -> None:
            try:
                headers = {"Authorization": f"token {self.service_token}"}
                url = f"{self.url}/hub/api{server_path(user, server)}"
                with requests.Session() as http:
                    http.trust_env = False
                    answer.set_result(http.post(url, headers=headers, json=options, timeout=60))
            except requests.RequestException as error:
                answer.set_exception(error)

        threading.Thread(target=ask, daemon=True).start()
        return answer

    def stop_server(self, user: str, server: str = "") -> requests.Response:
        """DELETE /users/USER/server."""
        return self.api("DELETE", server_path(user, server))

    def model(self, user: str, server: str = "") -> dict[str, Any]:
        """What the API says of a server; empty where it neither runs nor starts."""
        answer = self.api("GET", f"/users/{quote(user, safe='')}")
        return answer.json()["servers"].get(server, {}) if answer.status_code == 200 else {}

    def state(self, user: str, server: str = "") -> dict[str, Any]:
        """What the spawner saved of a server."""
        return self.model(user, server).get("state") or {}

    def reached(self, step: str, user: str, server: str = "") -> dict[str, Any]:
        """Wait until a start has come to a step: submitted, claimed, starting. What the spawner saved."""

        def look() -> Any:
            state = self.state(user, server)
            return state if step in (state.get("times") or {}) and state["job"] else None

        return dict(eventually(look, f"the start of {user}/{server} comes to: {step}"))

    def ready(self, user: str, server: str = "", seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait until a server is up and the proxy has its route; its model."""

        def look() -> Any:
            model = self.model(user, server)
            assert model, f"the server of {user} has ended:\n{self.log()[-3000:]}"
            # after a restart of the hub the route comes a moment later
            return model if model["ready"] and {model["url"], unquote(model["url"])} & set(self.routes()) else None

        return dict(eventually(look, f"the server {user}/{server} is ready", seconds))

    def gone(self, user: str, server: str = "", seconds: float = PATIENCE) -> None:
        """Wait until the hub knows of no server."""
        eventually(lambda: not self.model(user, server), f"the server {user}/{server} is gone", seconds)

    def get(self, path: str, **more: Any) -> requests.Response:
        """What is at a path of the proxy."""
        more.setdefault("timeout", 30)
        return self.http.get(self.url + path, **more)

    def server_get(self, user: str, path: str, server: str = "") -> requests.Response:
        """What a user's server answers, through the proxy."""
        return self.get(f"/user/{quote(user, safe='@')}/{quote(server, safe='') + '/' if server else ''}{path}")

    def routes(self) -> list[str]:
        """The routes of the proxy."""
        return list(self.api("GET", "/proxy").json())

    def progress(self, user: str, server: str = "", token: str | None = None) -> Iterator[dict[str, Any]]:
        """The events of a start, until its end: from the hub, for this proxy keeps an answer back until it is whole."""
        headers = {"Authorization": f"token {token or self.service_token}"}
        url = f"http://{self.address}:{self.hub_port}/hub/api{server_path(user, server)}/progress"
        with self.http.get(url, headers=headers, stream=True, timeout=60) as answer:
            assert answer.status_code == 200, answer.text
            for line in answer.iter_lines():
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def browser(self, user: str) -> "Browser":
        """Somebody who signed in."""
        return Browser(self, user)


class Browser:
    """A person with cookies."""

    def __init__(self, hub: RealHub, user: str):
        self.hub, self.user = hub, user
        self.http = requests.Session()
        self.http.trust_env = False
        self.get("/hub/login")
        answer = self.post("/hub/login?next=/hub/home", {"username": user, "password": "any"})
        assert answer.status_code == 200 and "/hub/home" in answer.url, answer.text[:2000]

    def get(self, path: str, **more: Any) -> requests.Response:
        """A page."""
        return self.http.get(self.hub.url + path, timeout=60, **more)

    def post(self, path: str, fields: Any, **more: Any) -> requests.Response:
        """A form that is sent, with the token that guards against forgery in its address, as in JupyterHub's pages."""
        token = next(cookie.value for cookie in self.http.cookies if cookie.name == "_xsrf" and "/hub" in cookie.path)
        address = f"{self.hub.url}{path}{'&' if '?' in path else '?'}_xsrf={quote(str(token), safe='')}"
        return self.http.post(address, data=fields, timeout=60, **more)

    def form(self, server: str = "", query: str = "") -> requests.Response:
        """The spawn form of a server."""
        return self.get(
            f"/hub/spawn/{quote(self.user, safe='')}{'/' + quote(server, safe='') if server else ''}{query}"
        )

    def spawn(self, fields: Any, server: str = "", **more: Any) -> requests.Response:
        """The spawn form, sent."""
        path = f"/hub/spawn/{quote(self.user, safe='')}{'/' + quote(server, safe='') if server else ''}"
        return self.post(path, fields, **more)


def server_path(user: str, server: str = "") -> str:
    """Where the API has a server."""
    user = quote(user, safe="")
    return f"/users/{user}/servers/{quote(server, safe='')}" if server else f"/users/{user}/server"
