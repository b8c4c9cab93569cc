"""Families of images, and their packages, as people find and choose them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.site import FARM, GPUS, make_site
from tests.browser.test_access import narrow, tab_to, violations
from tests.browser.visit import Form, Visits, enter, server_url
from tests.conformance.rig import LocalRig
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("chromium", "hub6")

BASE = "ml-base, "
TORCH = "ML with PyTorch, "


def conda(rig: LocalRig, name: str, *packages: str) -> dict[str, Any]:
    """An image that starts a tiny server, from a prefix in which conda installed something."""
    prefix = rig.directory / "conda" / name
    (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
    if not (prefix / "bin").exists():
        (prefix / "bin").symlink_to(rig.directory / "prefix" / "bin")
    for package in packages:
        (prefix / "conda-meta" / f"{package}-h123_0.json").touch()
    return {"name": name, "prefix": str(prefix), "command": ["tiny", "serve"]}


def sandbox(cvmfs: Path, name: str, packages: str) -> dict[str, Any]:
    """An image of a tag, as it lies on CVMFS, with the list that its builders wrote; none where there are none."""
    place = cvmfs / "registry.example.org" / name
    if packages:
        (place / "usr").mkdir(parents=True, exist_ok=True)
        (place / "list-of-pkgs-inside.txt").write_text(packages)
    return {"name": name.rpartition("/")[2], "path": str(place), "group": name.partition("/")[0].upper()}


@pytest.fixture(scope="module")
def site(rig: LocalRig) -> dict[str, Any]:
    cvmfs = rig.directory / "cvmfs"
    numpy = {
        "alma9-python311": "2.1.0",
        "alma9-python39": "1.26.4",
        "centos7-python39": "",
        "centos7-python38": "1.24.0",
    }
    images = [
        sandbox(cvmfs, f"atlas/ml-base:{tag}", version and f"zlib 1.3\nnumpy {version}\n<b> 1\nasdf_standard 1.1\n")
        for tag, version in numpy.items()
    ]
    levels = ("saturn", "mercury", "jupyter", "earth")
    images += [sandbox(cvmfs, f"escape/{level}:v1", "root 6.26.10\n") for level in levels]
    torch = {"family": "ML with PyTorch", "group": "Deep learning"}
    images += [
        {**conda(rig, "torch-cpu", "torch-2.4.1"), **torch, "tags": ["cpu"], "gpu": "none"},
        {**conda(rig, "torch-gpu", "torch-2.5.1", "numpy-2.1.3"), **torch, "tags": ["cuda 12.4"], "gpu": "required"},
        {**conda(rig, "root", "root-6.36.2", "root_base-6.36.2"), "title": "ROOT", "group": "Deep learning"},
    ]
    return {**make_site(rig), "images": images}


@pytest.fixture(scope="module")
def running_hub(running_hub: RealHub) -> RealHub:
    """The module's hub, as soon as it has read what is in the images."""

    def read() -> bool:
        token = running_hub.user_token("somebody")
        answer = running_hub.api("GET", "/hepspawner/images?search=root>=6", token=token).json()
        return {one["name"] for one in answer["images"]} >= {"root", "saturn:v1", "earth:v1"}

    running_hub.api("POST", "/users/somebody")
    eventually(read, "the packages are read")
    return running_hub


def select(form: Form, name: str) -> Locator:
    return form.page.get_by_role("combobox", name=name, exact=True)


def offered(select: Locator) -> list[str]:
    """What can be chosen in a select."""
    return select.locator("option:not([hidden])").evaluate_all(
        "all => all.map((one) => one.label + (one.disabled ? ' ✗' : ''))"
    )


