"""Names of users and servers with whatever the hub lets people call themselves."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.conformance.conftest import site_of
from tests.conformance.rig import BackendRig
from tests.hubs import Hubs, on_both
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")

NAMES = [
    "zoë-ünïcode",
    "用户",
    "first last",
    "o'brien",
    'quo"te',
    "$(touch here)",
    "`id`",
    "semi;colon&and|pipe",
    "back\\slash",
    "per%cent%2fslash",
    "question?mark#hash",
    "plus+at@example.org",
    "<b>bold",
    "@port@",
    "{username}",
    "..hidden",
    "-rf",
    "x" * 200,
    "emoji🚀",
]


@pytest.fixture
def hub(request: pytest.FixtureRequest, rig: BackendRig, hubs: Hubs, engines: dict[str, Any]) -> Iterator[RealHub]:
    """A hub that is not root: then any name may have servers on this machine."""
    account = engines["users"][0] if os.getuid() == 0 else None
    version = getattr(request, "param", "hub6")
    site = site_of(rig, rig.part_of_anybody())
    make = lambda: RealHub(engines[version], site, account=account, version=version, address=rig.hub_address)  # noqa: E731
    one = hubs.get(("names", version), make)
    yield one
    one.stop_servers()


def ask(hub: RealHub, what: str, user: str, server: str = "") -> Any:
    """What a server answers: through the proxy, which has its troubles with a % in a path, then by itself."""
    model = hub.ready(user, server)
    base = hub.state(user, server)["url"] if "%25" in model["url"] else hub.url
    return requests.get(f"{base}{model['url']}{what}", timeout=30).json()


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_users_with_odd_names(hub: RealHub, rig: BackendRig, name: str) -> None:
    answer = hub.start_server(name, {"image": "tiny"})
    assert answer.status_code == 201, answer.text
    environment = ask(hub, "facts", name)["environment"]
    assert environment["JUPYTERHUB_USER"] == name
    assert ask(hub, "hub", name) == {"status": 200, "name": name}
    assert hub.browser(name).form("second").status_code == 200
    session = hub.state(name)["session"]
    hub.stop_server(name)
    hub.gone(name)
    eventually(lambda: not rig.processes(session), "nothing is left", 10)
    assert "Traceback" not in hub.new_log()


@pytest.mark.parametrize("hub", [pytest.param("hub5", marks=pytest.mark.needs("hub5"))], indirect=True)
@pytest.mark.parametrize("name", [*NAMES, "CamelCase@PORT@"], ids=lambda name: ascii(name)[:30])
def test_servers_with_odd_names(hub: RealHub, rig: BackendRig, name: str) -> None:
    """JupyterHub 5 lets people call their servers anything; 6 takes plain names only."""
    user = rig.users[0]
    answer = hub.start_server(user, {"image": "tiny"}, name)
    assert answer.status_code == 201, answer.text
    environment = ask(hub, "facts", user, name)["environment"]
    assert environment["JUPYTERHUB_SERVER_NAME"] == name
    assert environment["JUPYTERHUB_SERVICE_PREFIX"] == hub.model(user, name)["url"]
    session = hub.state(user, name)["session"]
    hub.stop_server(user, name)
    hub.gone(user, name)
    assert hub.browser(user).form(name).status_code == 200
    eventually(lambda: not rig.processes(session), "nothing is left", 10)
    assert "Traceback" not in hub.new_log()


@on_both
def test_names_that_are_alike_are_not_mixed_up(hub: RealHub, rig: BackendRig) -> None:
    pairs = [("ann", "b"), ("annb", ""), ("ann", ""), ("an", "nb")]
    for user, server in pairs:
        assert hub.start_server(user, {"image": "tiny"}, server).status_code == 201
    sessions = [hub.state(user, server)["session"] for user, server in pairs]
    hub.restart()
    for user, server in pairs:
        hub.ready(user, server)
    assert [hub.state(user, server)["session"] for user, server in pairs] == sessions
    assert len(rig.jobs(hub.id)) == len(pairs)
    hub.stop_server("ann", "b")
    hub.gone("ann", "b")
    eventually(lambda: not rig.processes(sessions[0]))
    assert all(rig.processes(session) for session in sessions[1:])
