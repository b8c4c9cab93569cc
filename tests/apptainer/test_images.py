"""Servers from images in the layouts of CVMFS, through the real Apptainer as an ordinary user: what runs is what the
tag led to at the start, and it is told, kept and started again."""

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apptainer.kernels import kernels, run_cell
from tests.apptainer.registry import small_image
from tests.hubs import pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("apptainer", "image", "hub6")

TINY = Path(__file__).parents[1] / "tiny_server.py"
OLD, NEW, OSG = "8e" + 62 * "1", "99" + 62 * "a", "ab" + 62 * "c"
TAG = "registry.example.org:5005/physics/ml-base:alma9-python311"
CELL = """
import json, os, sys
print(json.dumps({"env": dict(os.environ), "prefix": sys.prefix, "uid": os.getuid()}))
"""


class Tree:
    """Repositories in the layouts of DUCC and of OSG, with real images: a copy of one by hard links, and small ones."""

    def __init__(self, image: str, layer: bytes):
        self.top = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="hepspawner-cvmfs-"))
        self.top.chmod(0o755)
        self.ducc, self.osg = self.top / "unpacked", self.top / "osg"
        self.tag = self.ducc / TAG
        _copy(image, self.flat(OLD))
        self.tag.parent.mkdir(parents=True)
        self.point(OLD)
        for folder in (self.flat(NEW), self.osg / ".images" / OSG[:2] / OSG[2:]):
            with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
                archive.extractall(folder)
        (self.osg / "physics").mkdir()
        (self.osg / "physics/ml-base:latest").symlink_to(self.osg / ".images" / OSG[:2] / OSG[2:])

    def flat(self, digest: str) -> Path:
        return self.ducc / ".flat" / digest[:2] / digest

    def point(self, digest: str) -> None:
        """The tag is moved, at once as CVMFS does."""
        new = self.tag.with_name("new")
        new.symlink_to(f"../../.flat/{digest[:2]}/{digest}")
        new.rename(self.tag)


def _copy(image: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["cp", "-al", image, target], capture_output=True).returncode:  # another file system
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(["cp", "-a", image, target], check=True)


@pytest.fixture(scope="module")
def tree(engines: dict[str, Any]) -> Iterator[Tree]:
    one = Tree(os.path.realpath(engines["image"]), small_image(engines, TINY))
    yield one
    shutil.rmtree(one.top)


@pytest.fixture(scope="module")
def hub(engines: dict[str, Any], tree: Tree) -> Iterator[RealHub]:
    """A hub whose own environment is full of what must not get into an image."""
    quick = {"command": ["/usr/bin/python3", str(TINY), "serve"], "mounts": [str(TINY.parent)]}
    images = [
        {"name": "lab", "path": str(tree.tag), "jupyter_path": "/opt/conda/share/jupyter"},
        {"name": "osg", "path": str(tree.osg / "physics/ml-base:latest"), "command": ["jupyterhub-singleuser"]},
        {"name": "sif", "path": engines["sif"]},
        {"name": "quick", "path": [str(tree.ducc / "gone/ml-base:v1"), str(tree.tag)], **quick},
    ]
    here = {"type": "local", "apptainer": engines["apptainer"]}
    site = {"images": images, "backends": {"here": here, "node": {**here, "probe": "node"}}, "mounts": []}
    leaks = {"PYTHONPATH": "/leaks/of/the/host", "JUPYTER_PATH": "/leaks/jupyter", "LD_LIBRARY_PATH": "/leaks/lib"}
    before = dict(os.environ)
    os.environ.update(leaks, PATH=f"{os.environ['PATH']}:/leaks/bin")
    one = RealHub(engines["hub6"], site)
    try:
        yield one.start()
    finally:
        one.stop()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def user(engines: dict[str, Any], hub: RealHub) -> Iterator[str]:
    name = engines["users"][0] if engines["users"] else "alice"
    yield name
    hub.stop_servers()
    hub.gone(name)


def told(hub: RealHub, user: str) -> dict[str, Any]:
    """What the user is told of his server by the API."""
    answer = hub.api("GET", "/hepspawner/servers", token=hub.user_token(user)).json()
    return dict(next(iter(answer["servers"]), {}))


