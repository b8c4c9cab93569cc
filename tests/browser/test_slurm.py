"""A real Slurm, from the form to the server: what is free, why a job waits, and where it runs."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.site import make_slurm_site
from tests.browser.test_access import narrow
from tests.browser.visit import Form, Visits, enter, server_url, waiting_url
from tests.conformance.slurm_rig import SlurmRig
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("chromium", "hub6", "slurm")


@pytest.fixture(scope="module")
def rig(engines: dict[str, Any]) -> Iterator[SlurmRig]:
    """A cluster."""
    one = SlurmRig(engines)
    yield one
    one.close()


@pytest.fixture(scope="module")
def taken(rig: SlurmRig) -> int:
    """The job of somebody who has one of the two GPUs."""
    job = rig.slurm.submit("sleep 600", "-p", "gpu", "-n", "16", "--gres=gpu:a100:1", user=rig.users[1])
    rig.slurm.wait_for(job, "RUNNING")
    return job


@pytest.fixture(scope="module")
def site(rig: SlurmRig, taken: int) -> dict[str, Any]:
    return make_slurm_site(rig, rig.slurm.env)


def test_what_is_free(form_of: Callable[[str], Form], hub: RealHub, owner: str) -> None:
    token = hub.user_token(owner)
    eventually(lambda: hub.api("GET", "/hepspawner/availability", token=token).json()["backends"], "Slurm tells")
    form = form_of(owner).open()
    line = form.page.locator(".hep-free[data-backend=cluster]")
    expect(line).to_have_text(re.compile(r"^Free as of \d\d:\d\d: 1 of 2 NVIDIA A100, up to 256 cores$"))
    form.gpu.click()
    expect(form.page.locator("#hep-partition-hint")).to_have_text("112 of 128 cores free")
    expect(form.page.locator("#hep-gpu-hint")).to_have_text("1 of 2 free")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_job_that_waits_says_why(visits: Visits, hub: RealHub, rig: SlurmRig, owner: str, scripts: bool) -> None:
    page = visits.new(java_script_enabled=scripts, viewport={"width": 390, "height": 844}, is_mobile=True)
    enter(page, hub, owner)
    form = Form(page, hub, owner).open(backend="cluster")
    form.pick("ROOT")
    form.pick("ATLAS ML base")
    if scripts:
        form.gpu.click()
    else:
        form.partition.select_option("GPU nodes")
        form.kind.select_option("NVIDIA A100")
    form.field("Cores").fill("2")
    rig.hold()
    form.start.click()
    page.wait_for_url(waiting_url(hub, owner))
    step = page.locator("#progress-message [aria-current=step]")
    expect(step).to_contain_text("Waiting for the node")
    expect(step).to_contain_text(re.compile(r"waiting since \d\d:\d\d"))
    if scripts:
        assert narrow(page)
    rig.release()
    page.wait_for_url(server_url(hub, owner))
    options = hub.model(owner)["user_options"]
    assert (options["partition"], options["gpu"], options["gpus"], options["cpus"]) == ("gpu", "a100", 1, 2)
    (job,) = [one for one in rig.slurm.jobs("R") if one.user == owner]
    assert job.node == "g1"
