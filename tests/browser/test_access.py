"""Without a mouse, without scripts, on a phone, in the dark, and for those who have the page read out."""

from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.site import FARM, GPUS
from tests.browser.visit import Form, Visits, enter, server_url, sign_in, waiting_url
from tests.conformance.rig import LocalRig
from tests.realhub import RealHub

pytestmark = pytest.mark.needs("chromium", "hub6")


# --- the keyboard alone

FOCUS = """() => {
  const one = document.activeElement;
  const seen = [one, one.closest("li, .hep-own, .hep-backend")].filter(Boolean).map((part) => getComputedStyle(part));
  return {
    what: one.name === "image" || one.name === "backend" ? one.name + "=" + one.value : one.id || one.tagName,
    ours: one.closest("#hep") !== null,
    ring: seen.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1),
  };
}"""


def tab_to(page: Page, what: str, least: int = 0) -> list[str]:
    """Press Tab until something of the form has the focus; all that had it on the way, each of it visibly."""
    passed = []
    for _ in range(60):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus["ours"]:
            assert focus["ring"], f"nobody sees that {focus['what']} has the focus"
            passed.append(focus["what"])
        if focus["what"] == what:
            return passed
    raise AssertionError(f"Tab does not come to {what}, but to {passed}")


def test_tab_comes_to_everything_in_order(form: Form) -> None:
    form.backend(GPUS).check()
    form.gpu.click()
    form.page.locator("h1").click()  # the focus is nowhere
    form.page.evaluate("document.activeElement.blur()")
    assert tab_to(form.page, "hep-show") == [
        "hep-query",
        "SUMMARY",
        "image=ml-base",
        "SUMMARY",
        "hep-custom_image",
        "backend=gpus",
        "hep-gpu-on",
        "hep-gpu",
        "hep-gpus",
        "hep-cpus",
        "hep-memory",
        "hep-runtime",
        "hep-go",
        "hep-link",
        "hep-show",
    ]


def test_the_whole_way_by_keyboard(page: Page, hub: RealHub, owner: str) -> None:
    keyboard = page.keyboard
    page.goto(f"{hub.url}/hub/spawn")
    page.get_by_label("Username").focus()
    keyboard.type(owner)
    keyboard.press("Tab")
    keyboard.type("any")
    keyboard.press("Enter")
    form = Form(page, hub, owner)
    expect(form.start).to_be_visible()
    tab_to(page, "image=ml-base")
    keyboard.press("ArrowDown")
    expect(form.image("ML with PyTorch")).to_be_checked()
    keyboard.press("ArrowUp")
    expect(form.image("ATLAS ML base")).to_be_checked()
    tab_to(page, "backend=gpus")  # where the image with the need of a GPU led
    keyboard.press("ArrowUp")
    expect(form.backend(FARM)).to_be_checked()
    keyboard.press("ArrowDown")
    expect(form.backend(GPUS)).to_be_checked()
    tab_to(page, "hep-gpu-on")
    keyboard.press("Space")
    expect(form.gpu).to_be_checked()
    tab_to(page, "hep-gpu")
    keyboard.press("ArrowDown")
    expect(form.kind).to_have_value("t4")
    tab_to(page, "hep-cpus")
    keyboard.press("ArrowUp")
    expect(form.field("Cores")).to_have_value("3")
    tab_to(page, "hep-memory")
    keyboard.type("6G")  # Tab selected what was there
    tab_to(page, "hep-show")
    keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="The job")
    expect(dialog).to_contain_text("GPU: 1 x t4")
    keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Show the job")).to_be_focused()
    for _ in range(2):
        keyboard.press("Shift+Tab")
    expect(form.start).to_be_focused()
    keyboard.press("Enter")
    page.wait_for_url(server_url(hub, owner))
    options = hub.model(owner)["user_options"]
    assert (options["image"], options["gpu"], options["cpus"], options["memory"]) == ("ml-base", "t4", 3, "6G")


def test_enter_in_a_field_starts(form_of: Callable[[str], Form], owner: str) -> None:
    form = form_of(owner).open()
    form.field("Cores").fill("2")
    form.field("Cores").press("Enter")
    form.page.wait_for_url(server_url(form.hub, owner))
    assert form.hub.model(owner)["user_options"]["cpus"] == 2


# --- without scripts


@pytest.fixture
def plain(visits: Visits) -> Page:
    """A page that runs no script."""
    return visits.new(java_script_enabled=False)