def test_a_server_stays_with_what_its_tag_led_to_at_the_start(hub: RealHub, tree: Tree, user: str) -> None:
    hub.start_server(user, {"image": "lab", "backend": "here"})
    hub.ready(user)
    seen = json.loads(run_cell(hub, user, CELL))
    environment = seen["env"]
    assert environment["HEPSPAWNER_IMAGE"] == "lab"
    assert environment["HEPSPAWNER_IMAGE_DIGEST"] == OLD
    assert environment["HEPSPAWNER_IMAGE_PATH"] == environment["APPTAINER_CONTAINER"] == str(tree.flat(OLD))
    assert seen["prefix"] == "/opt/conda" and (os.getuid() or seen["uid"])
    assert environment["PATH"].startswith("/opt/conda/bin:")
    assert "/leaks" not in json.dumps(environment)
    assert kernels(hub, user) == ["ML-Python3"]

    state = hub.state(user)
    assert (state["image"]["name"], state["image"]["digest"]) == ("lab", OLD)
    assert told(hub, user) == {
        "server": "",
        "image": "lab",
        "digest": OLD,
        "pinned": f"lab@{OLD}",
        "place": str(tree.tag),
        "path": str(tree.flat(OLD)),
        "newer": None,
        "note": "",
    }
    person = hub.browser(user)
    assert OLD[:12] in person.get("/hub/home").text

    tree.point(NEW)
    try:
        hub.restart()  # so that it looks at once, not in a minute; it knows what runs
        hub.ready(user)
        eventually(lambda: told(hub, user).get("newer") == NEW, "the user is told that the tag was moved")
        page = person.get("/hub/home").text
        assert f"a newer image is there ({NEW[:12]})" in page
        hub.stop_server(user)
        hub.gone(user)

        form = person.form().text
        assert f'value="lab@{OLD}"' in form and OLD[:12] in form
        hub.start_server(user, {"image": f"lab@{OLD}", "backend": "here"})
        hub.ready(user)
        assert json.loads(run_cell(hub, user, CELL))["env"]["HEPSPAWNER_IMAGE_DIGEST"] == OLD
        assert (told(hub, user)["image"], told(hub, user)["newer"]) == ("lab", NEW)
    finally:
        tree.point(OLD)


def test_an_image_that_was_removed_cannot_be_started_again(hub: RealHub, tree: Tree, user: str) -> None:
    gone = "8e" + 62 * "7"
    (tree.flat(gone) / "usr").mkdir(parents=True)
    tree.point(gone)
    hub.restart()  # so that it looks now
    listed = lambda: hub.api("GET", "/hepspawner/images/lab", token=hub.user_token(user)).json()  # noqa: E731
    eventually(lambda: listed()["digest"] == gone, "the hub sees it")
    tree.point(OLD)
    shutil.rmtree(tree.flat(gone))
    answer = hub.start_server(user, {"image": f"lab@{gone}", "backend": "here"})
    assert answer.status_code == 400
    assert f"lab@{gone[:12]}: this image is not there any more; there is today: lab@{OLD}" in answer.json()["message"]
    # where only the node can see it, it is the node that says it
    hub.begin(user, {"image": f"lab@{gone}", "backend": "node"})
    hub.gone(user)
    page = eventually(lambda: (text := hub.browser(user).form().text).count("any more") and text, "it is told")
    assert f"there is today: lab@{OLD}" in page


@pytest.mark.needs("sif")
def test_a_cell_runs_in_a_sif(hub: RealHub, engines: dict[str, Any], user: str) -> None:
    hub.start_server(user, {"image": "sif", "backend": "here"})
    hub.ready(user)
    seen = json.loads(run_cell(hub, user, CELL))
    environment = seen["env"]
    assert seen["prefix"] == "/opt/conda"
    assert environment["HEPSPAWNER_IMAGE_PATH"] == os.path.realpath(engines["sif"])
    assert environment["HEPSPAWNER_IMAGE_DIGEST"] == ""
    assert "/leaks" not in json.dumps(environment)


def test_the_directory_of_osgs_layout_has_its_digest(hub: RealHub, tree: Tree, user: str) -> None:
    hub.start_server(user, {"image": "osg", "backend": "here"})
    hub.ready(user)
    environment = hub.server_get(user, "facts").json()["environment"]
    assert environment["HEPSPAWNER_IMAGE_PATH"] == str(tree.osg / ".images" / OSG[:2] / OSG[2:])
    assert environment["HEPSPAWNER_IMAGE_DIGEST"] == OSG


def test_the_node_takes_the_first_place_that_is_there(hub: RealHub, tree: Tree, user: str) -> None:
    hub.start_server(user, {"image": "quick", "backend": "here"})
    hub.ready(user)
    note = f"image taken from {tree.tag}: {tree.ducc}/gone/ml-base:v1 does not exist"
    home = hub.server_get(user, "facts").json()["environment"]["HOME"]
    assert note in Path(home, ".local/state/hepspawner/server.log").read_text(), "also where the hub looks itself"
    hub.stop_server(user)
    hub.gone(user)
    hub.start_server(user, {"image": "quick", "backend": "node"})
    hub.ready(user)
    assert told(hub, user)["place"] == str(tree.tag)
    assert hub.server_get(user, "facts").json()["environment"]["HEPSPAWNER_IMAGE_PATH"] == str(tree.flat(OLD))
    listed = hub.api("GET", "/hepspawner/images/quick", token=hub.user_token(user)).json()
    assert listed["state"] == "sandbox"  # as the node told
