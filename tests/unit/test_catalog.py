"""The catalog over trees with the layouts of DUCC and OSG, on a healthy file system."""

import asyncio
import json
import logging
import os
import re
import time

import pytest

from hepspawner.catalog import catalog as catalog_module
from hepspawner.catalog import repository
from hepspawner.catalog.repository import Breaker, Repository, file_system_of, mount_points
from hepspawner.catalog.state import State, described, silence
from tests.rigs.cvmfs import trees
from tests.unit.catalogs import Watched

NAME = "{name}:{tag}"
WISHED = ["ghcr.io/atlas/ml-base:v1", "ghcr.io/atlas/ml-base:v2", "gitlab-p4n.aip.de:5005/c4p/stacks/wn:latest"]


@pytest.fixture
def tree(tmp_path):
    """A repository with a wish list, of whose images the second is not published."""
    for reference in (WISHED[0], WISHED[2]):
        trees.ducc(tmp_path, reference)
    trees.wishlist(tmp_path, WISHED)
    return tmp_path


@pytest.fixture
async def catalog():
    async with Watched() as one:
        yield one


def wishlist(tree, **keys):
    return {"from": "wishlist", "file": f"{tree}/recipe.yaml", "repository": str(tree), "name": NAME, **keys}


async def test_a_wish_list_over_duccs_layout(catalog, tree):
    before = time.time()
    catalog.use(wishlist(tree), {"name": "host", "prefix": "/usr"})
    assert [image.name for image in catalog.images] == ["host"], "what is written out is there at once"
    await catalog.stock()
    assert catalog.kinds() == {
        "ml-base:v1": "sandbox",
        "ml-base:v2": "not yet published",
        "wn:latest": "sandbox",
        "host": "prefix",
    }
    state = catalog.of("ml-base:v1")
    assert state.path == f"{tree}/{WISHED[0]}"
    assert state.digest == trees.digest_of(f"{WISHED[0]} 1")
    assert state.real == f"{tree}/.flat/{state.digest[:2]}/{state.digest}"
    assert state.published == pytest.approx(before, abs=600) and state.size == 3000
    assert before <= state.since <= state.at <= time.time() and state.ok and state.text == ""
    state = catalog.of("ml-base:v2")
    assert not state.ok and "not published yet" in state.text


async def test_osgs_layout_has_absolute_links(catalog, tmp_path):
    digest = trees.osg(tmp_path, str(tmp_path), "library/ubuntu:latest")
    trees.osg(tmp_path, str(tmp_path), "rootproject/root:6.30")
    trees.osg(tmp_path, str(tmp_path), "rootproject/root:6.32")
    (tmp_path / "docker_images.txt").write_text("ubuntu\nrootproject/root:6.*  # all\ngone/image\n")
    listed = {"from": "docker_images", "file": f"{tmp_path}/docker_images.txt", "repository": str(tmp_path)}
    catalog.use({**listed, "name": NAME})
    await catalog.stock()
    assert catalog.kinds() == {
        "ubuntu:latest": "sandbox",
        "image:latest": "not yet published",
        "root:6.30": "sandbox",
        "root:6.32": "sandbox",
    }
    state = catalog.of("ubuntu:latest")
    assert (state.digest, state.real) == (digest, f"{tmp_path}/.images/{digest[:2]}/{digest[2:]}")


async def test_a_directory_of_sifs_and_sandboxes(catalog, tmp_path):
    trees.sif(tmp_path / "one.sif", 5000)
    trees.sandbox(tmp_path / "two")
    trees.sandbox(tmp_path / "below/not-walked-into")
    (tmp_path / "README").write_text("not an image")
    (tmp_path / "dangling:v1").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    trees.sandbox(tmp_path / 'it\'s "quoted"')
    trees.sandbox(tmp_path / "new\nline")
    catalog.use(
        {"from": "directory", "directory": str(tmp_path), "group": "Mine", "title": "{name} {tag}", "name": NAME}
    )
    await catalog.stock()
    kinds = catalog.kinds()
    assert kinds == {
        "one": "sif",
        "two": "sandbox",
        "dangling:v1": "missing",
        "circle": "missing",
        "it-s--quoted-": "sandbox",
    }
    assert catalog.of("one").size == 5000 and catalog.of("one").published > 0
    assert catalog.of("circle").text == "does not exist (its links lead in a circle)"
    assert {image.group for image in catalog.images} == {"Mine"}
    (problem,) = catalog.problems
    assert "control characters" in problem and "\n" not in problem