def test_without_scripts_everything_works(plain: Page, hub: RealHub, owner: str, rig: LocalRig) -> None:
    plain.goto(f"{hub.url}/hub/spawn?opt-memory=3G")
    sign_in(plain, owner)
    form = Form(plain, hub, owner)
    expect(form.field("Memory")).to_have_value("3G")
    expect(form.gpu).to_be_hidden()  # the switch is the script's; the kind has a "none"
    form.pick("A slow one")
    form.backend(GPUS).check()
    form.kind.select_option("NVIDIA A100")
    form.count.fill("2")
    form.field("Cores").fill("99")
    form.start.click()
    # the error comes back
    expect(plain.get_by_role("alert")).to_contain_text("Nothing was started")
    expect(form.field("Cores")).to_have_value("99")
    expect(form.field("Cores")).to_have_attribute("aria-invalid", "true")
    expect(plain.locator("#hep-cpus-error")).to_have_text(f"'99' is not allowed on {GPUS}; allowed: 1 to 16")
    expect(form.image("A slow one")).to_be_checked()
    expect(form.backend(GPUS)).to_be_checked()
    expect(form.kind).to_have_value("a100")
    expect(form.count).to_have_value("2")
    expect(form.field("Memory")).to_have_value("3G")
    # and now it starts
    form.field("Cores").fill("4")
    rig.hold()
    form.start.click()
    plain.wait_for_url(waiting_url(hub, owner))
    expect(plain.locator("[aria-current=step]")).to_contain_text("Waiting for the node")
    rig.release()
    plain.wait_for_url(server_url(hub, owner))  # by itself
    options = hub.model(owner)["user_options"]
    assert (options["image"], options["gpu"], options["gpus"], options["cpus"]) == ("waiting", "a100", 2, 4)


def test_without_scripts_a_failure_is_told(plain: Page, hub: RealHub, owner: str) -> None:
    enter(plain, hub, owner)
    form = Form(plain, hub, owner).open()
    form.pick("A broken one")
    form.start.click()
    expect(plain.get_by_text("exit code 3").filter(visible=True).first).to_be_visible()
    form.open()
    expect(plain.get_by_role("alert")).to_contain_text("the flux capacitor is empty")
    expect(form.image("A broken one")).to_be_checked()


# --- a phone


def test_on_a_phone(visits: Visits, hub: RealHub, owner: str, rig: LocalRig) -> None:
    page = visits.new(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True, device_scale_factor=2)
    enter(page, hub, owner)
    form = Form(page, hub, owner).open()
    assert narrow(page)
    form.backend(GPUS).tap()
    form.gpu.tap()
    expect(form.count).to_be_visible()
    assert narrow(page)
    form.field("Cores").fill("100")
    form.start.tap()
    expect(page.get_by_role("alert")).to_be_visible()
    assert narrow(page)
    form.field("Cores").fill("10")
    form.cards.filter(has=form.image("A broken one")).tap()
    rig.hold()
    form.start.tap()
    page.wait_for_url(waiting_url(hub, owner))
    assert narrow(page)
    rig.release()
    expect(page.get_by_role("alert").filter(visible=True).first).to_contain_text("exit code 3")
    assert narrow(page)
    page.get_by_role("link", name="Change something and try again").tap()
    expect(page.get_by_role("alert")).to_contain_text("exit code 3")
    assert narrow(page)
    form.cards.filter(has=form.image("ROOT")).tap()
    form.start.tap()
    page.wait_for_url(server_url(hub, owner))


def narrow(page: Page) -> bool:
    """Nothing has to be scrolled to the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth && innerWidth === 390"))


# --- axe


def violations(page: Page) -> list[str]:
    """What axe finds that is serious or critical. JupyterHub's own progress bar has no name: it is left out."""
    found = Axe().run(page, context={"exclude": [["#progress-bar"]]}).response["violations"]
    return [
        f"{one['id']}: {node['target']} {node['any'][0]['message'] if node['any'] else ''}"
        for one in found
        for node in one["nodes"]
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(visits: Visits, hub: RealHub, owner: str, rig: LocalRig, scheme: Any) -> None:
    page = visits.new(color_scheme=scheme, reduced_motion="reduce")
    enter(page, hub, owner)
    form = Form(page, hub, owner).open()
    assert page.evaluate("document.documentElement.dataset.bsTheme") == scheme
    assert violations(page) == []
    form.backend(GPUS).check()
    form.gpu.click()
    form.pick("ML with PyTorch")
    form.field("Memory").fill("9999G")
    form.field("Memory").blur()
    assert violations(page) == []
    form.start.click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert violations(page) == []
    form.search.fill("nothing at all")
    expect(page.get_by_text("No image matches.")).to_be_visible()
    assert violations(page) == []
    form.search.fill("")
    page.get_by_role("button", name="Show the job").click()
    expect(page.get_by_role("dialog", name="The job")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    form.field("Memory").fill("9G")
    form.pick("A broken one")
    rig.hold()
    form.start.click()
    page.wait_for_url(waiting_url(hub, owner))
    assert violations(page) == []
    rig.release()
    expect(page.get_by_role("alert").filter(visible=True).first).to_be_visible()
    assert violations(page) == []
    page.goto(page.url)  # JupyterHub's page of a start that failed
    expect(page.get_by_role("heading", name="Spawn failed")).to_be_visible()
    assert violations(page) == []
    form.open()
    expect(page.get_by_role("alert")).to_be_visible()
    expect(form.again).to_be_visible()
    assert violations(page) == []