def test_tags_of_one_image_are_one_card_with_the_choices_that_there_are(form: Form) -> None:
    card = form.cards.filter(has_text="ml-base")
    expect(card).to_have_count(1)
    expect(card.get_by_role("radio")).to_have_count(1)
    system, python = select(form, "Operating system of ml-base"), select(form, "Python of ml-base")
    assert offered(system) == ["alma9", "centos7"]
    assert offered(python) == ["Python 3.11", "Python 3.9"]
    system.select_option("centos7")
    expect(form.image(f"{BASE}centos7 · Python 3.8")).to_be_checked()  # of the other nothing is there
    assert offered(python) == ["Python 3.9 – does not exist ✗", "Python 3.8"]
    expect(form.summary).to_contain_text("ml-base (centos7 · Python 3.8) on")
    system.select_option("alma9")
    expect(form.image(f"{BASE}alma9 · Python 3.11")).to_be_checked()
    python.select_option("Python 3.9")
    expect(form.image(f"{BASE}alma9 · Python 3.9")).to_be_checked()


def test_a_collection_is_in_its_order(form: Form) -> None:
    assert offered(select(form, "Level of escape")) == ["Mercury", "Earth", "Jupyter", "Saturn"]


def test_the_gpu_rule_is_that_of_what_is_chosen(form: Form) -> None:
    processor = select(form, "Processor of ML with PyTorch")
    processor.select_option("CUDA 12.4")
    expect(form.backend(GPUS)).to_be_checked()
    expect(form.backend(FARM)).to_be_disabled()
    expect(form.gpu).to_be_checked()
    processor.select_option("CPU")
    expect(form.backend(FARM)).to_be_enabled()
    expect(form.gpu).not_to_be_checked()
    expect(form.page.get_by_text("This image has no GPU software.")).to_be_visible()


def test_a_link_chooses_one_of_a_family(form: Form) -> None:
    form.open(image="ml-base:centos7-python38")
    expect(form.image(f"{BASE}centos7 · Python 3.8")).to_be_checked()
    expect(select(form, "Operating system of ml-base")).to_have_value("centos7")
    form.open(image="ml-base:centos7-python39")  # which is not there
    expect(form.page.get_by_text("Not everything could be filled in")).to_be_visible()
    expect(form.image(f"{BASE}alma9 · Python 3.11")).to_be_checked()


def test_one_of_a_family_starts_and_starts_again(form_of: Callable[[str], Form], owner: str) -> None:
    form = form_of(owner).open()
    form.backend(FARM).check()
    select(form, "Processor of ML with PyTorch").select_option("CPU")
    form.start.click()
    form.page.wait_for_url(server_url(form.hub, owner))
    assert form.hub.model(owner)["user_options"]["image"] == "torch-cpu"
    form.hub.stop_servers()
    form.open()
    expect(form.image(f"{TORCH}CPU")).to_be_checked()
    select(form, "Operating system of ml-base").select_option("centos7")
    form.again.click()
    form.page.wait_for_url(server_url(form.hub, owner))
    assert form.hub.model(owner)["user_options"]["image"] == "torch-cpu"


# --- packages


@pytest.mark.parametrize(
    "words, count, title, told",
    [
        ("torch 2.5", 1, f"{TORCH}CUDA 12.4", "torch 2.5.1"),
        ("torch<2.5", 1, f"{TORCH}CPU", "torch 2.4.1"),
        ("root>=6.30", 1, "ROOT", "root 6.36.2"),
        ("numpy<2 centos7", 1, f"{BASE}centos7 · Python 3.8", "numpy 1.24.0"),
        ("numpy 1.26", 1, f"{BASE}alma9 · Python 3.9", "numpy 1.26.4"),
        ("escape root", 4, "escape, Mercury", "root 6.26.10"),
    ],
)
def test_packages_are_found(form: Form, words: str, count: int, title: str, told: str) -> None:
    form.pick("ROOT")
    form.search.press_sequentially(words)
    expect(form.page.get_by_text(f"{count} of 11 images match")).to_be_visible()
    expect(form.cards).to_have_count(1)
    expect(form.cards).to_contain_text(told)
    form.search.press("Enter")
    expect(form.image(title)).to_be_checked()
    form.search.press("Escape")
    expect(form.page.get_by_text(told)).to_be_hidden()
    expect(form.image(title)).to_be_checked()


