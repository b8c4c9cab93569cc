"""JupyterHub's API and ours: the same rules as for the form, told in the same words."""

import json
import time
from typing import Any

import pytest
import requests

from tests.conformance.rig import LocalRig
from tests.hubs import on_both
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")


@on_both
@pytest.mark.parametrize(
    "options, said",
    [
        ({"image": "no-such"}, ["image: 'no-such'", "tiny"]),
        ({"image": "secnd"}, ["image: 'secnd'", "did you mean second?"]),
        ({"image": 5}, ["image: 5"]),
        ({"image": ["tiny"]}, ["image: a list"]),
        ({"backend": "nowhere"}, ["backend: 'nowhere'", "engine, gpu-engine"]),
        ({"image": "tiny", "cpus": 99}, ["cpus: 99", "1 to 4"]),
        ({"image": "tiny", "cpus": -1}, ["cpus: -1", "1 to 4"]),
        ({"image": "tiny", "cpus": True}, ["cpus: True"]),
        ({"image": "tiny", "cpus": 1.5}, ["cpus: 1.5"]),
        ({"image": "tiny", "cpus": 10**400}, ["cpus: "]),
        ({"image": "tiny", "memory": "64G"}, ["memory: '64G'", "128M to 2G"]),
        ({"image": "tiny", "runtime": "1y"}, ["runtime: '1y'"]),
        ({"image": "tiny", "gpu": "a100", "backend": "engine"}, ["gpu: engine has no GPUs", "gpu-engine"]),
        ({"image": "needs-gpu", "gpus": 9}, ["gpus: 9", "to 2"]),
        ({"image": "tiny", "frobnicate": 1}, ["frobnicate: is not an option"]),
        ({"image": "tiny", "cpus": 99, "memory": "64G"}, ["cpus: 99", "memory: '64G'"]),
        ({"custom_image": "/etc"}, ["custom_image: "]),
        ({"image": "tiny; rm -rf /"}, ["image: 'tiny; rm -rf /'"]),
        ({"image": "tiny\n#SBATCH"}, [r"image: 'tiny\n#SBATCH'"]),
        ({"image": "gone"}, ["gone: ", "does not exist"]),
        ({"image": "50% off %s"}, ["image: '50% off %s'"]),
    ],
    ids=str,
)
def test_wrong_options_are_told_by_field(hub: RealHub, user: str, options: Any, said: list[str]) -> None:
    answer = hub.start_server(user, options)
    assert answer.status_code == 400, answer.text
    for text in said:
        assert text in answer.json()["message"]
    assert "Traceback" not in hub.new_log()
    assert hub.active() == []


def test_the_same_options_beside_jupyterhubs_own_keys(hub: RealHub, user: str) -> None:
    """JupyterHub 6: {"user_options": {...}, "display_name": ...}."""
    wrong = hub.start_server(user, {"user_options": {"image": "tiny", "cpus": 99}, "display_name": "x"}, "named")
    assert wrong.status_code == 400 and "cpus: 99" in wrong.json()["message"]
    right = hub.start_server(
        user, {"user_options": {"image": "second", "cpus": 2}, "display_name": "My server"}, "named"
    )
    assert right.status_code == 201, right.text
    assert hub.state(user, "named")["options"]["cpus"] == 2


@on_both
@pytest.mark.parametrize(
    "body",
    [
        b'{"image": "' + b"x" * 10_000_000 + b'"}',
        b'{"a": ' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 10_000 + b"]" * 10_000,
        json.dumps({f"option{i}": 1 for i in range(5000)}).encode(),
        b'{"' + b"n" * 100_000 + b'": 1}',
        b'{"image": {"a": {"b": ["c"]}}}',
        b'{"cpus": 1e400}',
        b'{"cpus": NaN}',
        b'{"image": "\\ud800"}',
        b'{"image": "\\u0000"}',
        b'{"\\u0000": "tiny"}',
        b'{"image": null, "__proto__": {"x": 1}}',
        b'["image"]',
        b'"image"',
        b"7",
        b"{",
        b'{"user_options": [1]}',
        b'{"user_options": "tiny"}',
        b'{"display_name": 5}',
    ],
    ids=lambda body: body[:24].decode(),
)
def test_hostile_bodies_are_refused_and_the_hub_stays_well(hub: RealHub, user: str, body: bytes) -> None:
    hub.add_user(user)
    headers = {"Authorization": f"token {hub.user_token(user)}"}
    begin = time.monotonic()
    answer = requests.post(f"{hub.url}/hub/api/users/{user}/server", data=body, headers=headers, timeout=60)
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:500])
    assert len(answer.text) < 5000
    assert time.monotonic() - begin < 20
    assert hub.get("/hub/api/health").status_code == 200
    assert hub.active() == []
    # nor is it remembered
    assert hub.browser(user).form().status_code == 200


