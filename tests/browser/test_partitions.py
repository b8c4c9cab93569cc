"""The form of a cluster with partitions: what can be had follows the partition, and what is free is told."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.site import CLUSTER, FARM, HOSTILE, make_slurm_site
from tests.browser.test_access import narrow, tab_to, violations
from tests.browser.visit import Form, Visits, sign_in
from tests.conformance.rig import LocalRig
from tests.realhub import RealHub

pytestmark = pytest.mark.needs("chromium", "hub6")


@pytest.fixture(scope="module")
def site(rig: LocalRig) -> dict[str, Any]:
    """No Slurm answers here: the form works all the same."""
    return make_slurm_site(rig)


def hint(form: Form, text: str) -> None:
    expect(form.page.get_by_text(text, exact=True)).to_be_visible()


# --- ranges and GPUs follow the partition


def test_each_partition_has_its_ranges(form: Form) -> None:
    cores, memory, time = form.field("Cores"), form.field("Memory"), form.field("Time")
    expect(form.partition).to_have_value("cpu")
    expect(form.summary).to_have_text(f"ATLAS ML base on {CLUSTER} (partition CPU nodes) with 1 core, 2G, for 2h.")
    hint(form, "1 to 64")
    cores.fill("48")
    memory.fill("10G")
    form.partition.select_option("GPU nodes")
    hint(form, "1 to 32")
    expect(form.notes).to_have_text("Cores: 32 instead of 48, the most in partition GPU nodes.")
    expect(cores).to_have_value("32")
    expect(memory).to_have_value("10G")  # allowed here, too
    expect(time).to_have_value("1h")  # nobody asked for another than the default
    slider = form.slider("cpus")
    slider.evaluate(
        "slider => { slider.value = slider.max; slider.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    expect(cores).to_have_value("32")
    expect(form.gpu).not_to_be_checked()  # it is for those who ask for it
    expect(form.summary).to_have_text(f"ATLAS ML base on {CLUSTER} (partition GPU nodes) with 32 cores, 10G, for 1h.")
    cores.fill("33")
    cores.blur()
    expect(cores).to_have_attribute("aria-invalid", "true")
    form.partition.select_option("CPU nodes")
    expect(cores).to_have_value("33")
    assert cores.get_attribute("aria-invalid") is None
    expect(form.notes).to_be_empty()


def test_the_switch_leads_to_a_partition_with_gpus_and_back(form: Form) -> None:
    expect(form.gpu).to_be_enabled()
    form.gpu.click()
    expect(form.partition).to_have_value("gpu")
    expect(form.notes).to_have_text("Partition: GPU nodes instead of CPU nodes, which has no GPU.")
    expect(form.kind).to_have_value("a100")
    form.count.fill("2")
    expect(form.summary).to_contain_text("(partition GPU nodes) with 2 × NVIDIA A100, 4 cores")
    form.gpu.click()
    expect(form.partition).to_have_value("cpu")
    expect(form.notes).to_have_text("Partition: CPU nodes again.")
    form.partition.select_option("GPU nodes")
    form.gpu.click()
    expect(form.notes).to_be_empty()
    form.gpu.click()
    expect(form.partition).to_have_value("gpu")  # where it was put by hand


def test_a_partition_without_gpus_switches_them_off(form: Form) -> None:
    form.gpu.click()
    form.partition.select_option("CPU nodes")
    expect(form.gpu).not_to_be_checked()
    expect(form.kind).to_be_hidden()
    expect(form.partition).to_have_value("cpu")
    expect(form.notes).to_have_text("No GPU: there is none in partition CPU nodes.")
    form.gpu.click()
    expect(form.partition).to_have_value("gpu")


def test_an_image_that_needs_a_gpu_leaves_no_other_partition(form: Form) -> None:
    without = form.partition.locator("option[value=cpu]")
    form.pick("ML with PyTorch")
    expect(form.partition).to_have_value("gpu")
    expect(without).to_be_disabled()
    expect(form.gpu).to_be_checked()
    expect(form.gpu).to_be_disabled()
    form.pick("ROOT")
    expect(without).to_be_enabled()
    expect(form.partition).to_have_value("cpu")
    expect(form.gpu).not_to_be_checked()
    form.pick("ATLAS ML base")
    expect(form.gpu).not_to_be_checked()  # nobody asked for it


def test_another_backend_and_back(form: Form) -> None:
    form.gpu.click()
    form.field("Cores").fill("20")
    form.backend(FARM).check()
    expect(form.partition).to_be_hidden()
    expect(form.gpu).to_be_hidden()
    expect(form.notes).to_contain_text(f"There is no GPU on {FARM}")
    expect(form.notes).to_contain_text(f"Cores: 4 instead of 20, the most on {FARM}")
    expect(form.summary).to_have_text(f"ATLAS ML base on {FARM} with 4 cores, 2G, for 1h.")
    form.backend(CLUSTER).check()
    expect(form.partition).to_have_value("gpu")  # as it was
    expect(form.gpu).to_be_checked()
    expect(form.summary).to_contain_text("1 × NVIDIA A100, 4 cores, 8G, for 1h")


@pytest.mark.parametrize(
    "options, partition",
    [({"gpu": "a100"}, "gpu"), ({"image": "ml-torch"}, "gpu"), ({"memory": "100G"}, "gpu"), ({"cpus": "64"}, "cpu")],
)
def test_a_link_that_names_no_partition(form: Form, options: dict[str, str], partition: str) -> None:
    form.open(**options)
    expect(form.partition).to_have_value(partition)
    assert form.gpu.is_checked() is ("gpu" in options or "image" in options)
    expect(form.notes).to_be_empty()


def test_the_job_has_the_partition_and_a_refusal_keeps_it(form: Form) -> None:
    form.gpu.click()
    form.page.get_by_role("button", name="Show the job").click()
    dialog = form.page.get_by_role("dialog", name="The job")
    expect(dialog).to_contain_text("--partition=gpu")
    expect(dialog).to_contain_text("gpu:a100:1")
    form.page.keyboard.press("Escape")
    form.field("Cores").fill("48")
    form.start.click()
    expect(form.page.get_by_role("alert")).to_contain_text("Nothing was started. Please look at the marked field.")
    expect(form.page.locator("#hep-cpus-error")).to_contain_text("partition gpu; allowed: 1 to 32")
    expect(form.partition).to_have_value("gpu")
    expect(form.gpu).to_be_checked()
    expect(form.field("Cores")).to_have_value("48")
    form.page.reload()
    expect(form.partition).to_have_value("gpu")


# --- for everybody


def test_all_of_it_by_keyboard(form: Form) -> None:
    keyboard = form.page.keyboard
    assert tab_to(form.page, "hep-runtime")[-5:] == [
        "hep-partition",
        "hep-gpu-on",
        "hep-cpus",
        "hep-memory",
        "hep-runtime",
    ]
    form.partition.focus()
    keyboard.press("ArrowDown")
    expect(form.partition).to_have_value("gpu")
    keyboard.press("ArrowUp")
    expect(form.partition).to_have_value("cpu")
    tab_to(form.page, "hep-gpu-on")
    keyboard.press("Space")
    expect(form.partition).to_have_value("gpu")
    expect(form.gpu).to_be_focused()
    assert tab_to(form.page, "hep-cpus") == ["hep-gpu", "hep-gpus", "hep-cpus"]
    keyboard.press("ArrowUp")
    expect(form.field("Cores")).to_have_value("6")


def test_without_scripts(visits: Visits, hub: RealHub, owner: str) -> None:
    page = visits.new(java_script_enabled=False)
    page.goto(f"{hub.url}/hub/spawn?opt-backend=cluster")
    sign_in(page, owner)
    form = Form(page, hub, owner)
    expect(form.partition).to_have_value("cpu")
    expect(form.field("Cores")).to_have_value("1")
    expect(page.locator("#hep-cpus-hint")).to_have_text(f"{CLUSTER}: 1 to 64 in partition CPU nodes; {FARM}: 1 to 4")
    expect(page.locator("#hep-gpu-hint")).to_have_text(f"{CLUSTER}: NVIDIA A100 in partition GPU nodes")
    form.kind.select_option("NVIDIA A100")
    form.start.click()
    expect(page.locator("#hep-gpu-error")).to_have_text("there is none in partition cpu; choose one of: gpu")
    expect(form.partition).to_have_value("cpu")
    expect(form.kind).to_have_value("a100")


# --- what is free

CPU = {"name": "cpu", "title": "CPU nodes", "up": True, "cores": {"free": 250, "total": 256}, "waiting": 3, "gpus": {}}
GPU = {
    **CPU,
    "name": "gpu",
    "title": "GPU nodes",
    "cores": {"free": 100, "total": 128},
    "waiting": 1,
    "gpus": {"a100": {"free": 1, "total": 2, "waiting": 1}},
}
FREE: dict[str, Any] = {"title": CLUSTER, "at": 0, "age": 12.5, "problem": "", "rooms": [CPU, GPU]}


class Told:
    """What the hub says of what is free, in place of the hub."""

    def __init__(self) -> None:
        self.backends: dict[str, Any] = {"cluster": FREE}
        self.asked = 0
        self.status = 200
        self.body: str | None = None
        self.held: list[Route] | None = None

    def __call__(self, route: Route) -> None:
        self.asked += 1
        if self.held is None:
            self.answer(route)
        else:
            self.held.append(route)

    def answer(self, route: Route) -> None:
        body = json.dumps({"backends": self.backends}) if self.body is None else self.body
        route.fulfill(status=self.status, body=body, content_type="application/json")

    def let_go(self) -> None:
        """Answer those that wait."""
        for route in self.held or []:
            self.answer(route)
        self.held = None


@pytest.fixture
def told(page: Page) -> Told:
    one = Told()
    page.route("**/hub/api/hepspawner/availability", one)
    return one


def line(form: Form) -> Any:
    """The backend's line."""
    return form.page.locator(".hep-free[data-backend=cluster]")