async def test_where_images_are_is_known_at_once_and_anew_after_each_change(catalog, tree):
    catalog.use(wishlist(tree), {"name": "host", "prefix": "/usr"})
    assert catalog.roots() == {}
    await catalog.stock()
    assert catalog.roots() == {name: catalog.of(name).real for name in ("ml-base:v1", "wn:latest", "host")}
    moved = trees.ducc(tree, WISHED[0], "2")
    await catalog.look_again()
    assert catalog.roots()["ml-base:v1"].endswith(moved)


async def test_another_sites_catalog(catalog, tree):
    (tree / "images.yaml").write_text(f"images: [{{name: theirs, path: '{tree}/{WISHED[0]}', setup: evil}}]")
    catalog.use({"from": "catalog", "file": f"{tree}/images.yaml", "repository": str(tree), "tags": ["x"]})
    await catalog.stock()
    (image,) = catalog.images
    assert (image.name, image.setup, image.tags) == ("theirs", "", ["x"])
    assert catalog.of("theirs").kind == "sandbox"


async def test_what_becomes_of_images(catalog, tree):
    catalog.use(wishlist(tree))
    await catalog.stock()
    first = catalog.of("ml-base:v1")
    moved = trees.ducc(tree, WISHED[0], "2")
    trees.ducc(tree, WISHED[1])
    (tree / WISHED[2]).unlink()
    await catalog.look_again()
    state = catalog.of("ml-base:v1")
    assert state.digest == moved != first.digest and state.since == first.since
    assert catalog.kinds() == {"ml-base:v1": "sandbox", "ml-base:v2": "sandbox", "wn:latest": "vanished"}
    assert catalog.of("wn:latest").text == "is not there any more"


async def test_the_first_place_that_is_present(catalog, tree):
    trees.sif(tree / "x.sif")
    places = [f"{tree}/{WISHED[1]}", f"{tree}/{WISHED[0]}", f"{tree}/x.sif"]
    catalog.use({"name": "a", "path": places}, {"name": "b", "path": [f"{tree}/no", f"{tree}/none"]})
    await catalog.stock()
    assert catalog.of("a").path == places[1] and catalog.of("b").path == f"{tree}/no"
    trees.ducc(tree, WISHED[1])
    await catalog.look_again()
    assert catalog.of("a").path == places[0]


async def test_a_manifest_that_lies_is_noticed(catalog, tree, caplog):
    trees.ducc(tree, WISHED[0], told="f" * 64)
    (tree / ".metadata" / WISHED[2] / "manifest.json").write_text('{"config": ["not", "a", "manifest"]')
    catalog.use(wishlist(tree))
    await catalog.stock()
    await catalog.look_again()
    liar, broken = catalog.of("ml-base:v1"), catalog.of("wn:latest")
    assert liar.ok and "tells of another image, sha256:ffffffffffff" in liar.text
    assert liar.digest == trees.digest_of(f"{WISHED[0]} 1"), "what is run is what the link leads to"
    assert broken.ok and broken.text == "its manifest.json cannot be read"
    assert len([record for record in caplog.records if "manifest.json" in record.message]) == 2


async def test_a_list_that_breaks_keeps_what_it_found(catalog, tree, caplog):
    catalog.use(wishlist(tree), {"name": "host", "prefix": "/usr"})
    await catalog.stock()
    for rubbish in (b"\x7fELF\0\xff", b"input: [", b"input: []", b"[" * 9999):
        (tree / "recipe.yaml").write_bytes(rubbish)
        caplog.clear()
        await catalog.read_again()
        await catalog.read_again()
        assert len(catalog.images) == 4
        assert len(catalog.problems) == 1 and "its last good list" in catalog.problems[0]
        assert len(caplog.records) == 1 and "\n" not in caplog.records[0].message
    (tree / "recipe.yaml").unlink()
    await catalog.read_again()
    assert len(catalog.images) == 4 and "No such file" in catalog.problems[0]
    trees.wishlist(tree, WISHED[:1])
    await catalog.read_again()
    assert [image.name for image in catalog.images] == ["ml-base:v1", "host"] and catalog.problems == []


async def test_a_huge_list_is_refused_unread(catalog, tree):
    with (tree / "recipe.yaml").open("wb") as file:
        file.truncate(100 * 2**20)
    catalog.use(wishlist(tree), {"name": "host", "prefix": "/usr"})
    await catalog.settled()
    assert [image.name for image in catalog.images] == ["host"]
    (problem,) = catalog.problems
    assert problem.endswith("is larger than 20 MiB")