def test_what_is_chosen_stays_while_another_of_its_family_is_found(form: Form) -> None:
    select(form, "Operating system of ml-base").select_option("centos7")
    form.search.fill("numpy>=2 atlas")
    expect(form.cards).to_contain_text("alma9 · Python 3.11: numpy 2.1.0")
    expect(form.image(f"{BASE}centos7 · Python 3.8")).to_be_checked()


def test_a_search_without_the_hub_finds_what_the_page_has(form: Form) -> None:
    form.page.route("**/hepspawner/images?search=*", lambda route: route.abort())
    form.search.press_sequentially("torch")
    expect(form.page.get_by_text("2 of 11 images match")).to_be_visible()
    form.search.fill("numpy")
    expect(form.page.get_by_text("No image matches.")).to_be_visible()


def test_all_packages_on_demand(form: Form) -> None:
    form.pick("ROOT")
    form.cards.filter(has=form.image("ROOT")).get_by_role("button", name="Packages").click()
    dialog = form.page.get_by_role("dialog", name="Packages of ROOT")
    expect(dialog.get_by_role("listitem")).to_have_text(["root 6.36.2", "root_base 6.36.2"])
    form.page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    select(form, "Python of ml-base").select_option("Python 3.9")
    form.cards.filter(has_text="ml-base").get_by_role("button", name="Packages").click()
    dialog = form.page.get_by_role("dialog", name=f"Packages of {BASE}alma9 · Python 3.9")
    expect(dialog.get_by_role("listitem")).to_have_text(["asdf_standard 1.1", "numpy 1.26.4", "zlib 1.3"])
    assert violations(form.page) == []
    dialog.get_by_role("searchbox").fill("num")
    expect(dialog.get_by_text("1 of 3 packages")).to_be_visible()
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    assert not form.hub.active()


# --- for everybody


def test_families_by_keyboard(form: Form) -> None:
    page = form.page
    expect(form.image(f"{BASE}alma9 · Python 3.11")).to_be_checked()
    tab_to(page, "image=ml-base:alma9-python311")
    page.keyboard.press("ArrowDown")
    expect(form.image("escape, Mercury")).to_be_checked()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Tab")
    expect(select(form, "Operating system of ml-base")).to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(form.image(f"{BASE}centos7 · Python 3.8")).to_be_checked()
    tab_to(page, "BUTTON")
    expect(form.cards.filter(has_text="ml-base").get_by_role("button", name="Packages")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog", name=f"Packages of {BASE}centos7 · Python 3.8")).to_be_visible()


def test_families_without_scripts(visits: Visits, hub: RealHub, owner: str) -> None:
    page = visits.new(java_script_enabled=False)
    enter(page, hub, owner)
    form = Form(page, hub, owner).open()
    family = page.get_by_role("group", name="ml-base")
    expect(family.get_by_role("radio")).to_have_count(4)
    expect(family.get_by_role("radio", name="centos7 · Python 3.9 does not exist")).to_be_disabled()
    expect(page.get_by_role("combobox", name="Python")).to_have_count(0)
    form.backend(FARM).check()
    page.get_by_role("group", name="ML with PyTorch").get_by_role("radio", name="CPU").check()
    form.start.click()
    page.wait_for_url(server_url(hub, owner))
    assert hub.model(owner)["user_options"]["image"] == "torch-cpu"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_families_for_axe_and_on_a_phone(visits: Visits, hub: RealHub, scheme: Any) -> None:
    page: Page = visits.new(color_scheme=scheme, viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    enter(page, hub, "somebody-else")
    form = Form(page, hub, "somebody-else").open()
    select(form, "Operating system of ml-base").select_option("centos7")
    form.search.fill("numpy")
    expect(form.page.get_by_text("numpy 1.24.0")).to_be_visible()
    assert narrow(page)
    assert violations(page) == []
