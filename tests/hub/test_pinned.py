"""Images of jobs that wait: what a job was submitted with is what it gets, and a digest starts no other image."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.rig import LocalRig
from tests.realhub import RealHub, eventually
from tests.rigs.cvmfs import trees

pytestmark = pytest.mark.needs("hub6")


@pytest.fixture
def tree() -> Iterator[Path]:
    """A repository of DUCC's layout."""
    top = Path(tempfile.mkdtemp(prefix="hepspawner-cvmfs-"))
    top.chmod(0o755)
    trees.ducc(top, "x/base:v1")
    trees.ducc(top, "x/secret:v1")
    yield top
    shutil.rmtree(top)


@pytest.fixture
def site(site: dict[str, Any], rig: LocalRig, tree: Path) -> dict[str, Any]:
    tiny = {"prefix": str(rig.directory / "prefix"), "command": ["tiny", "serve"]}
    more = [
        {"name": "leaving", "environment": {"FLAVOUR": "its own"}, **tiny},
        {"name": "base", "path": str(tree / "x/base:v1")},
        {"name": "secret", "path": str(tree / "x/secret:v1"), "groups": ["insiders"]},
    ]
    return {**site, "images": [*site["images"], *more]}


def without(site: dict[str, Any], name: str) -> dict[str, Any]:
    return {**site, "images": [image for image in site["images"] if image["name"] != name]}


def test_an_image_that_leaves_the_site_while_its_job_waits(
    hub: RealHub, rig: LocalRig, user: str, site: dict[str, Any]
) -> None:
    rig.hold()
    hub.begin(user, {"image": "leaving"})
    hub.reached("submitted", user)
    hub.change_site(without(site, "leaving"))
    rig.release()
    hub.ready(user)
    assert hub.server_get(user, "facts").json()["environment"]["FLAVOUR"] == "its own"
    hub.stop_server(user)
    hub.gone(user)

    # a hub that was restarted meanwhile cannot know what it was
    hub.change_site(site)
    rig.hold()
    hub.begin(user, {"image": "leaving"})
    hub.reached("submitted", user)
    hub.write_site(without(site, "leaving"))
    hub.restart()
    hub.mark_log()
    rig.release()
    eventually(lambda: "'leaving' is not available to you" in hub.new_log(), "the claim is refused with the reason")
    hub.gone(user)


def test_where_an_image_is_survives_a_restart_while_its_job_waits(
    hub: RealHub, rig: LocalRig, user: str, tree: Path
) -> None:
    digest, tag = trees.digest_of("x/base:v1 1"), str(tree / "x/base:v1")
    rig.hold()
    hub.begin(user, {"image": f"base@{digest}"})
    place = f"{tree}/.flat/{digest[:2]}/{digest}"
    before = hub.reached("submitted", user)
    assert (before["places"], before["also"]) == ([place], [tag])
    hub.restart()
    after = hub.state(user)
    assert (after["places"], after["also"]) == ([place], [tag])
    hub.stop_server(user)
    hub.gone(user)


def test_a_digest_starts_no_image_of_others(hub: RealHub, user: str) -> None:
    today = trees.digest_of("x/base:v1 1")
    for digest in (trees.digest_of("x/secret:v1 1"), "ab" * 32):
        answer = hub.start_server(user, {"image": f"base@{digest}"})
        told = f"base@{digest[:12]}: the hub does not know that base ever was this image; there is today: base@{today}"
        assert answer.status_code == 400 and told in answer.json()["message"]
