"""What the launcher makes of an image's places: the real directory, its digest, and why one is no image."""

import os
import socket

import pytest

from tests.node.test_launcher import HANGING, LAUNCHER, PYTHON, Node, eventually, run_to_end, serve

DIGEST = "8e" + 62 * "1"
PLACE = r"/\.(?:flat/[0-9a-f]{2}/|images/)([0-9a-f]{2}/?[0-9a-f]{10,126})$"
SAY = "import sys; print(sys.argv[1:])"


@pytest.fixture(name="node")
def a_node(tmp_path):
    one = Node(tmp_path)
    yield one
    one.close()


@pytest.fixture
def repository(node):
    """A repository in DUCC's layout, with one image and its tag."""
    root = node.path / "cvmfs"
    (root / ".flat/8e" / DIGEST / "usr").mkdir(parents=True)
    (root / "ghcr.io/x").mkdir(parents=True)
    (root / "ghcr.io/x/base:v1").symlink_to(f"../../.flat/8e/{DIGEST}")
    return root


def says(node, image, argv):
    """What a server is started with that is given `argv`; the report of its start and the hub."""
    order = node.order(SAY, image={"digest": PLACE, **image})
    order["argv"] += argv
    hub = node.hub(order)
    assert node.launch(hub).ended() == 0
    return hub.events("exit")[0]["log"].split("\n")[-1], hub.events("starting")[0]


def test_the_image_is_the_real_directory_behind_its_tag(node, repository):
    tag, real = str(repository / "ghcr.io/x/base:v1"), str(repository / ".flat/8e" / DIGEST)
    conditions = [
        {"when": "@IMAGE@/usr", "unless": "@IMAGE@/opt", "argv": ["there"]},
        {"when": "@IMAGE@/no", "argv": ["no"]},
    ]
    said, report = says(node, {"places": [tag]}, ["@IMAGE@", "@DIGEST@", *conditions])
    assert said == str([real, DIGEST, "there"])
    assert (report["place"], report["real"], report["notes"]) == (tag, real, [])
    assert report["images"] == [[tag, "sandbox", real]]


def test_the_first_place_that_is_there_is_taken_and_told(node, repository):
    gone, tag, other = str(repository / "gone:v1"), str(repository / "ghcr.io/x/base:v1"), str(node.path)
    said, report = says(node, {"places": [gone, tag, other]}, ["@IMAGE@"])
    assert said == str([os.path.realpath(tag)])
    assert report["notes"] == [f"image taken from {tag}: {gone} does not exist on {socket.gethostname()}"]
    assert report["images"][:2] == [[gone, "missing", ""], [tag, "sandbox", os.path.realpath(tag)]]


def test_a_sif_without_a_digest(node):
    sif = node.path / "a.sif"
    sif.write_bytes(32 * b"#" + b"SIF_MAGIC" + 100 * b"x")
    said, report = says(node, {"places": [str(sif)]}, ["@IMAGE@", "<@DIGEST@>"])
    assert said == str([str(sif), "<>"])
    assert report["images"] == [[str(sif), "sif", str(sif)]]


@pytest.mark.parametrize(
    "kind, complaint",
    [
        ("missing", " does not exist on "),
        ("dangling", " does not exist on "),
        ("loop", ": Too many levels of symbolic links on "),
        ("file", " is not an image: neither a SIF nor the root directory of a system, on "),
        ("empty", " is not an image: neither a SIF nor the root directory of a system, on "),
    ],
)
def test_why_an_image_is_none(node, repository, kind, complaint):
    path, tag = node.path / "image", str(repository / "ghcr.io/x/base:v1")
    if kind == "file":
        path.write_text("text")
    elif kind == "empty":
        path.mkdir()
    elif kind != "missing":
        path.symlink_to("nowhere" if kind == "dangling" else "image")
    status, end, hub = run_to_end(node, "pass", image={"places": [str(path)], "also": [tag], "digest": PLACE})
    assert (status, end["code"], end["reason"], end["seconds"]) == (1, None, "missing", 0)
    assert end["message"] == f"image {path}{complaint}{socket.gethostname()}"
    assert end["images"][1] == [tag, "sandbox", os.path.realpath(tag)]
    assert hub.events("starting") == []


def test_a_place_that_hangs_is_passed_over(node, repository):
    tag = str(repository / "ghcr.io/x/base:v1")
    order = node.order(SAY, image={"places": ["/hanging", tag], "digest": PLACE})
    order["argv"] += ["@IMAGE@"]
    hub = node.hub(order)
    run = node.launch(hub, argv=[PYTHON, "-c", HANGING, str(LAUNCHER), str(node.path / "asked"), "0.3"])
    assert run.ended() == 0
    (report,) = hub.events("starting")
    assert report["images"][0] == ["/hanging", "no answer", ""] and report["place"] == tag


PULLS = """
import os, sys, time
print("INFO:    Converting OCI blobs to SIF format", file=sys.stderr, flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
"""


def test_what_is_said_of_a_pull_is_reported(node):
    hub = node.hub(node.order(PULLS + serve(), image={"pull": "docker://ghcr.io/x/y:z"}))
    run = node.launch(hub)
    (report,) = eventually(lambda: hub.events("pulling"), "the pull is told")
    assert report["text"] == "Converting OCI blobs to SIF format"
    (node.work / "go").touch()
    eventually(lambda: hub.events("ready"), "ready")
    run.stop()
    run.ended()