def test_options_that_are_null_mean_the_defaults(hub: RealHub, user: str) -> None:
    assert hub.start_server(user, {"image": None, "cpus": None}).status_code == 201
    options = hub.state(user)["options"]
    assert (options["image"], options["cpus"]) == ("tiny", 1)


# --- groups: what somebody may not use does not exist for him


@on_both
def test_who_is_in_the_group_may_use_it(hub: RealHub, insider: str) -> None:
    token = hub.user_token(insider)
    names = [image["name"] for image in hub.api("GET", "/hepspawner/images", token=token).json()["images"]]
    assert "insiders-only" in names
    assert "Top secret" in hub.browser(insider).form().text
    answer = hub.api(
        "POST", f"/users/{insider}/server", {"image": "insiders-only", "backend": "insiders-engine"}, token=token
    )
    assert answer.status_code == 201, answer.text


@on_both
def test_who_is_not_learns_nothing_of_it(hub: RealHub, user: str, insider: str) -> None:
    token = hub.user_token(user)

    def start(options: Any) -> Any:
        return hub.api("POST", f"/users/{user}/server", options, token=token).json()

    def preview(options: Any) -> Any:
        return hub.api("POST", "/hepspawner/preview", {"options": options}, token=token).json()

    def image(name: str) -> Any:
        return hub.api("GET", f"/hepspawner/images/{name}", token=token).json()

    # the same answer as for a name that does not exist
    for ask in (start, preview):
        for option, hidden in (("image", "insiders-only"), ("image", "insiders-gone"), ("backend", "insiders-engine")):
            nonsense = "zzzzzzzz-" + "z" * (len(hidden) - 9)
            assert json.dumps(ask({option: hidden})).replace(hidden, nonsense) == json.dumps(ask({option: nonsense}))
    assert json.dumps(image("insiders-only")).replace("insiders-only", "nonsense") == json.dumps(image("nonsense"))
    everything = [hub.api("GET", "/hepspawner/images", token=token).text, hub.browser(user).form().text]
    everything += [hub.browser(user).form(query="?opt-image=insiders-only&opt-backend=insiders-engine").text]
    everything += [json.dumps(start({"image": "nonsense"})), json.dumps(preview({"backend": "nonsense"}))]
    everything += [json.dumps(start({"custom_image": "/etc"}))]
    for text in everything:
        for secret in ("Top secret", "secret/place", "insiders-gone", "Hidden"):
            assert secret not in text
    # a name that was asked for may be echoed, but is not offered
    assert 'value="insiders-only"' not in everything[2] and 'value="insiders-engine"' not in everything[2]


def test_who_left_the_group_cannot_start_it_again(hub: RealHub, insider: str) -> None:
    assert hub.start_server(insider, {"image": "insiders-only"}).status_code == 201
    hub.stop_server(insider)
    hub.gone(insider)
    hub.api("DELETE", "/groups/insiders/users", {"users": [insider]})
    # JupyterHub would take the last options
    answer = hub.start_server(insider)
    assert answer.status_code == 400 or hub.state(insider)["options"]["image"] == "tiny"


# --- our own API


def test_the_images_that_a_user_may_use(hub: RealHub, user: str) -> None:
    token = hub.user_token(user)
    answer = eventually(
        lambda: (
            (a := hub.api("GET", "/hepspawner/images", token=token)).ok
            and {i["name"]: i["state"] for i in a.json()["images"]}["gone"] == "missing"
            and a
        )
    )
    images = {image["name"]: image for image in answer.json()["images"]}
    assert list(images) == ["tiny", "waiting", "crashing", "gone", "bare", "second", "needs-gpu"]
    assert images["second"]["title"] == "A second image"
    assert images["needs-gpu"]["backends"] == ["gpu-engine"]
    assert images["tiny"]["state"] == "prefix"
    assert "does not exist" in images["gone"]["note"]
    second = hub.api("GET", "/hepspawner/images/second", token=token).json()
    assert second.pop("age") >= images["second"].pop("age")
    assert second == images["second"]
    assert hub.api("GET", "/hepspawner/images/nonsense", token=token).status_code == 404


