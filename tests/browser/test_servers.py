"""The waiting page, named servers, and what comes after the first time."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import FARM, GPUS, make_site
from tests.browser.visit import Form, Visits, enter, server_url, sign_in, waiting_url
from tests.conformance.rig import LocalRig
from tests.realhub import RealHub

pytestmark = pytest.mark.needs("chromium", "hub6")


# --- the waiting page


def step(page: Page) -> Any:
    """What happens now, as the waiting page shows it."""
    return page.locator("#progress-message [aria-current=step]")


def wait_for(form: Form, rig: LocalRig, server: str = "") -> None:
    """Start a server that stays on its way until `rig.release()` and then `rig.open_gate()`."""
    form.open(server)
    form.pick("A slow one")
    rig.hold()
    rig.close_gate()
    form.start.click()
    form.page.wait_for_url(waiting_url(form.hub, form.user, server))


def test_the_waiting_page_follows_the_start(form_of: Callable[[str], Form], owner: str, rig: LocalRig) -> None:
    """Through the proxy of PyPI, which keeps the stream of events back."""
    form = form_of(owner)
    wait_for(form, rig)
    page = form.page
    expect(page.get_by_text(f"A slow one on {FARM} with 1 core, 2G, 1h").first).to_be_visible()
    expect(step(page)).to_contain_text("Waiting for the node")
    expect(page.locator("#progress-message .done")).to_contain_text("Checked and submitted")
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuenow", "30")
    assert bar.evaluate("bar => bar.style.width") == "30%"
    rig.release()
    expect(step(page)).to_contain_text("JupyterLab starts")
    expect(bar).to_have_attribute("aria-valuenow", "70")
    rig.open_gate()
    page.wait_for_url(server_url(form.hub, owner))


def test_the_waiting_page_follows_the_stream(page: Page, hub: RealHub, owner: str, rig: LocalRig) -> None:
    """Without a proxy in between, as through one that lets the stream pass: nothing is asked twice."""
    form = Form(page, hub, owner)
    enter(page, hub, owner)
    wait_for(form, rig)
    page.goto(page.url.replace(str(hub.port), str(hub.hub_port)))
    page.get_by_text("Event log").click()
    events = page.locator("#progress-log .progress-log-event")
    expect(events.last).to_contain_text("Waiting for the node", use_inner_text=True)
    rig.release()
    expect(step(page)).to_contain_text("JupyterLab starts")
    expect(events.last).to_contain_text("JupyterLab starts", use_inner_text=True)
    assert events.last.inner_text().count("\n") == 0  # a line
    assert hub.new_log().count(f"200 GET /hub/spawn-pending/{owner}") == 2  # once through the proxy, once here


def test_the_waiting_page_outlives_a_restart_of_the_hub(page: Page, hub: RealHub, owner: str, rig: LocalRig) -> None:
    form = Form(page, hub, owner)
    enter(page, hub, owner)
    wait_for(form, rig)
    page.wait_for_function("window._jupyterhub_page_loaded")
    hub.restart()
    rig.release()
    rig.open_gate()
    page.wait_for_url(server_url(hub, owner))


# --- named servers


def test_a_named_server_has_its_own_form_failure_and_preset(
    form_of: Callable[[str], Form], owner: str, rig: LocalRig
) -> None:
    form = form_of(owner).open("analysis")
    form.pick("A broken one")
    form.field("Cores").fill("9")
    form.start.click()
    expect(form.field("Cores")).to_have_attribute("aria-invalid", "true")
    assert form.page.url.startswith(form.url("analysis"))
    form.field("Cores").fill("3")
    form.page.get_by_role("button", name="Show the job").click()  # of that server, also after an error
    dialog = form.page.get_by_role("dialog", name="The job")
    expect(dialog).to_contain_text(f"@PORT@/user/{owner}/analysis/")
    dialog.get_by_role("button", name="Close").click()
    rig.hold()
    form.start.click()
    form.page.wait_for_url(waiting_url(form.hub, owner, "analysis"))
    rig.release()
    form.page.get_by_role("link", name="Change something and try again").click()
    form.page.wait_for_url(form.url("analysis"))
    expect(form.page.get_by_role("alert")).to_contain_text("exit code 3")
    expect(form.image("A broken one")).to_be_checked()
    expect(form.field("Cores")).to_have_value("3")
    # nothing of it at the default server, nor at another one
    for other in ("", "other"):
        form.open(other)
        expect(form.page.get_by_role("alert")).to_have_count(0)
        expect(form.image("ATLAS ML base")).to_be_checked()
        expect(form.page.get_by_text("As last time")).to_have_count(0)
    form.open("analysis")
    form.pick("ROOT")
    form.start.click()
    form.page.wait_for_url(server_url(form.hub, owner, "analysis"))


def test_a_named_server_is_made_on_the_hubs_home(form_of: Callable[[str], Form], owner: str) -> None:
    form = form_of(owner)
    form.page.goto(f"{form.hub.url}/hub/home")
    form.page.wait_for_function("window._jupyterhub_page_loaded")
    form.page.get_by_role("textbox", name="server name").fill("fits")
    form.page.get_by_role("button", name="Add New Server").click()
    form.page.locator("a[href*='/spawn/'][href$='/fits']:visible").click()
    form.page.wait_for_url(f"{form.url('fits')}**")
    form.pick("ROOT")
    form.start.click()
    form.page.wait_for_url(server_url(form.hub, owner, "fits"))
    assert form.hub.model(owner, "fits")["user_options"]["image"] == "root"


# --- the next time


def test_the_next_time_the_form_is_as_it_was_left(form_of: Callable[[str], Form], owner: str) -> None:
    form = form_of(owner).open()
    expect(form.again).to_have_count(0)
    form.pick("ML with PyTorch")
    form.kind.select_option("NVIDIA A100")
    form.count.fill("3")
    form.field("Memory").fill("12G")
    form.start.click()
    form.page.wait_for_url(server_url(form.hub, owner))
    form.page.goto(f"{form.hub.url}/hub/home")
    form.page.get_by_role("button", name="Stop My Server").click()
    form.page.get_by_role("button", name="Start My Server").click()
    form.page.wait_for_url(f"{form.url()}**")
    last = form.page.locator(".hep-last")
    expect(last).to_contain_text(f"ML with PyTorch on {GPUS} with 3 × NVIDIA A100, 2 cores, 12G, 2h")
    expect(form.image("ML with PyTorch")).to_be_checked()
    expect(form.count).to_have_value("3")
    expect(form.field("Memory")).to_have_value("12G")
    form.pick("ROOT")  # what is changed in the form does not matter to it
    form.again.click()
    form.page.wait_for_url(server_url(form.hub, owner))
    options = form.hub.model(owner)["user_options"]
    assert (options["image"], options["gpu"], options["gpus"], options["memory"]) == ("ml-torch", "a100", 3, "12G")


def test_a_second_click_starts_nothing_twice(form_of: Callable[[str], Form], owner: str) -> None:
    form = form_of(owner).open()
    form.pick("ROOT")
    form.start.dblclick()
    form.page.wait_for_url(server_url(form.hub, owner))
    assert form.hub.new_log().count(f" POST /hub/spawn/{owner}") == 1


def test_coming_back_by_the_browsers_button_finds_a_form_that_works(form_of: Callable[[str], Form], owner: str) -> None:
    form = form_of(owner).open()
    form.pick("ROOT")
    form.start.click()
    form.page.wait_for_url(server_url(form.hub, owner))
    form.hub.stop_servers()
    form.page.go_back()
    expect(form.image("ROOT")).to_be_checked()
    form.start.click()
    form.page.wait_for_url(server_url(form.hub, owner))


# --- JupyterHub 5


@pytest.fixture
def old_hub(rig: LocalRig, engines: dict[str, Any]) -> Iterator[RealHub]:
    """A hub of JupyterHub 5."""
    one = RealHub(engines["hub5"], make_site(rig), version="hub5").start()
    yield one
    one.stop()


@pytest.mark.needs("hub5")
def test_jupyterhub_5(visits: Visits, old_hub: RealHub, owner: str, rig: LocalRig) -> None:
    page = visits.new()
    page.goto(f"{old_hub.url}/hub/spawn?opt-image=waiting&opt-cpus=3")
    sign_in(page, owner)
    form = Form(page, old_hub, owner)
    expect(form.image("A slow one")).to_be_checked()
    expect(form.field("Cores")).to_have_value("3")
    form.backend(GPUS).check()
    form.gpu.click()
    rig.hold()
    form.start.click()
    page.wait_for_url(waiting_url(old_hub, owner))
    expect(step(page)).to_contain_text("Waiting for the node")
    rig.release()
    page.wait_for_url(server_url(old_hub, owner))
    options = old_hub.model(owner)["user_options"]
    assert (options["image"], options["cpus"], options["gpus"]) == ("waiting", 3, 1)
