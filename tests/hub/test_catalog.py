"""A real hub's catalog over a real FUSE file system: what users and admins see of it, also while it hangs."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.rig import LocalRig
from tests.cvmfs import Repository
from tests.hubs import on_both
from tests.pages import Page
from tests.realhub import RealHub, eventually
from tests.rigs.cvmfs import trees

pytestmark = pytest.mark.needs("hub6", "fuse")

WISHED = ["ghcr.io/atlas/base:v1", "ghcr.io/atlas/base:v2", "gitlab.example.org:5005/x/y:latest"]


@pytest.fixture
def cvmfs() -> Iterator[Repository]:
    """A repository of DUCC's layout, in which the second image of the wish list is missing."""
    with Repository() as one:
        for reference in (WISHED[0], WISHED[2]):
            trees.ducc(one.source, reference)
        trees.wishlist(one.source, WISHED)
        yield one


@pytest.fixture
def site(site: dict[str, Any], cvmfs: Repository) -> dict[str, Any]:
    """The suite's site with a wish list, and one that is for few."""
    place = {"file": f"{cvmfs.root}/recipe.yaml", "repository": str(cvmfs.root)}
    wishlist = {"from": "wishlist", **place, "name": "{name}:{tag}"}
    listed = [
        {**wishlist, "include": "ghcr.io/*", "title": "{name} {tag}", "group": "Unpacked"},
        {**wishlist, "include": "gitlab*", "groups": ["insiders"]},
    ]
    return {**site, "images": [*site["images"], *listed]}


def images(hub: RealHub, user: str) -> dict[str, Any]:
    """What the API says of the user's images, by name."""
    answer = hub.api("GET", "/hepspawner/images", token=hub.user_token(user))
    assert answer.status_code == 200, answer.text
    return {image["name"]: image for image in answer.json()["images"]}


def known(hub: RealHub, user: str, name: str, *kinds: str) -> dict[str, Any]:
    """Wait until the state of an image is one of these."""

    def look() -> Any:
        image = images(hub, user).get(name)
        return image if image and image["state"] in kinds else None

    return dict(eventually(look, f"the state of {name} is {kinds}", 90))


@on_both
def test_found_images_and_their_states(hub: RealHub, user: str, insider: str, cvmfs: Repository) -> None:
    state = known(hub, user, "base:v1", "sandbox")
    assert state["digest"] == trees.digest_of(f"{WISHED[0]} 1") and state["size"] == 3000
    assert state["place"] == f"{cvmfs.root}/{WISHED[0]}" and state["note"] == ""
    assert state["published"] <= state["at"] <= time.time() and state["age"] >= 0
    assert (state["title"], state["group"]) == ("base v1", "Unpacked")
    missing = known(hub, user, "base:v2", "not yet published")
    assert "not published yet" in missing["note"]
    # one alone, and only what the user may use
    token = hub.user_token(user)
    assert hub.api("GET", "/hepspawner/images/base:v1", token=token).json()["digest"] == state["digest"]
    assert hub.api("GET", "/hepspawner/images/y:latest", token=token).status_code == 404
    assert "y:latest" not in images(hub, user) and "y:latest" in images(hub, insider)
    page = Page(hub.browser(user).form().text)
    assert {"tiny", "base:v1"} <= set(page.offered["image"]) and "y:latest" not in page.text
    assert "not published yet" in page.text
    answer = hub.start_server(user, {"image": "base:v2"})
    assert answer.status_code == 400 and "not published yet" in answer.json()["message"]
    # a list that breaks is told to admins, and takes nothing away
    (cvmfs.source / "recipe.yaml").write_bytes(b"\x7fELF\0")
    hub.change_site({**hub.site, "images": [*hub.site["images"], hub.site["images"][-1] | {"exclude": "nothing"}]})
    eventually(lambda: "is not YAML" in Page(hub.browser("admin").form().text).text, "admins are told")
    page = Page(hub.browser(user).form("second").text)
    assert "base:v1" in page.offered["image"] and "is not YAML" not in page.text
    assert "Traceback" not in hub.new_log()