@on_both
def test_a_preview_shows_what_would_run_and_starts_nothing(hub: RealHub, user: str) -> None:
    token = hub.user_token(user)
    answer = hub.api("POST", "/hepspawner/preview", {"options": {"image": "second", "cpus": 3}}, token=token)
    assert answer.status_code == 200, answer.text
    text = answer.json()["text"]
    assert "tiny serve" in text and "CPU_LIMIT=3" in text and f"JUPYTERHUB_USER={user}" in text
    assert hub.browser(user).form("named").status_code == 200  # JupyterHub knows of it from here on
    named = hub.api("POST", "/hepspawner/preview", {"options": {}, "server": "named"}, token=token).json()["text"]
    assert f"/user/{user}/named/" in named
    wrong = hub.api("POST", "/hepspawner/preview", {"options": {"cpus": 99}}, token=token)
    assert wrong.status_code == 400
    assert list(wrong.json()["errors"]) == ["cpus"]
    assert hub.active() == []
    assert "Traceback" not in hub.new_log()


def test_a_preview_shows_no_token(hub: RealHub, user: str) -> None:
    hub.start_server(user, {"image": "tiny"})
    hub.ready(user)
    secret = hub.server_get(user, "facts").json()["environment"]["JUPYTERHUB_API_TOKEN"]
    token = hub.user_token(user)
    text = hub.api("POST", "/hepspawner/preview", {"options": {}}, token=token).json()["text"]
    assert secret not in text and "JUPYTERHUB_API_TOKEN=<secret" in text


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"[" * 10_000, b'{"options": [1]}', b'{"options": 5}', b"x" * 100_000]
)
def test_malformed_previews_are_refused(hub: RealHub, user: str, body: bytes) -> None:
    headers = {"Authorization": f"token {hub.user_token(user)}"}
    answer = requests.post(f"{hub.url}/hub/api/hepspawner/preview", data=body, headers=headers, timeout=30)
    assert 400 <= answer.status_code < 500, answer.text
    assert "Traceback" not in hub.new_log()


@pytest.mark.parametrize("path", ["images", "images/tiny", "preview"])
def test_our_api_is_for_users_who_signed_in(hub: RealHub, path: str) -> None:
    method = "POST" if path == "preview" else "GET"
    assert requests.request(method, f"{hub.url}/hub/api/hepspawner/{path}", json={}, timeout=30).status_code == 403
    # an admin's service is no user: it has no images
    assert hub.api(method, f"/hepspawner/{path}", {}).status_code == 403
    assert "Traceback" not in hub.new_log()


# --- the way to a server


@on_both
def test_the_waiting_page_tells_where_the_start_is(hub: RealHub, rig: LocalRig, user: str) -> None:
    rig.hold()
    hub.begin(user, {"image": "tiny", "cpus": 2})
    hub.reached("submitted", user)
    person = hub.browser(user)
    assert "progress" in person.get(f"/hub/spawn-pending/{user}").text
    events = []
    for event in hub.progress(user, token=hub.user_token(user)):
        events.append(event)
        if "Waiting for the node" in event["message"]:
            rig.release()
    messages = [event["message"] for event in events]
    assert any("Waiting for the node" in message for message in messages), messages
    assert events[-1]["ready"] and events[-1]["url"] == f"/user/{user}/"
    numbers = [event["progress"] for event in events]
    assert numbers == sorted(numbers)
    assert any("tiny on The engine with 2 cores" in event.get("html_message", "") for event in events)


@on_both
def test_the_waiting_page_tells_why_a_start_failed(hub: RealHub, rig: LocalRig, user: str) -> None:
    rig.hold()
    hub.begin(user, {"image": "crashing"})
    hub.reached("submitted", user)
    events = hub.progress(user)
    next(events)
    rig.release()
    last = list(events)[-1]
    assert last["failed"]
    assert "exit code 3" in last["message"] and "the flux capacitor is empty" in last["html_message"]
    # and who comes back later reads it, too
    assert "the flux capacitor is empty" in hub.browser(user).get(f"/hub/spawn-pending/{user}").text


@on_both
def test_who_leaves_the_waiting_page_leaves_nothing_behind(hub: RealHub, rig: LocalRig, user: str) -> None:
    rig.hold()
    hub.begin(user, {"image": "tiny"})
    hub.reached("submitted", user)
    for _ in range(3):
        next(hub.progress(user))  # and is closed
    rig.release()
    hub.ready(user)
    assert "Traceback" not in hub.new_log()


@on_both
def test_a_server_without_an_image_has_none_to_tell_of(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    assert hub.start_server(user, {"image": "tiny"}).status_code == 201
    answer = hub.api("GET", "/hepspawner/servers", token=hub.user_token(user))
    assert (answer.status_code, answer.json()) == (200, {"servers": []})
    page = person.get("/hub/home")
    assert page.status_code == 200 and "Stop My Server" in page.text
    assert hub.api("GET", "/hepspawner/servers", token="nonsense").status_code == 403


@on_both
def test_a_page_that_there_is_not_says_so(hub: RealHub, user: str) -> None:
    page = hub.browser(user).get("/hub/spawn-pending/nobody")
    assert page.status_code == 404 and "404" in page.text and "</html>" in page.text
