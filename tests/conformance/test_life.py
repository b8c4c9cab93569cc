"""From the start of a server to its end, whoever ends it."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.rig import BackendRig
from tests.hubs import on_both
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")


@on_both
def test_a_real_jupyterlab_answers_through_the_proxy(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    person = hub.browser(user)
    answer = person.spawn({"image": rig.lab(hub.version)})
    assert answer.status_code == 200, answer.text
    hub.ready(user, seconds=90)
    assert "JupyterLab" in person.get(f"/user/{user}/lab").text
    assert hub.get(f"/user/{user}/api/status", headers={"Authorization": f"token {hub.user_token(user)}"}).ok


@pytest.mark.needs("apptainer", "image", "sif")
@pytest.mark.parametrize("kind", ["sandbox", "sif"])
def test_jupyterlab_of_a_container_image(hub: RealHub, rig: BackendRig, kind: str) -> None:
    user = rig.users[0]
    if kind not in [image["name"] for image in rig.images()]:
        return  # an engine whose jobs run in their image already
    answer = hub.start_server(user, {"image": kind})
    assert answer.status_code in (201, 202), answer.text
    hub.ready(user, seconds=90)
    answer = hub.get(f"/user/{user}/api/status", headers={"Authorization": f"token {hub.user_token(user)}"})
    assert answer.ok and "kernels" in answer.json()
    assert any("apptainer" in line.lower() for line in rig.processes(hub.state(user)["session"]).values())


@on_both
def test_a_server_starts_and_knows_who_it_is(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    answer = hub.start_server(user, {"image": "tiny"})
    assert answer.status_code == 201, answer.text
    environment = hub.server_get(user, "facts").json()["environment"]
    assert environment["JUPYTERHUB_USER"] == user
    assert environment["JUPYTERHUB_SERVICE_PREFIX"] == f"/user/{user}/"
    assert hub.server_get(user, "hub").json() == {"status": 200, "name": user}


@on_both
def test_stop_while_it_is_queued(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.hold()
    hub.begin(user, {"image": "tiny"})
    session = hub.reached("submitted", user)["session"]
    assert len(rig.jobs(session)) == 1
    assert hub.model(user)["pending"] == "spawn"
    assert hub.stop_server(user).status_code in (202, 204)
    hub.gone(user)
    eventually(lambda: not rig.jobs(session), "the job is taken out of the queue")


def test_stop_while_it_starts(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.close_gate()
    hub.begin(user, {"image": "waiting"})
    session = hub.reached("starting", user)["session"]
    assert hub.stop_server(user).status_code in (202, 204)
    hub.gone(user)
    eventually(lambda: not rig.jobs(session) and not rig.processes(session), "job and processes are gone")


@on_both
def test_stop_ends_all_that_the_server_started(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    session = hub.state(user)["session"]
    hub.server_get(user, "daemon")  # in a session of its own, and deaf to SIGTERM
    assert len(rig.processes(session)) >= 2
    assert hub.stop_server(user).status_code in (202, 204)
    hub.gone(user)
    assert not rig.processes(session)
    assert not rig.jobs(session)
    assert f"/user/{user}/" not in hub.routes()


def test_the_next_start_after_a_stop_is_a_new_session(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    sessions, tokens = set(), set()
    for _ in range(2):
        hub.start_server(user, {"image": "tiny"})
        hub.ready(user)
        sessions.add(hub.state(user)["session"])
        tokens.add(hub.server_get(user, "facts").json()["environment"]["JUPYTERHUB_API_TOKEN"])
        hub.stop_server(user)
        hub.gone(user)
    assert len(sessions) == len(tokens) == 2
    for token in tokens:
        assert hub.api("GET", "/user", token=token).status_code == 403


@on_both
def test_a_server_that_dies_is_noticed_at_once_and_explained(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    session = hub.state(user)["session"]
    token = hub.server_get(user, "facts").json()["environment"]["JUPYTERHUB_API_TOKEN"]
    hub.server_get(user, "daemon")
    hub.server_get(user, "die")
    hub.gone(user, seconds=5)  # nobody waits for the next poll, which comes every 30 s
    eventually(lambda: f"/user/{user}/" not in hub.routes(), "the route is removed", 5)
    eventually(lambda: not rig.processes(session), "what the server left is ended", 5)
    form = hub.browser(user).form().text
    assert "ended with exit code 7" in form
    assert "the last words &lt;of&gt; the server" in form
    assert token not in form + hub.log()
    assert hub.api("GET", "/user", token=token).status_code == 403


def test_a_job_that_the_engine_kills_is_noticed_and_nothing_stays(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    session = hub.state(user)["session"]
    hub.server_get(user, "daemon")
    rig.kill_job(session)
    hub.gone(user, seconds=10)
    eventually(lambda: not rig.processes(session), "what the job left is ended")
    assert "The server is gone" in hub.browser(user).form().text


def test_a_job_that_is_killed_in_the_queue_ends_the_start(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.hold()
    start = hub.begin(user, {"image": "tiny"})
    rig.kill_job(hub.reached("submitted", user)["session"])
    answer = start.result(20)
    assert answer.status_code == 422
    assert "The server is gone" in answer.json()["message"]


@on_both
def test_a_server_that_cannot_start_says_why(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    answer = hub.start_server(user, {"image": "crashing"})
    assert answer.status_code == 422
    message = answer.json()["message"]
    assert "exit code 3" in message and "the flux capacitor is empty" in message, message
    form = hub.browser(user).form().text
    assert "exit code 3" in form and "the flux capacitor is empty" in form
    assert "Traceback" not in hub.new_log()
    assert not hub.model(user)


@on_both
def test_an_image_that_is_not_there_is_refused_before_anything_starts(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    answer = hub.start_server(user, {"image": "gone"})
    assert answer.status_code == 400
    assert "gone" in answer.json()["message"] and "does not exist" in answer.json()["message"]
    assert not rig.jobs(hub.id)
    assert "Traceback" not in hub.new_log()


@on_both
def test_an_image_without_the_command_says_what_to_do(hub: RealHub, rig: BackendRig) -> None:
    for image in rig.bare():
        answer = hub.start_server(rig.users[0], {"image": image})
        assert answer.status_code == 422, answer.text
        assert "choose another" in answer.json()["message"], answer.text
    assert "Traceback" not in hub.new_log()


def test_two_servers_of_a_user_do_not_disturb_each_other(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    for name in ("", "second"):
        assert hub.start_server(user, {"image": "tiny"}, name).status_code == 201
    first, second = (hub.server_get(user, "facts", name).json() for name in ("", "second"))
    assert first["environment"]["HEPSPAWNER_SESSION"] != second["environment"]["HEPSPAWNER_SESSION"]
    assert first["environment"]["TMPDIR"] != second["environment"]["TMPDIR"]
    assert second["environment"]["JUPYTERHUB_SERVICE_PREFIX"] == f"/user/{user}/second/"
    sessions = [hub.state(user, name)["session"] for name in ("", "second")]
    hub.stop_server(user)
    hub.gone(user)
    assert not rig.processes(sessions[0])
    assert hub.server_get(user, "facts", "second").json()["pid"] == second["pid"]
    hub.server_get(user, "die", "second")
    hub.gone(user, "second", seconds=5)
    eventually(lambda: not rig.processes(sessions[1]))


def test_servers_of_two_users_at_once(hub: RealHub, rig: BackendRig) -> None:
    starts = [hub.begin(user, {"image": "tiny"}) for user in rig.users]
    assert [start.result(60).status_code for start in starts] == [201, 201]
    names = [hub.server_get(user, "hub").json()["name"] for user in rig.users]
    assert names == list(rig.users)


def test_two_starts_at_once_make_one_job(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.hold()
    starts = [hub.begin(user, {"image": "tiny"}) for _ in range(3)]
    hub.reached("submitted", user)
    assert len(rig.jobs(hub.id)) == 1
    rig.release()
    hub.ready(user)
    assert len(rig.jobs(hub.id)) == 1
    assert all(start.result(30).status_code in (201, 202, 400) for start in starts)


@pytest.mark.needs("users")
def test_servers_run_as_their_users(hub: RealHub, rig: BackendRig, in_group: Any) -> None:
    if not rig.account_per_user:
        return
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    facts = hub.server_get(user, "facts").json()
    account = pwd.getpwnam(user)
    assert (facts["uid"], facts["gid"]) == (account.pw_uid, account.pw_gid)
    assert set(facts["groups"]) == set(os.getgrouplist(user, account.pw_gid))
    assert in_group in facts["groups"]
    assert facts["cwd"] == account.pw_dir
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in rig.processes(hub.state(user)["session"])}
    owners |= {Path(f"/proc/{pid}").stat().st_uid for pid in rig.jobs(hub.id)} if rig.name == "local" else set()
    assert owners == {account.pw_uid}
    assert facts["sid"] != os.getsid(hub.process.pid if hub.process else 0)


@pytest.fixture
def in_group(rig: BackendRig) -> Any:
    """A group, by number, that the first user is in beside his own."""
    name = f"hepspawner-{os.getpid()}"
    subprocess.run(["groupadd", name], check=True)
    subprocess.run(["gpasswd", "-a", rig.users[0], name], check=True, stdout=subprocess.DEVNULL)
    import grp

    yield grp.getgrnam(name).gr_gid
    subprocess.run(["groupdel", name], check=True)
