"""Nothing secret is visible: while a server is queued, while it starts and while it runs, to anybody but its user."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hepspawner.hub.tickets import Tickets
from tests.conformance.rig import BackendRig
from tests.realhub import Browser, RealHub

pytestmark = pytest.mark.needs("hub6")


def seen(hub: RealHub, rig: BackendRig, person: Browser, session: str) -> dict[str, str]:
    """All that somebody, the user's own pages among it, gets to see now."""
    texts = {**rig.public_texts(session), "the hub's log": hub.log()}
    for file in hub.home.glob("jupyterhub.sqlite*"):
        texts[str(file)] = file.read_bytes().decode("latin-1")
    for page in ("/hub/home", f"/hub/spawn/{person.user}", f"/hub/spawn-pending/{person.user}", "/hub/token"):
        texts[page] = person.get(page).text
    for path in (f"/users/{person.user}?include_stopped_servers=1", "/proxy", "/hepspawner/images"):
        texts["API " + path] = hub.api("GET", path).text
    return texts


def test_no_secret_is_visible(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    person = hub.browser(user)
    rig.hold()
    rig.close_gate()
    hub.begin(user, {"image": "waiting"})
    session = hub.reached("submitted", user)["session"]
    texts = {f"queued: {place}": text for place, text in seen(hub, rig, person, session).items()}
    rig.release()
    hub.reached("starting", user)
    texts |= {f"starting: {place}": text for place, text in seen(hub, rig, person, session).items()}
    rig.open_gate()
    hub.ready(user)
    environment = hub.server_get(user, "facts").json()["environment"]
    texts |= {f"running: {place}": text for place, text in seen(hub, rig, person, session).items()}
    hub.server_get(user, "die")
    hub.gone(user)
    texts |= {f"ended: {place}": text for place, text in seen(hub, rig, person, session).items()}

    assert any(session in text for text in texts.values())  # it would have been found
    secrets = {"token": environment["JUPYTERHUB_API_TOKEN"], "report key": Tickets(hub.secret).report_key(session)}
    ticket = re.compile(re.escape(session) + r"\.[0-9]+\.[0-9a-f]{8}")
    for place, text in texts.items():
        for name, secret in secrets.items():
            assert secret not in text, f"{place}: {name}"
        assert not ticket.search(text), f"{place}: ticket"


PRY = """
import os, sys
from pathlib import Path
for place in sys.argv[1:]:
    try:
        if os.path.isdir(place):
            print("listed", place, os.listdir(place))
        else:
            print("read", place, len(open(place, "rb").read()))
    except PermissionError:
        print("refused", place)
    except FileNotFoundError:
        print("refused", place)
"""


@pytest.mark.needs("users")
def test_another_user_can_read_nothing_of_a_server(hub: RealHub, rig: BackendRig) -> None:
    if not rig.account_per_user:
        return
    user, other = rig.users
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    session = hub.state(user)["session"]
    facts = hub.server_get(user, "facts").json()
    places = [f"/proc/{pid}/environ" for pid in (*rig.processes(session), *rig.jobs(session))]
    places += [f"/proc/{facts['pid']}/fd", facts["environment"]["TMPDIR"]]
    log = Path(f"~{user}/.local/state/hepspawner/server.log").expanduser()
    assert log.exists()
    places += [str(log), str(hub.home), str(hub.database), str(hub.config_file)]
    out = subprocess.run(
        ["runuser", "-u", other, "--", sys.executable, "-c", PRY, *places],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    ).stdout
    lines = out.splitlines()
    assert len(lines) == len(places)
    assert all(line.startswith("refused") for line in lines), out


@pytest.mark.needs("users")
def test_another_user_of_the_hub_cannot_use_a_server(hub: RealHub, rig: BackendRig) -> None:
    user, other = rig.users
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    token = hub.user_token(other)
    for method, path in (
        ("GET", f"/users/{user}"),
        ("DELETE", f"/users/{user}/server"),
        ("POST", f"/users/{user}/server"),
        ("GET", f"/users/{user}/server/progress"),
    ):
        assert hub.api(method, path, token=token).status_code in (403, 404), path
    assert hub.browser(other).get(f"/hub/spawn/{user}").status_code in (403, 404)
    assert hub.ready(user)