def labels(form: Form) -> list[str]:
    """What the options of the partition say."""
    options: list[str] = form.partition.locator("option:not([hidden])").evaluate_all(
        "all => all.map((one) => one.label)"
    )
    return options


def test_what_is_free_is_told(told: Told, form: Form) -> None:
    clock = form.page.evaluate("new Date(Date.now() - 12500).toTimeString().slice(0, 5)")
    expect(line(form)).to_have_text(f"Free as of {clock}: 1 of 2 NVIDIA A100, up to 250 cores")
    expect(form.page.locator("#hep-partition-hint")).to_have_text("250 of 256 cores free, 3 waiting")
    assert labels(form) == ["CPU nodes", "GPU nodes · 100 of 128 cores free, 1 waiting"]
    form.gpu.click()
    expect(form.page.locator("#hep-partition-hint")).to_have_text("100 of 128 cores free, 1 waiting")
    expect(form.page.locator("#hep-gpu-hint")).to_have_text("1 of 2 free, 1 waiting")
    assert labels(form) == ["CPU nodes · 250 of 256 cores free, 3 waiting", "GPU nodes"]
    expect(form.summary).to_contain_text("(partition GPU nodes)")
    assert violations(form.page) == []


def test_all_options_say_what_is_free_while_one_chooses(told: Told, form: Form) -> None:
    expect(line(form)).to_contain_text("Free")
    form.partition.focus()
    form.page.keyboard.press("ArrowDown")  # takes the next one
    assert labels(form)[1] == "GPU nodes"
    form.page.keyboard.press("Shift")
    assert labels(form) == [
        "CPU nodes · 250 of 256 cores free, 3 waiting",
        "GPU nodes · 100 of 128 cores free, 1 waiting",
    ]
    form.partition.blur()
    assert labels(form)[1] == "GPU nodes"


