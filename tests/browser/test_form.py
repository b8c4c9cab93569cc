"""The form as people use it who start nothing yet."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.site import FARM, GPUS, make_site
from tests.browser.visit import Form, Visits, enter, sign_in
from tests.conformance.rig import LocalRig
from tests.realhub import RealHub

pytestmark = pytest.mark.needs("chromium", "hub6")


# --- search


@pytest.mark.parametrize(
    "words, found",
    [
        ("ml-tor", ["ML with PyTorch"]),  # its name
        ("pytorch", ["ML with PyTorch"]),  # its title
        ("ALMA9", ["ATLAS ML base"]),  # a tag
        ("histograms", ["ROOT"]),  # its description
        ("atlas learn", ["ATLAS ML base", "ML with PyTorch"]),  # its group, and a description
        ("panda farm", ["Grid tools"]),  # where it runs
    ],
)
def test_the_search_finds(form: Form, words: str, found: list[str]) -> None:
    form.search.press_sequentially(words)
    expect(form.cards.get_by_role("radio")).to_have_count(len(found))
    for title in found:
        expect(form.image(title)).to_be_visible()
    told = form.page.get_by_text(f"{len(found)} of 9 images match")
    expect(told).to_be_visible()
    assert told.get_attribute("role") == "status"  # it is read out


def test_a_search_that_finds_nothing_says_so_and_can_be_taken_back(form: Form) -> None:
    form.search.fill("no such thing")
    expect(form.page.get_by_text("No image matches.")).to_be_visible()
    expect(form.page.get_by_text("0 of 9 images match")).to_be_visible()
    expect(form.cards).to_have_count(0)
    form.page.get_by_role("button", name="Clear the search").click()
    expect(form.cards).to_have_count(9)
    expect(form.search).to_be_focused()
    form.search.fill("root")
    expect(form.cards).to_have_count(1)
    form.search.press("Escape")
    expect(form.cards).to_have_count(9)
    expect(form.search).to_have_value("")


def test_enter_in_the_search_takes_the_first_match_and_starts_nothing(form: Form) -> None:
    form.search.fill("histograms")
    form.search.press("Enter")
    expect(form.image("ROOT")).to_be_checked()
    expect(form.image("ROOT")).to_be_focused()
    assert not form.hub.model(form.user)


def test_what_was_chosen_stays_chosen_while_one_searches(form: Form) -> None:
    form.pick("ROOT")
    form.search.fill("pytorch")
    expect(form.image("ROOT")).to_be_hidden()
    expect(form.summary).to_contain_text("ROOT")
    form.search.press("Escape")
    expect(form.image("ROOT")).to_be_checked()


def test_groups_open_and_close(form: Form) -> None:
    group = form.page.locator("summary", has_text="ATLAS")
    expect(group).to_contain_text("4")
    group.click()
    expect(form.image("ROOT")).to_be_hidden()
    expect(form.image("A slow one")).to_be_visible()
    group.click()
    expect(form.image("ROOT")).to_be_visible()


def test_an_image_that_is_not_there_says_so(form: Form) -> None:
    expect(form.image("One that is gone")).to_be_disabled()
    expect(form.cards.filter(has=form.image("One that is gone"))).to_contain_text("does not exist")


# --- GPUs and backends


def test_the_switch_brings_the_gpus(form: Form) -> None:
    form.backend(GPUS).check()
    expect(form.gpu).not_to_be_checked()
    expect(form.kind).to_be_hidden()
    form.gpu.click()
    expect(form.kind).to_have_value("a100")
    expect(form.count).to_have_value("1")
    form.count.fill("2")
    expect(form.summary).to_contain_text("2 × NVIDIA A100")
    form.kind.select_option("NVIDIA T4")
    expect(form.notes).to_contain_text("1 GPU instead of 2")
    expect(form.count).to_have_value("1")
    expect(form.count).to_be_hidden()  # nothing to choose
    form.gpu.click()
    expect(form.kind).to_be_hidden()
    expect(form.summary).not_to_contain_text("NVIDIA")


def test_a_backend_without_gpus_has_no_switch(form: Form) -> None:
    expect(form.backend(FARM)).to_be_checked()
    expect(form.gpu).to_be_hidden()
    form.backend(GPUS).check()
    form.gpu.click()
    form.backend(FARM).check()
    expect(form.gpu).to_be_hidden()
    expect(form.notes).to_contain_text(f"There is no GPU on {FARM}")
    form.backend(GPUS).check()
    expect(form.gpu).to_be_checked()  # as it was


def test_an_image_that_needs_a_gpu_takes_one_where_there_is_one(form: Form) -> None:
    form.pick("ML with PyTorch")
    expect(form.backend(GPUS)).to_be_checked()
    expect(form.backend(FARM)).to_be_disabled()
    expect(form.page.get_by_text("no GPU, and this image needs one")).to_be_visible()
    expect(form.notes).to_contain_text(f"{FARM} cannot run this image: now on {GPUS}")
    expect(form.gpu).to_be_checked()
    expect(form.gpu).to_be_disabled()
    expect(form.page.get_by_text("This image needs a GPU.")).to_be_visible()
    form.pick("ATLAS ML base")
    expect(form.backend(FARM)).to_be_enabled()
    expect(form.gpu).not_to_be_checked()  # nobody asked for it
    expect(form.gpu).to_be_enabled()


def test_an_image_without_gpu_software_gets_none(form: Form) -> None:
    form.backend(GPUS).check()
    form.gpu.click()
    form.pick("ROOT")
    expect(form.gpu).not_to_be_checked()
    expect(form.gpu).to_be_disabled()
    expect(form.page.get_by_text("This image has no GPU software.")).to_be_visible()
    form.pick("ATLAS ML base")
    expect(form.gpu).to_be_checked()  # as it was asked for


def test_an_image_of_one_backend_leaves_no_other(form: Form) -> None:
    form.backend(GPUS).check()
    form.pick("Grid tools")
    expect(form.backend(FARM)).to_be_checked()
    expect(form.backend(GPUS)).to_be_disabled()
    expect(form.page.get_by_text("cannot run this image", exact=True)).to_be_visible()


def test_each_backend_has_its_ranges(form: Form) -> None:
    cores, memory = form.field("Cores"), form.field("Memory")
    expect(cores).to_have_value("1")
    expect(form.page.get_by_text("1 to 4", exact=True)).to_be_visible()
    form.backend(GPUS).check()
    expect(cores).to_have_value("2")  # its default: nobody asked for another
    expect(form.page.get_by_text("1 to 16", exact=True)).to_be_visible()
    cores.fill("12")
    memory.fill("6G")
    form.backend(FARM).check()
    expect(cores).to_have_value("4")
    expect(memory).to_have_value("6G")  # both allow it
    expect(form.notes).to_contain_text(f"Cores: 4 instead of 12, the most on {FARM}")


def test_sliders_and_arrows_set_the_values(form: Form) -> None:
    cores, slider = form.field("Cores"), form.slider("cpus")
    box = slider.bounding_box()
    assert box
    form.page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    form.page.mouse.down()
    form.page.mouse.move(box["x"] + box["width"], box["y"] + box["height"] / 2)
    form.page.mouse.up()
    expect(cores).to_have_value("4")
    cores.press("ArrowDown")
    expect(cores).to_have_value("3")
    expect(slider).to_have_value("2")  # the third of its stops
    form.field("Time").press("ArrowUp")
    expect(form.field("Time")).to_have_value("2h")
    expect(form.summary).to_have_text(f"ATLAS ML base on {FARM} with 3 cores, 2G, for 2h.")


@pytest.mark.parametrize("text, fine", [("9", False), ("x", False), ("3", True)])
def test_a_value_that_is_not_allowed_is_told_at_once(form: Form, text: str, fine: bool) -> None:
    cores = form.field("Cores")
    cores.fill(text)
    cores.blur()
    assert cores.get_attribute("aria-invalid") == (None if fine else "true")
    hint = form.page.get_by_text("1 to 4", exact=True)
    assert hint.evaluate("hint => getComputedStyle(hint, '::before').content") == ("none" if fine else '"allowed: "')
    assert cores.get_attribute("aria-describedby") == hint.get_attribute("id")


def test_a_button_stays_below_the_mouse_when_a_wrong_value_is_left(form: Form) -> None:
    form.backend(GPUS).check()
    form.pick("Grid tools")
    expect(form.notes).not_to_be_empty()  # it goes when something else is chosen
    form.field("Memory").select_text()
    form.page.keyboard.type("9000G")
    places = form.start.bounding_box()
    form.field("Memory").blur()
    expect(form.field("Memory")).to_have_attribute("aria-invalid", "true")
    assert form.start.bounding_box() == places


# --- an image of one's own


def test_typing_a_path_chooses_an_image_of_ones_own(form: Form, rig: LocalRig) -> None:
    path = form.page.get_by_role("textbox", name="Path of my image")
    path.press_sequentially(f"{rig.directory}/own")
    expect(form.image("An image of my own")).to_be_checked()
    expect(form.summary).to_contain_text(f"{rig.directory}/own on {FARM}")
    form.pick("ROOT")
    expect(form.summary).to_contain_text("ROOT on")
    form.image("An image of my own").check()
    expect(form.summary).to_contain_text(f"{rig.directory}/own on")
    path.fill("")
    form.start.click()
    assert path.evaluate("path => path.validity.valueMissing")
    assert not form.hub.model(form.user)


# --- links


def copied(form: Form) -> str:
    """The link that the button gives."""
    form.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=form.hub.url)
    form.page.get_by_role("button", name="Copy link").click()
    expect(form.page.get_by_role("button", name="Copied")).to_be_visible()
    return str(form.page.evaluate("navigator.clipboard.readText()"))


def test_a_link_fills_the_form_in_for_somebody_else(form: Form, visits: Visits) -> None:
    form.backend(GPUS).check()
    form.pick("ML with PyTorch")
    form.count.fill("2")
    form.field("Memory").fill("10G")
    link = copied(form)
    assert link.startswith(f"{form.hub.url}/hub/spawn?opt-image=ml-torch&")
    other = visits.new()
    other.goto(link)
    sign_in(other, "somebody-else")
    theirs = Form(other, form.hub, "somebody-else")
    expect(theirs.image("ML with PyTorch")).to_be_checked()
    expect(theirs.backend(GPUS)).to_be_checked()
    expect(theirs.kind).to_have_value("a100")
    expect(theirs.count).to_have_value("2")
    expect(theirs.field("Memory")).to_have_value("10G")
    expect(theirs.summary).to_have_text(form.summary.text_content() or "")
    expect(other.get_by_text("As last time")).to_have_count(0)
    assert not form.hub.active()


def test_where_there_is_no_clipboard_the_link_is_shown(visits: Visits, hub: RealHub) -> None:
    page = visits.new()
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', {value: undefined})")  # as without https
    enter(page, hub, "somebody")
    form = Form(page, hub, "somebody").open()
    form.pick("ROOT")
    page.get_by_role("button", name="Copy link").click()
    shown = page.get_by_label("Link to this choice")
    expect(shown).to_have_value(re.compile(rf"^{re.escape(hub.url)}/hub/spawn\?opt-image=root&"))
    assert page.evaluate("document.getSelection().toString()") == shown.input_value()


def test_what_a_link_asks_in_vain_is_told(form: Form) -> None:
    form.open(image="root", cpus="99", frobnicate="1")
    expect(form.image("ROOT")).to_be_checked()
    expect(form.field("Cores")).to_have_value("1")
    told = form.page.get_by_role("status").filter(has_text="Not everything could be filled in")
    expect(told).to_contain_text("'99' is not allowed")
    expect(told).to_contain_text("frobnicate")


# --- the job


@pytest.mark.parametrize("server", ["", "analysis"])
def test_the_job_is_shown_without_its_secrets(form: Form, server: str) -> None:
    form.open(server)
    form.pick("ATLAS ML base")
    form.field("Memory").fill("3G")
    form.page.get_by_role("button", name="Show the job").click()
    dialog = form.page.get_by_role("dialog", name="The job")
    expect(dialog).to_contain_text("tiny serve")
    expect(dialog).to_contain_text("memory: 3G")
    expect(dialog).to_contain_text(f"@PORT@/user/{form.user}/{server + '/' if server else ''} ")
    text = dialog.inner_text()
    assert "JUPYTERHUB_API_TOKEN=<secret" in text
    assert not re.search(r"[0-9a-f]{32}|[A-Za-z0-9_-]{43}", text)  # a token, a ticket
    form.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    form.page.get_by_role("button", name="Show the job").click()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    assert not form.hub.active()


def test_the_job_of_a_wrong_choice_tells_what_is_wrong(form: Form) -> None:
    form.field("Memory").fill("3000G")
    form.page.get_by_role("button", name="Show the job").click()
    expect(form.page.get_by_role("dialog", name="The job")).to_contain_text("memory: '3000G' is not allowed")
    form.page.keyboard.press("Escape")
    expect(form.field("Memory")).to_have_attribute("aria-invalid", "true")


# --- many


def test_a_thousand_images(form_of: Callable[[str], Form], hub: RealHub, rig: LocalRig, page: Page) -> None:
    site = make_site(rig)
    prefix = {"prefix": str(rig.directory / "prefix"), "command": ["tiny", "serve"]}
    many = [
        {"name": f"image-{i}", "title": f"Image number {i}", "group": f"Group {i % 7}", "tags": [f"v{i}"], **prefix}
        for i in range(1000 - len(site["images"]))
    ]
    hub.change_site({**site, "images": site["images"] + many})
    form = form_of("somebody").open()
    expect(form.search).to_have_attribute("placeholder", "Search 1000 images")
    expect(form.page.locator("details")).to_have_count(9)
    expect(form.image("Image number 700")).to_be_hidden()  # its group is closed
    form.search.press_sequentially("v70")
    expect(form.page.get_by_text("11 of 1000 images match")).to_be_visible()  # 70, 700 to 709
    expect(form.cards).to_have_count(11)
    form.pick("Image number 707")
    form.search.press("Escape")
    expect(form.image("Image number 707")).to_be_checked()
    expect(form.image("Image number 707")).to_be_visible()
    expect(form.summary).to_contain_text("Image number 707 on")