def test_with_cvmfs_hanging_completely(
    new_hub: Callable[..., RealHub], site: Any, user: str, cvmfs: Repository
) -> None:
    cvmfs.is_sick("hang")
    base = {"name": "base", "path": f"{cvmfs.root}/{WISHED[0]}"}
    hub = new_hub({**site, "images": [one for one in site["images"] if "from" in one]})
    browser = hub.browser(user)
    text = Page(browser.form().text).text
    assert "cannot be read just now" in text and "ask the site's admins" not in text
    hub.change_site({**site, "images": [base, *site["images"]]})
    assert "cannot be read just now" in Page(browser.form(query="?opt-image=base:v1").text).text
    assert {"base", "tiny"} <= set(Page(browser.form().text).offered["image"])
    assert hub.start_server(user, {"image": "tiny"}).status_code == 201
    hub.ready(user)
    state = known(hub, user, "base", "no answer")
    assert "CVMFS does not answer since" in state["note"] or not str(cvmfs.root).startswith("/cvmfs")
    assert "does not answer since" in state["note"] and "base:v1" not in images(hub, user)
    assert {"base", "tiny"} <= set(Page(browser.form("second").text).offered["image"])
    assert hub.start_server(user, {"image": "tiny"}, "second").status_code == 201
    assert "does not answer since" in Page(hub.browser("admin").form().text).text
    # as soon as it answers all is there, without anybody's help
    cvmfs.is_sick("")
    known(hub, user, "base", "sandbox")
    # and a hub stops while it hangs
    cvmfs.is_sick("hang")
    new = {**base, "path": f"{cvmfs.root}/ghcr.io/atlas/new:v1"}  # others may be known by now
    hub.change_site({**site, "images": [new, *site["images"]]})
    eventually(lambda: hanging(cvmfs), "a child hangs")
    assert hub.process is not None
    hub.process.terminate()
    assert hub.process.wait(90) is not None
    assert "Traceback" not in hub.log()
    cvmfs.is_sick("")
    eventually(lambda: not hanging(cvmfs), "nothing is left of it")
    hub.start()  # for its own end


def hanging(cvmfs: Repository) -> list[int]:
    """The processes of catalogs that are in an uninterruptible wait."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"examine.py" in (entry / "cmdline").read_bytes():
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                found += [int(entry.name)] if state in "DS" and (entry / "wchan").read_text() else []
        except OSError:
            continue
    return found


@pytest.mark.needs("apptainer", "image", "sif")
def test_a_found_image_is_started(hub: RealHub, user: str, site: Any, rig: LocalRig, engines: Any) -> None:
    place = Path(engines["image"])
    source = {"from": "directory", "directory": str(place.parent), "include": f"{place}*", "name": "found-{name}"}
    hub.change_site({**site, "images": [*site["images"], source]})

    def found() -> Any:
        return [image for name, image in images(hub, user).items() if name.startswith("found-")]

    both = eventually(lambda: len(found()) == 2 and found(), "both are found")
    sandbox = next(image for image in both if image["places"] == [str(place)])
    known(hub, user, sandbox["name"], "sandbox")
    assert hub.start_server(user, {"image": sandbox["name"]}).status_code in (201, 202)
    hub.ready(user, seconds=180)
    session = hub.state(user)["session"]
    assert any("apptainer" in line.lower() for line in rig.processes(session).values())


@pytest.mark.needs("apptainer", "image")
def test_a_queued_server_waits_for_the_list_that_has_its_image(
    hub: RealHub, user: str, site: Any, rig: LocalRig, engines: Any, tmp_path: Path
) -> None:
    """A hub that was restarted cannot read it at first: that is no reason to refuse the job."""
    place, listed, aside = Path(engines["image"]), tmp_path / "images.yaml", tmp_path / "aside"
    listed.write_text(f"images: [{{name: listed, path: {place}}}]")
    source = {"from": "catalog", "file": str(listed), "repository": str(place.parent), "refresh": "2s"}
    hub.change_site({**site, "images": [*site["images"], source]})
    known(hub, user, "listed", "sandbox")
    rig.hold()
    hub.begin(user, {"image": "listed"})
    hub.reached("submitted", user)
    listed.rename(aside)
    hub.mark_log()
    hub.restart()
    rig.release()
    eventually(lambda: "a list of images cannot be read yet" in hub.new_log(), "the claim is put off", 60)
    aside.rename(listed)
    hub.ready(user, seconds=180)