@pytest.mark.parametrize("image", ["ATLAS ML base", "ML with PyTorch"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_moves_when_the_answer_comes(told: Told, form: Form, image: str, width: int) -> None:
    told.held = []
    form.page.set_viewport_size({"width": width, "height": 900})
    form.page.reload()
    form.pick(image)
    parts = form.page.locator("#hep :not(.hep-free *, option)")
    places = "all => all.map((one) => Object.values(one.getBoundingClientRect().toJSON()))"
    before = parts.evaluate_all(places)
    told.let_go()
    expect(line(form)).to_contain_text("Free")
    assert parts.evaluate_all(places) == before
    assert width == 1280 or narrow(form.page)


def test_what_cannot_be_known_is_left_out(told: Told, form: Form) -> None:
    told.backends = {"cluster": {**FREE, "rooms": [{**CPU, "cores": None, "waiting": None}, {**GPU, "up": False}]}}
    form.page.reload()
    expect(line(form)).to_contain_text(": nothing")
    assert labels(form) == ["CPU nodes", "GPU nodes · takes no jobs now"]
    expect(form.page.locator("#hep-partition-hint")).to_be_empty()
    told.backends = {}
    form.page.reload()
    expect(form.page.locator("#hep-partition-hint")).to_be_empty()
    expect(line(form)).to_be_empty()


def test_an_old_answer_says_how_old_it_is(told: Told, form: Form) -> None:
    told.backends = {"cluster": {**FREE, "age": 420}}
    form.page.reload()
    expect(line(form)).to_contain_text(", 7 min ago: 1 of 2")
    told.backends = {"cluster": {**FREE, "age": 90000, "problem": f"squeue says: {HOSTILE}"}}
    form.page.reload()
    expect(line(form)).to_contain_text(", 25 h ago, no answer since: 1 of 2")
    expect(line(form)).to_have_attribute("title", f"squeue says: {HOSTILE}")


def test_names_of_others_stay_text(told: Told, form: Form) -> None:
    rooms = [CPU, {**GPU, "title": HOSTILE, "gpus": {HOSTILE: {"free": 1, "total": 2, "waiting": 0}}}]
    told.backends = {"cluster": {**FREE, "title": HOSTILE, "rooms": rooms}, "farm": FREE, "another": FREE}
    form.page.reload()
    expect(line(form)).to_contain_text(f"1 of 2 {HOSTILE}")
    assert form.page.evaluate("window.hacked") is None


def test_without_an_answer_nothing_is_shown(told: Told, form: Form) -> None:
    expect(line(form)).to_contain_text("Free")
    for status, body in ((500, "{}"), (403, "{}"), (200, "<html>"), (200, "{}"), (200, "[]")):
        told.status, told.body = status, body
        form.page.reload()
        expect(line(form)).to_be_empty()
        assert labels(form) == ["CPU nodes", "GPU nodes"]
        form.gpu.click()
        expect(form.kind).to_have_value("a100")


def test_it_is_asked_again_while_somebody_looks(told: Told, form: Form) -> None:
    page = form.page
    page.clock.install()
    page.reload()
    expect(line(form)).to_contain_text("1 of 2")
    asked = told.asked
    told.backends = {"cluster": {**FREE, "rooms": [{**CPU, "cores": {"free": 8, "total": 256}}]}}
    page.clock.run_for(61_000)
    expect(line(form)).to_contain_text("8 of 256 cores, 3 waiting")
    assert told.asked == asked + 1
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.clock.run_for(600_000)
    assert told.asked == asked + 1
    told.status = 500
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    expect(line(form)).to_be_empty()  # the hub does not say any more
    assert told.asked == asked + 2
