"""The spawn form, as a browser sends and gets it."""

from typing import Any

import pytest

from tests.conformance.rig import LocalRig
from tests.hubs import on_both
from tests.pages import Page
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")


def told_of_a_mistake_only(hub: RealHub) -> None:
    """A user's mistake is not the hub's: no traceback in its log."""
    assert "Traceback" not in hub.new_log()
    assert hub.active() == []


@on_both
def test_the_form_offers_what_there_is_and_starts_nothing(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    # the first look at the images may take longer than a hub needs for its first form
    answer = eventually(
        lambda: "does not exist" in (form := person.form()).text and form, "the form tells what is gone"
    )
    page = Page(answer.text)
    assert answer.status_code == 200
    assert page.offered["image"] == ["tiny", "waiting", "crashing", "bare", "second", "needs-gpu"]
    assert page.fields["image"] == "tiny"
    assert page.offered["backend"] == ["engine", "gpu-engine"]
    assert (page.fields["cpus"], page.fields["memory"], page.fields["runtime"]) == ("1", "512M", "1h")
    assert "<b>markup</b>" not in answer.text and "With <b>markup</b>" in page.text
    assert "does not exist" in page.text  # the image that is gone is told as such, and cannot be chosen
    assert hub.active() == []


@on_both
def test_a_form_starts_what_it_says(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    fields = {**Page(person.form().text).fields, "image": "second", "cpus": "3", "memory": "1G"}
    answer = person.spawn(fields)
    assert answer.status_code == 200, answer.text
    hub.ready(user)
    options = hub.state(user)["options"]
    assert (options["image"], options["cpus"], options["memory"], options["runtime"]) == ("second", 3, "1G", "1h")
    assert hub.server_get(user, "facts").json()["environment"]["CPU_LIMIT"] == "3"


@on_both
def test_a_form_for_a_named_server(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    fields = {**Page(person.form("second").text).fields, "image": "second"}
    assert person.spawn(fields, "second").status_code == 200
    hub.ready(user, "second")
    assert hub.active() == [f"{user}/second"]


@on_both
def test_a_wrong_field_is_marked_and_nothing_typed_is_lost(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    fields = {**Page(person.form().text).fields, "image": "second", "cpus": "99", "memory": "lots", "runtime": "2h"}
    answer = person.spawn(fields)
    page = Page(answer.text)
    assert answer.status_code == 400
    assert page.marked == {"cpus", "memory"}
    assert {name: page.fields[name] for name in ("image", "cpus", "memory", "runtime")} == {
        "image": "second",
        "cpus": "99",
        "memory": "lots",
        "runtime": "2h",
    }
    assert "'99' is not allowed" in page.text and "1 to 4" in page.text
    assert "Nothing was started" in page.text
    told_of_a_mistake_only(hub)
    # mended, it starts
    assert person.spawn({**fields, "cpus": "2", "memory": "1G"}).status_code == 200
    hub.ready(user)


@pytest.mark.parametrize(
    "wrong, marked, said",
    [
        ({"image": "no-such-image"}, "image", "is not available to you"),
        ({"image": "insiders-only"}, "image", "is not available to you"),
        ({"backend": "nowhere"}, "backend", "is not available"),
        ({"image": "needs-gpu", "backend": "engine"}, "backend", "is not available"),
        ({"gpu": "h100", "backend": "gpu-engine", "cpus": "", "memory": "", "runtime": ""}, "gpu", "allowed: a100"),
        (
            {"gpu": "a100", "gpus": "5", "backend": "gpu-engine", "cpus": "", "memory": "", "runtime": ""},
            "gpus",
            "1 to 2",
        ),
        ({"runtime": "9h"}, "runtime", "1m to 8h"),
        ({"memory": "5"}, "memory", "unit"),
        ({"cpus": "<script>alert(1)</script>"}, "cpus", "is not allowed"),
        ({"cpus": "1" * 5000}, "cpus", "longer than"),
    ],
    ids=str,
)
def test_each_mistake_is_told_at_its_field(hub: RealHub, user: str, wrong: Any, marked: str, said: str) -> None:
    person = hub.browser(user)
    answer = person.spawn({**Page(person.form().text).fields, **wrong})
    page = Page(answer.text)
    assert answer.status_code == 400
    assert marked in page.marked
    assert said in page.text
    assert "<script>alert(1)" not in answer.text
    told_of_a_mistake_only(hub)


@pytest.mark.parametrize(
    "fields",
    [{"frobnicate": "1"}, {"a\x00b": "1"}, {"x" * 1000: "1"}, {f"f{i}": "1" for i in range(200)}, {"partition": "gpu"}],
    ids=lambda fields: next(iter(fields))[:20],
)
def test_fields_that_do_not_exist_are_refused(hub: RealHub, user: str, fields: Any) -> None:
    answer = hub.browser(user).spawn({"image": "tiny", **fields})
    assert answer.status_code == 400
    assert "Nothing was started" in answer.text
    told_of_a_mistake_only(hub)


@on_both
def test_an_image_that_vanished_is_told_at_the_image(hub: RealHub, user: str) -> None:
    answer = hub.browser(user).spawn({"image": "gone", "cpus": "3"})
    page = Page(answer.text)
    assert answer.status_code == 400
    assert "gone: " in page.text and "does not exist" in page.text
    assert page.fields["cpus"] == "3"
    told_of_a_mistake_only(hub)


@on_both
def test_a_start_that_fails_tells_why_on_the_form(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    answer = person.spawn({"image": "crashing", "cpus": "3"})
    text, slow = answer.text, "spawn-pending" in answer.url
    if slow:  # it took longer than a second: the page of a start tells when it failed
        shown = lambda: (again := person.get(f"/hub/spawn-pending/{user}").text) and "exit code 3" in again and again  # noqa: E731
        text = eventually(shown, "the start failed")
    page = Page(text)
    assert "exit code 3" in page.text
    assert "the flux capacitor is empty" in page.text
    page = Page(person.form().text)
    assert "exit code 3" in page.text and "the flux capacitor is empty" in page.text
    if not slow:  # JupyterHub 5 itself logs a traceback of a start that fails after that second
        told_of_a_mistake_only(hub)
    assert hub.active() == []


# --- links


@on_both
@pytest.mark.parametrize("prefix", ["opt-", ""])
def test_a_link_fills_the_form_in_and_starts_nothing(hub: RealHub, user: str, prefix: str) -> None:
    query = f"?{prefix}image=second&{prefix}cpus=3&{prefix}memory=1G&{prefix}backend=engine"
    answer = hub.browser(user).form(query=query)
    page = Page(answer.text)
    assert answer.status_code == 200
    assert {name: page.fields[name] for name in ("image", "cpus", "memory")} == {
        "image": "second",
        "cpus": "3",
        "memory": "1G",
    }
    assert page.marked == set()
    assert hub.active() == []
    log = hub.new_log()
    assert "Traceback" not in log
    assert "[E " not in log


@on_both
def test_of_a_link_what_is_not_possible_is_told_and_left_out(hub: RealHub, user: str) -> None:
    answer = hub.browser(user).form(query="?opt-image=second&opt-cpus=99&opt-frob=1&opt-runtime=2h")
    page = Page(answer.text)
    assert answer.status_code == 200
    assert {name: page.fields[name] for name in ("image", "cpus", "runtime")} == {
        "image": "second",
        "cpus": "1",
        "runtime": "2h",
    }
    assert "'99' is not allowed" in page.text and "frob" in page.text
    assert "[E " not in hub.new_log()


def test_a_link_to_an_image_that_is_not_there_shows_the_form(hub: RealHub, user: str) -> None:
    for name in ("nonsense", "insiders-only", "gone", "%00", "<script>"):
        answer = hub.browser(user).form(query=f"?opt-image={name}")
        assert answer.status_code == 200
        assert Page(answer.text).fields["image"] == "tiny"
        assert "Not everything could be filled in" in answer.text
        assert '<script>"' not in answer.text
    assert "[E " not in hub.new_log()


def test_the_page_that_a_link_leads_to_sends_to_a_plain_address(hub: RealHub, user: str) -> None:
    """Else JupyterHub carries the options on to the server's own address."""
    answer = hub.browser(user).form(query="?opt-image=second&next=%2Fhub%2Fhome")
    assert f'action="/hub/spawn/{user}?next=' in answer.text
    assert "opt-image=second" not in answer.text.split("<form")[1].split(">")[0]


# --- the last choice


@on_both
def test_the_form_remembers_the_last_choice(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    person.spawn({"image": "second", "backend": "engine", "cpus": "3", "memory": "1G", "runtime": "30m"})
    hub.ready(user)
    hub.stop_server(user)
    hub.gone(user)
    page = Page(person.form().text)
    assert {name: page.fields[name] for name in ("image", "cpus", "memory", "runtime")} == {
        "image": "second",
        "cpus": "3",
        "memory": "1G",
        "runtime": "30m",
    }
    assert "As last time" in page.text and "A second image" in page.text


@on_both
def test_a_choice_that_failed_is_not_the_next_preset(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    good = {"image": "second", "backend": "engine", "cpus": "2", "memory": "1G", "runtime": "1h"}
    person.spawn(good)
    hub.ready(user)
    hub.stop_server(user)
    hub.gone(user)
    assert person.spawn({**good, "cpus": "99"}).status_code == 400
    assert hub.start_server(user, {"image": "nonsense"}).status_code == 400
    assert hub.start_server(user, {"image": "tiny", "cpus": {"a": 1}}).status_code == 400
    page = Page(person.form().text)
    assert (page.fields["image"], page.fields["cpus"]) == ("second", "2")
    # and neither is it what a start without options takes
    assert hub.start_server(user).status_code == 201
    assert hub.state(user)["options"]["image"] == "second"


def test_of_the_last_choice_what_the_site_dropped_is_left_out(
    hub: RealHub, rig: LocalRig, user: str, site: Any
) -> None:
    person = hub.browser(user)
    person.spawn({"image": "second", "backend": "engine", "cpus": "4", "memory": "1G", "runtime": "30m"})
    hub.ready(user)
    hub.stop_server(user)
    hub.gone(user)
    engine = {**site["backends"]["engine"], "cpus": {"default": 1, "max": 2}}
    hub.change_site({**site, "backends": {**site["backends"], "engine": engine}})
    page = Page(person.form().text)
    assert {name: page.fields[name] for name in ("image", "cpus", "memory", "runtime")} == {
        "image": "second",
        "cpus": "1",
        "memory": "1G",
        "runtime": "30m",
    }
    hub.change_site({**site, "images": [image for image in site["images"] if image["name"] != "second"]})
    page = Page(person.form().text)
    assert (page.fields["image"], page.fields["memory"]) == ("tiny", "1G")


# --- who is who


def test_without_signing_in_there_is_no_form(hub: RealHub, user: str) -> None:
    answer = hub.get(f"/hub/spawn/{user}?opt-image=tiny", allow_redirects=False)
    assert answer.status_code == 302 and "/hub/login" in answer.headers["Location"]


def test_nobody_sees_or_sends_the_form_of_somebody_else(hub: RealHub, user: str, other: str) -> None:
    hub.add_user(user)
    person = hub.browser(other)
    assert person.get(f"/hub/spawn/{user}").status_code in (403, 404)
    assert person.post(f"/hub/spawn/{user}", {"image": "tiny"}).status_code in (403, 404)
    assert hub.active() == []


def test_a_form_without_the_token_against_forgery_is_refused(hub: RealHub, user: str) -> None:
    person = hub.browser(user)
    answer = person.http.post(f"{hub.url}/hub/spawn/{user}", data={"image": "tiny"}, timeout=30)
    assert answer.status_code == 403
    assert hub.active() == []


def test_the_static_files_are_served(hub: RealHub) -> None:
    for name, kind in (("form.css", "text/css"), ("form.js", "javascript")):
        answer = hub.get(f"/hub/hepspawner/static/{name}")
        assert answer.status_code == 200 and kind in answer.headers["Content-Type"]
    for name in ("../form.py", "%2e%2e/form.py", "..%2fform.py", "nonsense"):
        assert hub.get(f"/hub/hepspawner/static/{name}").status_code in (403, 404)
