"""The hub dies by SIGKILL, at any moment: no server is lost, doubled or orphaned by that."""

from itertools import islice

import pytest

from tests.conformance.rig import BackendRig
from tests.hubs import on_both
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")


def usable(hub: RealHub, user: str) -> None:
    """The server's token works, and the user can open it."""
    assert hub.server_get(user, "hub").json() == {"status": 200, "name": user}
    assert hub.browser(user).get(f"/user/{user}/facts").status_code == 200


@on_both
def test_a_queued_server_is_adopted_and_becomes_usable(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.hold()
    hub.begin(user, {"image": "tiny"})
    session = hub.reached("submitted", user)["session"]
    jobs = rig.jobs(hub.id)
    hub.restart()
    assert hub.model(user)["pending"]
    assert rig.jobs(hub.id) == jobs
    rig.release()
    hub.ready(user)
    assert hub.state(user)["session"] == session
    assert len(rig.jobs(hub.id)) == 1
    usable(hub, user)
    assert hub.stop_server(user).status_code in (202, 204)
    hub.gone(user)
    assert not rig.processes(session)


@on_both
def test_a_queued_server_can_be_watched_and_stopped_after_a_restart(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.hold()
    hub.begin(user, {"image": "tiny"})
    session = hub.reached("submitted", user)["session"]
    hub.restart()
    assert any("Waiting for the node" in event["message"] for event in islice(hub.progress(user), 3))
    assert hub.browser(user).get(f"/hub/spawn-pending/{user}").status_code == 200
    assert hub.stop_server(user).status_code in (202, 204)
    hub.gone(user)
    eventually(lambda: not rig.jobs(session), "the job is taken out of the queue")
    assert "Traceback" not in hub.new_log()
    rig.release()
    assert hub.start_server(user, {"image": "tiny"}).status_code == 201


def test_of_two_that_wait_after_a_restart_the_first_is_usable_at_once(hub: RealHub, rig: BackendRig) -> None:
    user, other = rig.users
    rig.close_gate()
    hub.begin(other, {"image": "waiting"})
    hub.reached("starting", other)
    rig.hold()
    hub.begin(user, {"image": "tiny"})
    hub.reached("submitted", user)
    hub.restart()
    watched = hub.progress(user)
    next(watched)
    rig.release()
    hub.ready(user)
    usable(hub, user)
    assert list(watched)[-1]["ready"]
    assert hub.model(other)["pending"]
    rig.open_gate()
    hub.ready(other)
    usable(hub, other)


def test_a_start_that_fails_after_a_restart_says_why(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.hold()
    hub.begin(user, {"image": "crashing"})
    hub.reached("submitted", user)
    hub.restart()
    watched = hub.progress(user)
    next(watched)
    rig.release()
    last = list(watched)[-1]
    assert last["failed"] and "exit code 3" in last["message"]
    hub.gone(user)
    person = hub.browser(user)
    assert "the flux capacitor is empty" in person.get(f"/hub/spawn-pending/{user}").text
    assert "the flux capacitor is empty" in person.form().text


@on_both
def test_a_starting_server_becomes_ready_and_is_stopped_politely(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.close_gate()
    hub.begin(user, {"image": "waiting"})
    session = hub.reached("starting", user)["session"]
    server = lambda: [pid for pid, line in rig.processes(session).items() if "tiny" in line]  # noqa: E731
    before = eventually(server)
    hub.restart()
    rig.open_gate()
    hub.ready(user)
    assert server() == before
    usable(hub, user)
    # and it has its time to save what is open
    hub.server_get(user, "unsaved")
    assert hub.stop_server(user).status_code in (202, 204)
    hub.gone(user)
    assert "/hub/api/user?saved=1" in hub.new_log()


@on_both
def test_a_running_server_runs_on(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    before = hub.server_get(user, "facts").json()
    hub.kill()
    assert hub.server_get(user, "facts").json()["pid"] == before["pid"]
    hub.start()
    hub.ready(user)
    after = hub.server_get(user, "facts").json()
    assert (after["pid"], after["environment"]) == (before["pid"], before["environment"])
    usable(hub, user)
    # it is watched as before
    hub.server_get(user, "die")
    hub.gone(user, seconds=10)
    assert "exit code 7" in hub.browser(user).form().text


def test_a_job_may_claim_while_the_hub_is_away(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    rig.hold()
    hub.begin(user, {"image": "tiny"})
    hub.reached("submitted", user)
    hub.kill()
    rig.release()
    hub.start()
    hub.ready(user)
    assert len(rig.jobs(hub.id)) == 1
    usable(hub, user)


def test_a_hub_that_dies_while_it_submits_leaves_no_orphan(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    for _ in range(3):
        hub.begin(user, {"image": "tiny"})
        eventually(lambda: rig.jobs(hub.id), "a job")
        hub.kill()
        hub.start()
        # found again by its tag, or ended: never both
        model = eventually(lambda: [m] if (m := hub.model(user)).get("ready") or not m else None)[0]
        if model:
            assert len(rig.jobs(hub.id)) == 1
            usable(hub, user)
            hub.stop_server(user)
            hub.gone(user)
        eventually(lambda: not rig.jobs(hub.id) and not hub.leftovers(), "no orphan")


@on_both
def test_a_server_that_died_while_the_hub_was_away_is_noticed(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    session = hub.state(user)["session"]
    hub.kill()
    hub.server_get(user, "die")
    hub.start()
    hub.gone(user, seconds=20)
    eventually(lambda: f"/user/{user}/" not in hub.routes(), "the route is removed")
    eventually(lambda: not rig.processes(session) and not rig.jobs(session), "nothing is left")
    assert hub.start_server(user, {"image": "tiny"}).status_code == 201


def test_a_job_that_was_killed_while_the_hub_was_away_is_noticed(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    session = hub.state(user)["session"]
    hub.server_get(user, "daemon")
    hub.kill()
    rig.kill_job(session)
    hub.start()
    hub.gone(user, seconds=20)
    eventually(lambda: not rig.processes(session), "what the job left is ended")


def test_a_backend_that_vanished_from_the_site_is_not_a_dead_server(hub: RealHub, rig: BackendRig) -> None:
    user = rig.users[0]
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    pid = hub.server_get(user, "facts").json()["pid"]
    part = {**rig.part(), "title": "Another"}
    images = [image for image in rig.images() if image["name"] == "tiny"]
    hub.change_site({"images": images, "backends": {"other": part}})
    assert hub.model(user)["ready"]
    hub.restart()  # and now nothing is known of the backend at all
    assert hub.ready(user)
    assert hub.server_get(user, "facts").json()["pid"] == pid
    hub.change_site({"images": images, "backends": {"engine": rig.part()}})
    session = hub.state(user)["session"]
    assert hub.stop_server(user).status_code in (202, 204)
    hub.gone(user)
    assert not rig.processes(session)