async def test_what_is_no_file_is_no_list(catalog, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "circle").symlink_to("circle")
    names = ("fifo", "circle", "", "gone")
    catalog.use({"name": "host", "prefix": "/usr"}, *(wishlist(tmp_path, file=f"{tmp_path}/{name}") for name in names))
    await catalog.settled()
    assert len(catalog.problems) == 4 and [image.name for image in catalog.images] == ["host"]


async def test_a_reading_process_that_is_killed(catalog, tree, monkeypatch):
    monkeypatch.setattr(catalog_module, "COMMAND", ["-c", "import os; os.kill(os.getpid(), 9)"])
    catalog.use(wishlist(tree), {"name": "host", "prefix": "/usr"})
    await catalog.settled()
    assert "ended early" in catalog.problems[0] and len(catalog.images) == 1


async def test_a_new_site_keeps_what_is_known(catalog, tree):
    catalog.use(wishlist(tree))
    await catalog.stock()
    known = catalog.of("ml-base:v1")
    catalog.use({"name": "host", "prefix": "/usr"}, wishlist(tree))
    assert catalog.of("ml-base:v1") == known and len(catalog.images) == 4
    catalog.use({"name": "host", "prefix": "/usr"})
    assert [image.name for image in catalog.images] == ["host"]
    await asyncio.sleep(0)
    assert sum(not task.done() for task in catalog.running) == 1


