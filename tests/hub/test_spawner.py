"""What JupyterHub's own settings mean, and as whom servers run."""

import os
import pwd
from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.rig import LocalRig
from tests.hubs import VERSIONS
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")

CONFIG = """
c.HEPSpawner.environment = {"FIXED": "$HOME `id` %s", "COMPUTED": lambda spawner: "for " + spawner.user.name}
c.HEPSpawner.args = ["--its-args", "a b"]
c.HEPSpawner.cmd = ["tiny", "serve"]
c.HEPSpawner.default_url = "/tree"
c.HEPSpawner.notebook_dir = "/usr/{username}"
c.HEPSpawner.poll_interval = 1
def before(spawner):
    spawner.environment = {**spawner.environment, "HOOK": spawner.user_options["image"]}
c.HEPSpawner.pre_spawn_hook = before
c.HEPSpawner.auth_state_hook = lambda spawner, state: setattr(spawner, "auth_seen", True)
stopped = open(__file__ + ".stopped", "a", buffering=1)
c.HEPSpawner.post_stop_hook = lambda spawner: stopped.write(spawner.user.name + chr(10))
"""


def unprivileged() -> str | None:
    """An account for a hub that is not root, where that has to be chosen."""
    return "alice" if os.getuid() == 0 else None


@pytest.mark.needs("users")
@pytest.mark.parametrize("version", VERSIONS)
def test_jupyterhubs_own_settings_mean_what_they_mean(
    new_hub: Callable[..., RealHub], rig: LocalRig, version: str
) -> None:
    image = {"name": "plain", "prefix": str(rig.directory / "prefix"), "environment": {"FROM_IMAGE": "yes"}}
    site = {"images": [image], "backends": {"engine": rig.part()}, "environment": {"FROM_SITE": "yes"}}
    config = CONFIG.replace("/usr/{username}", "/home/{username}").replace(
        "__file__", repr(str(rig.directory / version))
    )
    hub = new_hub(site, config, version)
    user = rig.users[0]
    assert hub.start_server(user, {}).status_code == 201
    facts = hub.server_get(user, "facts").json()
    environment = facts["environment"]
    assert environment["FIXED"] == "$HOME `id` %s"
    assert environment["COMPUTED"] == f"for {user}"
    assert environment["HOOK"] == "plain"
    assert environment["FROM_SITE"] == environment["FROM_IMAGE"] == "yes"
    assert environment["JUPYTERHUB_DEFAULT_URL"] == "/tree"
    assert facts["argv"] == ["serve", "--its-args", "a b"]
    assert facts["cwd"] == f"/home/{user}"
    hub.stop_server(user)
    hub.gone(user)
    eventually(lambda: (rig.directory / f"{version}.stopped").read_text().split() == [user], "the hook of the stop")
    assert "Traceback" not in hub.log()


@pytest.mark.needs("users")
def test_a_hub_that_is_not_root_runs_all_servers_as_itself(new_hub: Callable[..., RealHub], site: Any) -> None:
    account = unprivileged()
    hub = new_hub(site, account=account)
    for user in ("zoe", "no-such-account"):
        assert hub.start_server(user, {"image": "tiny"}).status_code == 201
        facts = hub.server_get(user, "facts").json()
        assert facts["uid"] == (pwd.getpwnam(account).pw_uid if account else os.getuid())
        assert facts["environment"]["JUPYTERHUB_USER"] == user
        assert hub.server_get(user, "hub").json()["name"] == user
    hub.restart()
    assert hub.ready("zoe")
    assert "Traceback" not in hub.log()


@pytest.mark.needs("users")
def test_a_user_without_an_account_is_told_so(hub: RealHub) -> None:
    answer = hub.start_server("nobody-of-that-name", {"image": "tiny"})
    assert answer.status_code == 503
    assert "no account 'nobody-of-that-name'" in answer.json()["message"]
    assert "Traceback" not in hub.new_log()


@pytest.mark.needs("users")
def test_nobody_gets_a_server_as_root(hub: RealHub) -> None:
    answer = hub.start_server("root", {"image": "tiny"})
    assert answer.status_code == 503
    assert "root" in answer.json()["message"]
    assert hub.leftovers() == {}
    assert "Traceback" not in hub.new_log()


@pytest.mark.parametrize("image", ["tiny", "waiting"])
def test_a_start_that_takes_too_long_ends(
    new_hub: Callable[..., RealHub], rig: LocalRig, site: Any, user: str, image: str
) -> None:
    if image == "tiny":
        rig.hold()
    else:
        rig.close_gate()
    hub = new_hub(site, "c.HEPSpawner.start_timeout = 3\n")
    hub.begin(user, {"image": image})
    hub.reached("submitted", user)
    hub.gone(user)
    eventually(lambda: not hub.leftovers(), "the job is gone")
    rig.release()
    rig.open_gate()
    form = hub.browser(user).form().text
    assert "was not up in time" in form
    assert ("Waiting for the node" if image == "tiny" else "JupyterLab starts") in form
    assert hub.leftovers() == {}


def test_internal_ssl_is_refused_in_words(new_hub: Callable[..., RealHub], site: Any, user: str) -> None:
    # as JupyterHub makes its spawners where it is on; the hub itself stays reachable without certificates
    config = """
from hepspawner import HEPSpawner
class Strict(HEPSpawner):
    def __init__(self, **more):
        super().__init__(**{**more, "internal_ssl": True})
c.JupyterHub.spawner_class = Strict
"""
    hub = new_hub(site, config)
    answer = hub.start_server(user, {"image": "tiny"})
    assert answer.status_code == 503
    assert "internal_ssl" in answer.json()["message"]


def test_a_hook_that_fails_leaves_nothing_behind(new_hub: Callable[..., RealHub], site: Any, user: str) -> None:
    hub = new_hub(site, "def fail(spawner): raise ValueError('not today')\nc.HEPSpawner.pre_spawn_hook = fail\n")
    assert hub.start_server(user, {"image": "tiny"}).status_code == 500
    assert hub.leftovers() == {}
    assert hub.active() == []


def test_another_spawner_is_left_alone(new_hub: Callable[..., RealHub], site: Any) -> None:
    """A hub that has hepspawner installed but uses another spawner gets none of our routes."""
    hub = new_hub(site, 'c.JupyterHub.spawner_class = "simple"\n')
    assert hub.api("POST", "/hepspawner/claim", {}).status_code == 404


def test_the_class_may_be_derived(new_hub: Callable[..., RealHub], site: Any, user: str) -> None:
    config = """
from hepspawner import HEPSpawner
class OurSpawner(HEPSpawner):
    def get_env(self):
        return {**super().get_env(), "OURS": "yes"}
c.JupyterHub.spawner_class = OurSpawner
"""
    hub = new_hub(site, config)
    assert hub.start_server(user, {"image": "tiny"}).status_code == 201
    assert hub.server_get(user, "facts").json()["environment"]["OURS"] == "yes"
