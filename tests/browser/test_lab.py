"""From signing in to a cell that ran, in real images."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visit import Form, sign_in
from tests.conformance.rig import LocalRig
from tests.realhub import RealHub

pytestmark = pytest.mark.needs("chromium", "hub6")

SLOW = 90_000
"""Milliseconds for JupyterLab and a kernel on a busy machine."""
CELL = "import os, sys; print(6 * 7, sys.prefix, sorted(os.listdir('/tmp')), os.environ['HOME'])"


def run_a_cell(page: Page, code: str) -> str:
    """Open a notebook in JupyterLab, which is shown, and run one cell; its output."""
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click(timeout=SLOW)
    idle = page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    expect(idle).to_be_visible(timeout=SLOW)
    cell = page.locator(".jp-Notebook .jp-Cell .cm-content").first
    cell.click()
    page.keyboard.insert_text(code)
    expect(cell).to_have_text(code)
    output = page.locator(".jp-OutputArea-output pre").first
    for _ in range(6):  # JupyterLab drops what is run while it still connects to the kernel: people press again
        cell.click()
        page.keyboard.press("Control+Enter")
        try:
            expect(output).not_to_be_empty(timeout=SLOW / 6)
            break
        except AssertionError:
            continue
    return output.inner_text()


def through(page: Page, hub: RealHub, rig: LocalRig, owner: str, image: str) -> str:
    hub.change_site({"images": rig.images(), "backends": {"local": rig.part()}})
    page.goto(f"{hub.url}/hub/spawn")
    sign_in(page, owner)
    form = Form(page, hub, owner)
    form.pick(image)
    form.start.click()
    page.wait_for_url(f"**/user/{owner}/lab**", timeout=SLOW)
    page.goto(f"{hub.url}/user/{owner}/lab?reset")  # not what was open the last time
    output = run_a_cell(page, CELL)
    page.goto(f"{hub.url}/hub/home")
    page.get_by_role("button", name="Stop My Server").click()
    hub.gone(owner)
    return output


def test_a_cell_runs_in_the_machines_own_environment(page: Page, hub: RealHub, rig: LocalRig, owner: str) -> None:
    output = through(page, hub, rig, owner, rig.lab("hub6"))
    assert output.startswith("42 ")
    assert "venv-hub6" in output


@pytest.mark.needs("apptainer", "image")
def test_a_cell_runs_in_an_image(page: Page, hub: RealHub, rig: LocalRig, owner: str) -> None:
    output = through(page, hub, rig, owner, "sandbox")
    assert output.startswith("42 /opt/conda ")
    assert "jupyter-runtime" in output  # /tmp is the session's own
    assert "hepspawner-" not in output  # and not the machine's, where the scratch directories are