async def test_a_refresh_asks_the_file_system_once_for_each_image(catalog, tmp_path, monkeypatch):
    wished = [f"ghcr.io/atlas/image:{i}" for i in range(30)]
    for reference in wished:
        trees.ducc(tmp_path, reference)
    trees.wishlist(tmp_path, wished)
    catalog.use(wishlist(tmp_path))
    await catalog.stock()
    assert set(catalog.kinds().values()) == {"sandbox"}
    counted = tmp_path / "count.py"
    counted.write_text(
        "import os, runpy, sys\ncalls = []\n"
        "sys.addaudithook(lambda event, args: calls.append(event) if event in ('open', 'os.listdir') else None)\n"
        "for name in ('stat', 'lstat', 'readlink', 'access'):\n"
        "    def counting(*args, real=getattr(os, name), **more):\n"
        f"        str(args[0]).startswith({str(tmp_path)!r}) and calls.append(1)\n"
        "        return real(*args, **more)\n"
        "    setattr(os, name, counting)\n"
        f"os._exit = lambda code: open({str(tmp_path / 'count')!r}, 'w').write(str(calls.count(1)))\n"
        f"runpy.run_path({repository.probe._CHILD[1]!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(repository.probe, "_CHILD", ["-S", str(counted)])
    await catalog.look_again()
    assert (tmp_path / "count").read_text() == "30"
    assert set(catalog.kinds().values()) == {"sandbox"}


# --- where the hub does not look


async def test_where_only_nodes_look_they_tell(catalog, tree):
    catalog.use({"name": "a", "path": f"{tree}/{WISHED[1]}"}, {"name": "b", "path": "/b"}, probe="node")
    await catalog.stock()
    assert catalog.kinds() == {"a": "on the node", "b": "on the node"} and catalog.of("a").ok
    digest = trees.digest_of("x")
    catalog.told("a", f"{tree}/{WISHED[1]}", real=f"{tree}/.flat/{digest[:2]}/{digest}")
    assert catalog.of("a").digest == digest and catalog.of("a").text == "" and catalog.of("a").at > 0
    catalog.told("a", f"{tree}/{WISHED[1]}", "does not exist")
    state = catalog.of("a")
    assert state.ok, "another node may be well"
    assert re.fullmatch(r"a node said at \d\d:\d\d: does not exist", state.text)
    catalog.told("unknown", "/x", "does not exist")


async def test_where_nobody_looks(catalog):
    catalog.use({"name": "a", "path": "/a"}, {"name": "b", "oci": "docker.io/x/y"}, probe="none")
    await catalog.stock()
    assert catalog.of("a") == State("not looked at", "/a") and catalog.of("b").ok


# --- the breaker


def test_what_does_not_answer_is_left_alone_for_ever_longer():
    one = Breaker()
    one.failed(1000)
    assert (one.since, one.again) == (1000, 1060)
    one.failed(1060)
    assert (one.since, one.again) == (1000, 1180)
    for _ in range(20):
        one.failed(2000)
    assert (one.since, one.again) == (1000, 2600)
    one.answered()
    assert (one.since, one.again) == (0, 0)
    for _ in range(20):
        one.absent(3000)
    assert (one.since, one.again) == (0, 6600)


def test_what_hangs_together():
    mounts = ["/", "/home", "/home/users", "/cvmfs"]
    assert file_system_of("/cvmfs/unpacked.cern.ch/x/y:z", mounts) == "/cvmfs/unpacked.cern.ch"
    assert file_system_of("/home/users/a.sif", mounts) == "/home/users"
    assert file_system_of("/homes/a.sif", mounts) == "/"
    assert "/" in mount_points() and "/proc" in mount_points()


async def test_a_repository_that_does_not_exist_is_not_asked_again_and_again(monkeypatch, caplog):
    root = "/cvmfs/no-such-repository.test"
    one = Repository(root, logging.getLogger("hepspawner"))
    one.want([f"{root}/{i}" for i in range(10)])
    asked = []
    real = repository.probe.start

    async def counted(*args):
        asked.append(args)
        return await real(*args)

    monkeypatch.setattr(repository.probe, "start", counted)
    for _ in range(5):
        await one.look()
    assert len(asked) == 1 and len(caplog.records) == 1
    assert {seen.fact.text for seen in one.seen.values()} == {"does not exist"}
    assert all(seen.absent for seen in one.seen.values())


async def test_a_repository_that_was_there_is_not_mounted_just_now(monkeypatch, tree):
    real = repository.probe.start
    monkeypatch.setattr(repository.probe, "start", lambda paths, root: real(paths, str(tree)))
    image, aside = f"{tree}/{WISHED[0]}", tree.with_name("aside")
    one = Repository(str(tree), logging.getLogger("hepspawner"))
    one.want([image, f"{tree}/{WISHED[1]}"])
    await one.look()
    assert one.seen[image].fact.kind == "sandbox"
    tree.rename(aside)
    await one.look()
    assert one.silence() and {seen.why for seen in one.seen.values()} == {"it is not mounted"}
    assert one.seen[image].silent and not one.seen[image].absent, "it cannot be told whether it is gone"
    aside.rename(tree)
    one.breaker.again = 0.0
    await one.look()
    assert not one.silence() and not one.seen[image].silent


async def test_which_digests_an_image_is_known_by(catalog, tree):
    first, second = (trees.digest_of(f"{WISHED[0]} {version}") for version in "12")
    other, strange = trees.digest_of(f"{WISHED[2]} 1"), "ab" * 32
    catalog.use({"name": "a", "path": f"{tree}/{WISHED[0]}"}, {"name": "b", "path": f"{tree}/{WISHED[2]}"})
    await catalog.stock()
    trees.ducc(tree, WISHED[0], "2")
    await catalog.look_again()
    image = catalog.site.image("a")
    assert all(catalog.knows(image, digest, False, ["a"]) for digest in (first, second))
    assert not catalog.knows(image, strange, False, ["a"]) and catalog.knows(image, strange, True, ["a"])
    # what launchers say makes no image of another that is for others
    catalog.told("a", f"{tree}/{WISHED[0]}", real=f"{tree}/.flat/{other[:2]}/{other}")
    assert not catalog.knows(image, other, True, ["a"]) and catalog.knows(image, other, True, ["a", "b"])


async def test_a_node_leads_nobody_to_another_repository(catalog):
    secret = f"/cvmfs/secret.ch/.flat/ab/{'ab' * 32}"
    catalog.use({"name": "a", "path": "/cvmfs/u.ch/x:1"}, {"name": "b", "path": "/data/x"}, probe="node")
    for name, path in (("a", "/cvmfs/u.ch/x:1"), ("b", "/data/x")):
        catalog.told(name, path, real=secret)
        state = catalog.of(name)
        assert (state.real, state.digest, catalog.leads_to(path)) == ("", "", "")
    catalog.told("a", "/cvmfs/u.ch/x:1", real=f"/cvmfs/u.ch/.flat/ab/{'ab' * 32}")
    assert catalog.of("a").digest == "ab" * 32 and catalog.of("a").root == "", (
        "nothing is read where only a node saw it"
    )


def test_the_words_for_silence(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now = time.time() // 86400 * 86400 + 51720
    monkeypatch.setattr(time, "time", lambda: now + 60)
    assert silence("/cvmfs/u.ch/x", now) == "CVMFS does not answer since 14:22"
    assert State("no answer", "/cvmfs/u.ch/x", since=now).text == "CVMFS does not answer since 14:22"
    assert silence("/gpfs/x", now) == "its file system does not answer since 14:22"
    assert silence("/cvmfs/u.ch/x", 0) == "CVMFS does not answer"
    assert silence("/cvmfs/u.ch/x", 51720) == "CVMFS does not answer since 1970-01-01 14:22"


def test_a_state_as_data():
    data = described(State("no answer", "/cvmfs/u.ch/x"))
    assert json.loads(json.dumps(data))["state"] == "no answer" and data["age"] is data["digest"] is None
