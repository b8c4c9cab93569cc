"""What the form tells of images on CVMFS: a time that they may not last, and the very image of the last time."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.visit import Form
from tests.conformance.rig import LocalRig

pytestmark = pytest.mark.needs("chromium", "hub6")

DUCC, OSG = "8e" + 62 * "1", "ab" + 62 * "c"


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    """A repository of each layout."""
    top = Path(tempfile.mkdtemp(prefix="hepspawner-cvmfs-"))
    top.chmod(0o755)
    for root, directory in (("ducc", f".flat/8e/{DUCC}"), ("osg", f".images/ab/{OSG[2:]}"), ("plain", "base:v1")):
        (top / root / directory / "usr").mkdir(parents=True)
    (top / "ducc/base:v1").symlink_to(f".flat/8e/{DUCC}")
    (top / "osg/base:v1").symlink_to(top / f"osg/.images/ab/{OSG[2:]}")
    yield top
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def site(rig: LocalRig, tree: Path) -> dict[str, Any]:
    images = [{"name": name, "path": f"{tree}/{name}/base:v1"} for name in ("plain", "ducc", "osg")]
    return {"images": images, "backends": {"here": {**rig.part(), "runtime": {"default": "1h", "max": "4d"}}}}


def test_a_time_that_the_image_may_not_last_is_warned_of(form: Form) -> None:
    warning = form.page.get_by_text("CVMFS may remove this one")
    form.pick("plain")
    expect(warning).to_be_hidden()
    form.pick("ducc")
    expect(warning).to_be_visible()
    expect(warning).to_contain_text("soon after")
    form.pick("osg")
    expect(warning).to_be_hidden()
    form.field("Time").fill("3d")
    expect(warning).to_be_visible()
    expect(warning).to_contain_text("2d after")
    form.field("Time").fill("2d")
    expect(warning).to_be_hidden()


def test_a_link_to_a_digest_is_ticked_and_goes_with_its_image(form: Form) -> None:
    form.open(image=f"ducc@{DUCC}")
    tick = form.page.get_by_role("checkbox", name=f"ducc as it was, {DUCC[:12]}")
    expect(tick).to_be_checked()
    expect(form.image("ducc")).to_be_checked()
    form.page.get_by_role("button", name="Show the job").click()
    job = form.page.get_by_role("dialog")
    expect(job).to_contain_text(f"/.flat/8e/{DUCC}")
    job.get_by_role("button", name="Close").click()
    form.pick("plain")
    expect(tick).to_be_hidden()
    form.page.get_by_role("button", name="Show the job").click()
    expect(job).to_contain_text("/plain/base:v1")
    expect(job).not_to_contain_text(DUCC)
