"""What people see of a choice that is refused, and of a start that fails."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import FARM, GPUS, HOSTILE
from tests.browser.visit import Form, waiting_url
from tests.conformance.rig import LocalRig
from tests.realhub import eventually

pytestmark = pytest.mark.needs("chromium", "hub6")


def test_a_refused_choice_comes_back_as_it_was(form: Form, rig: LocalRig) -> None:
    form.backend(GPUS).check()
    form.pick("ATLAS ML base")
    form.gpu.click()
    form.kind.select_option("NVIDIA T4")
    form.field("Cores").fill("5")
    form.field("Memory").fill("3 bananas")
    form.field("Time").fill("5h")
    form.start.click()
    alert = form.page.get_by_role("alert")
    expect(alert).to_contain_text("Nothing was started. Please look at the marked field.")
    memory = form.field("Memory")
    expect(memory).to_have_value("3 bananas")
    expect(memory).to_have_attribute("aria-invalid", "true")
    expect(memory).to_be_focused()
    message = form.page.locator("#" + (memory.get_attribute("aria-describedby") or "").split()[-1])
    expect(message).to_contain_text("'3 bananas' cannot be read")
    expect(form.backend(GPUS)).to_be_checked()
    expect(form.image("ATLAS ML base")).to_be_checked()
    expect(form.kind).to_have_value("t4")
    expect(form.field("Cores")).to_have_value("5")
    expect(form.field("Time")).to_have_value("5h")
    for fine in ("Cores", "Time"):
        assert form.field(fine).get_attribute("aria-invalid") is None
    assert not form.hub.active()
    memory.fill("3G")
    expect(message).to_have_count(0)
    assert memory.get_attribute("aria-invalid") is None


def test_an_image_of_ones_own_that_is_not_allowed_comes_back(form: Form) -> None:
    path = form.page.get_by_role("textbox", name="Path of my image")
    given = "/etc/" + HOSTILE.replace("/", "")
    path.fill(given)
    form.start.click()
    expect(path).to_have_value(given)
    expect(path).to_be_focused()
    expect(path).to_have_attribute("aria-invalid", "true")
    expect(form.image("An image of my own")).to_be_checked()
    expect(form.page.locator("#hep-custom_image-error")).to_contain_text("is not allowed; allowed:")
    form.page.get_by_role("button", name="Show the job").click()
    expect(form.page.get_by_role("dialog", name="The job")).to_contain_text("custom_image:")
    assert form.page.evaluate("window.hacked") is None


def told(page: Page, reason: str, lines: str) -> None:
    """The page says why a start failed, and shows the end of the log."""
    alert = page.get_by_role("alert").filter(visible=True).first
    expect(alert).to_contain_text(reason)
    if lines:
        expect(alert.get_by_role("region", name="Last lines of the log")).to_contain_text(lines)


@pytest.mark.parametrize(
    "image, reason, lines",
    [
        ("A broken one", "exit code 3", "RuntimeError: the flux capacitor is empty"),
        ("One without Jupyter", "The image has no jupyterhub-singleuser: choose another", ""),
    ],
)
def test_a_start_that_fails_tells_why_and_keeps_the_choice(
    form_of: Callable[[str], Form], owner: str, rig: LocalRig, image: str, reason: str, lines: str
) -> None:
    form = form_of(owner).open()
    form.pick(image)
    form.field("Cores").fill("3")
    rig.hold()
    form.start.click()
    form.page.wait_for_url(waiting_url(form.hub, owner))
    expect(form.page.get_by_text(f"{image} on {FARM} with 3 cores, 2G, 1h").first).to_be_visible()
    rig.release()
    told(form.page, reason, lines)
    form.page.get_by_role("link", name="Change something and try again").click()
    told(form.page, reason, lines)
    expect(form.image(image)).to_be_checked()
    expect(form.field("Cores")).to_have_value("3")
    form.pick("ROOT")
    form.start.click()
    form.page.wait_for_url(f"**/user/{owner}/**")
    form.hub.stop_servers()
    form.open()
    expect(form.page.get_by_role("alert")).to_have_count(0)  # it is over


def test_a_start_that_fails_at_once_tells_so_on_the_form(form_of: Callable[[str], Form], owner: str) -> None:
    form = form_of(owner).open()
    form.pick("A broken one")
    form.field("Time").fill("3h")
    form.start.click()
    told(form.page, "exit code 3", "RuntimeError: the flux capacitor is empty")
    # on a slow machine it is the waiting page that tells
    change = form.page.get_by_role("link", name="Change something and try again")
    if change.is_visible():
        change.click()
    expect(form.image("A broken one")).to_be_checked()
    expect(form.field("Time")).to_have_value("3h")
    expect(form.page.get_by_role("alert").filter(visible=True)).to_have_count(1)


def test_a_start_that_is_stopped_while_it_waits(form_of: Callable[[str], Form], owner: str, rig: LocalRig) -> None:
    form = form_of(owner).open()
    rig.hold()
    form.start.click()
    form.page.wait_for_url(waiting_url(form.hub, owner))
    form.page.get_by_role("button", name="Stop Server").click()
    eventually(lambda: not form.hub.active(), "the server is stopped")
    eventually(lambda: not form.hub.leftovers(), "no process is left")
    form.open()
    expect(form.image("ATLAS ML base")).to_be_checked()


def test_hostile_texts_stay_texts(form_of: Callable[[str], Form], owner: str, rig: LocalRig) -> None:
    form = form_of(owner).open()
    title = f"Hostile {HOSTILE}"
    expect(form.cards.filter(has_text=f"about {HOSTILE}")).to_contain_text(title)
    form.search.fill("<script>")
    expect(form.page.get_by_text("1 of 9 images match")).to_be_visible()
    form.pick(title)
    expect(form.summary).to_contain_text(title)
    form.page.get_by_role("button", name="Show the job").click()
    form.page.get_by_role("dialog").get_by_role("button", name="Close").click()
    rig.hold()
    form.start.click()
    form.page.wait_for_url(waiting_url(form.hub, owner))
    expect(form.page.get_by_text(f"{title} on {FARM}").first).to_be_visible()
    rig.release()
    form.page.wait_for_url(f"**/user/{owner}/**")
    form.hub.stop_servers()
    form.open()
    expect(form.page.locator(".hep-last")).to_contain_text(title)
    assert form.page.evaluate("window.hacked") is None


def test_hostile_links_stay_texts(form: Form, visits: Any) -> None:
    form.open(image=HOSTILE, cpus=HOSTILE, custom_image=HOSTILE, **{"a<script>window.hacked=3</script>": "x"})
    expect(form.page.get_by_role("status").filter(has_text="Not everything")).to_contain_text("<script>")
    assert form.page.evaluate("window.hacked") is None
    assert not re.search(r"<script>window\.hacked", form.page.content().replace("&lt;", "<!>"))
