"""What packages images have: read by a child, kept small, searched."""

import asyncio
import json
import logging
import os
import random
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.version import Version

from hepspawner.catalog import child, inside, packages
from hepspawner.catalog.inside import packages_of
from hepspawner.catalog.packages import Index, Packages
from hepspawner.catalog.search import holds, parse

LOG = logging.getLogger("test")
PATIENCE = 60  # seconds that a test waits for what has to happen; not spent where it does


# --- what is in an image


def test_the_list_of_an_image(tmp_path):
    (tmp_path / "list-of-pkgs-inside.txt").write_text(
        "torch 2.5.1\nnumpy 1.26.4\n\nnumpy 1.26.4\r\n_libgcc_mutex 0.1\n# a remark\nno-version\n<b>x</b> 1.0\n"
        "evil $(reboot)\nsix\t1.16.0 extra\nroot 6.30.04\n" + "n" * 500 + " 1\n"
    )
    assert packages_of(str(tmp_path)) == [
        ("torch", "2.5.1"), ("numpy", "1.26.4"), ("_libgcc_mutex", "0.1"), ("six", "1.16.0"), ("root", "6.30.04"),
    ]  # fmt: skip


def installed(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()


def test_what_conda_and_pip_noted(tmp_path):
    python = "opt/conda/lib/python3.11/site-packages"
    installed(
        tmp_path,
        "opt/conda/conda-meta/root_base-6.30.4-py311h_1.json",
        "opt/conda/conda-meta/ca-certificates-2024.8.30-hbcca054_0.json",
        "opt/conda/conda-meta/history",
        "opt/conda/conda-meta/nonsense.json",
        f"{python}/torch-2.5.1+cu124.dist-info/METADATA",
        f"{python}/scikit_learn-1.5.2.dist-info/METADATA",
        f"{python}/old-1.0-py3.11.egg-info/PKG-INFO",
        f"{python}/torch/version.py",
        "usr/lib/python3/dist-packages/six-1.16.0.dist-info/METADATA",
    )
    assert sorted(packages_of(str(tmp_path))) == [
        ("ca-certificates", "2024.8.30"), ("old", "1.0"), ("root_base", "6.30.4"), ("scikit-learn", "1.5.2"),
        ("six", "1.16.0"), ("torch", "2.5.1+cu124"),
    ]  # fmt: skip


def test_an_image_that_says_nothing(tmp_path):
    assert packages_of(str(tmp_path)) == packages_of(str(tmp_path / "gone")) == packages_of("/etc/passwd") == []


@pytest.mark.parametrize("kind", ["rubbish", "huge", "endless line", "pipe", "directory", "cycle"])
def test_a_list_that_is_none_gives_way_to_conda(tmp_path, kind):
    installed(tmp_path, "conda-meta/six-1.16.0-py_0.json")
    path = tmp_path / "list-of-pkgs-inside.txt"
    if kind == "rubbish":
        path.write_bytes(random.Random(1).randbytes(100_000))
    elif kind == "huge":
        path.write_bytes(b"numpy 1.0\n" * 10)
        os.truncate(path, 100 << 20)
    elif kind == "endless line":
        path.write_bytes(b"x" * (1 << 20))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(path.name)
    assert packages_of(str(tmp_path)) == [("six", "1.16.0")]


def test_links_lead_nowhere_out_of_an_image(tmp_path):
    (tmp_path / "secret").write_text("secret 1.0\n")
    image = tmp_path / "image"
    image.mkdir()
    (image / "list-of-pkgs-inside.txt").symlink_to("../secret")
    assert packages_of(str(image)) == []
    (image / "list-of-pkgs-inside.txt").unlink()
    (image / "list-of-pkgs-inside.txt").symlink_to(tmp_path / "secret")
    assert packages_of(str(image)) == []
    # inside of it they are what they are in the container
    installed(image, "sw/conda/conda-meta/six-1.16.0-py_0.json")
    (image / "opt").mkdir()
    (image / "opt/conda").symlink_to("/sw/conda")
    assert packages_of(str(image)) == [("six", "1.16.0")]


def test_no_list_is_longer_than_what_the_hub_reads(tmp_path):
    (tmp_path / "list-of-pkgs-inside.txt").write_text("".join(f"{'p' * 60}{i} {'1' * 50}.{i}\n" for i in range(15_000)))
    found = packages_of(str(tmp_path))
    assert len(found) == 5000
    assert len(json.dumps([str(tmp_path), found])) < child._MAX_LINE


# --- by a child


async def test_images_are_read_once(tmp_path, monkeypatch):
    for name in ("a", "b"):
        installed(tmp_path / name, f"conda-meta/{name}-1.0-0.json")
    known = Packages(LOG)
    a, b, gone = (str(tmp_path / name) for name in ("a", "b", "gone"))
    await known.follow([a, b, gone])
    assert known.index.packages(a) == [("a", "1.0")] and known.index.knows(b) and not known.index.knows(gone)
    monkeypatch.setattr(inside.sys, "executable", "/nowhere")  # nothing is left to read
    await known.follow([b, gone])
    assert known.index.roots() == [b, gone]
    assert known.index.search(parse("a"), []) == {}


async def test_an_image_that_hangs_holds_nothing_up(tmp_path, monkeypatch, caplog):
    """The child is real; what it is run on stops at one image."""
    for name in ("a", "b", "c"):
        installed(tmp_path / name, f"conda-meta/{name}-1.0-0.json")
    hanging = tmp_path / "hanging.py"
    hanging.write_text(
        f"import sys, time\nsys.path.insert(0, {os.path.dirname(inside.__file__)!r})\nimport inside\n"
        "real = inside.packages_of\n"
        "inside.packages_of = lambda root: time.sleep(1000) if root.endswith('/b') else real(root)\ninside.main()\n"
    )
    monkeypatch.setattr(inside, "__file__", str(hanging))
    monkeypatch.setattr(packages, "_DEADLINE", 6.0)
    monkeypatch.setattr(packages, "file_system_of", lambda path, mounts: path)
    known = Packages(LOG)
    roots = [str(tmp_path / name) for name in ("a", "b", "c")]
    await asyncio.wait_for(known.follow(roots), PATIENCE)
    assert known.index.roots() == [roots[0], roots[2]]
    (record,) = caplog.records
    assert "does not answer" in record.message and roots[1] in record.message
    monkeypatch.setattr(inside.sys, "executable", "/nowhere")  # it is left alone for a while
    await known.follow(roots)


async def test_a_sick_file_system_is_asked_again_later(tmp_path, monkeypatch, caplog):
    sick = tmp_path / "sick.py"
    sick.write_text(
        "import sys, json\nfor root in json.loads(sys.stdin.readline()): print(json.dumps([root, None]), flush=True)\n"
    )
    monkeypatch.setattr(inside, "__file__", str(sick))
    known = Packages(LOG)
    await asyncio.wait_for(known.follow(["/cvmfs/a/1"]), PATIENCE)
    assert known.index.roots() == [] and len(caplog.records) == 1
    monkeypatch.undo()
    monkeypatch.setattr(packages, "_PAUSE", 0.0)
    installed(tmp_path / "a", "conda-meta/a-1.0-0.json")
    await known.follow([str(tmp_path / "a")])
    assert known.index.knows(str(tmp_path / "a"))


async def test_a_child_that_cannot_be_killed_is_not_joined_by_others(tmp_path, monkeypatch):
    """No process can be made to outlive its kill here: this one only says so."""
    silent = tmp_path / "silent.py"
    silent.write_text("import time\ntime.sleep(1000)\n")
    monkeypatch.setattr(inside, "__file__", str(silent))
    monkeypatch.setattr(packages, "_DEADLINE", 0.1)
    monkeypatch.setattr(packages, "_PAUSE", 0.0)
    started, stuck = [], True
    start = packages.Child.start
    monkeypatch.setattr(packages.Child, "stuck", property(lambda self: stuck))
    monkeypatch.setattr(packages.Child, "start", lambda argv, asked: started.append(asked) or start(argv, asked))
    known = Packages(LOG)
    a, b = "/cvmfs/a/1", "/cvmfs/b/1"
    await known.follow([a])
    await known.follow([a, b])
    await known.follow([a, b])
    assert started == [[a], [b]]
    stuck = False
    await known.follow([a])
    assert started == [[a], [b], [a]]


async def test_no_room_for_a_process_is_told_and_nothing_is_lost(tmp_path, monkeypatch):
    installed(tmp_path / "a", "conda-meta/a-1.0-0.json")
    known, root = Packages(LOG), str(tmp_path / "a")
    with monkeypatch.context() as full:
        full.setattr(inside.sys, "executable", "/nowhere")
        with pytest.raises(OSError):
            await known.follow([root])
    await known.follow([root])
    assert known.index.knows(root)


@pytest.mark.parametrize("talk", ["nonsense", "", '["/x"]', "[]", "5", '["/x", [["a"]]]'])
async def test_a_child_that_talks_nonsense_tells_nothing(tmp_path, monkeypatch, talk):
    talker = tmp_path / "talker.py"
    talker.write_text(f"import sys\nsys.stdin.readline()\nprint({talk!r})\n")
    monkeypatch.setattr(inside, "__file__", str(talker))
    known = Packages(LOG)
    await asyncio.wait_for(known.follow(["/x"]), PATIENCE)
    assert known.index.roots() == []


# --- search

IMAGES = {
    "gpu": [("torch", "2.5.1"), ("torchvision", "0.20.1"), ("numpy", "2.1.3"), ("python", "3.11.9")],
    "cpu": [("torch", "2.4.1"), ("pytorch", "2.4.1"), ("numpy", "1.26.4"), ("python", "3.9.19")],
    "root": [("root", "6.30.04"), ("root_base", "6.30.4"), ("uproot", "5.0.1"), ("numpy", "1.24.0")],
    "old": [("root", "6.26.10"), ("openssl", "1.1.1w"), ("tzdata", "2024b")],
    "bare": [],
}
TEXTS = {"gpu": "ml with pytorch cuda", "cpu": "ml base alma9", "root": "root for all", "old": "alma8", "bare": "alma9"}


def found(query):
    index = Index()
    for name, listed in IMAGES.items():
        index.add(f"/{name}", listed)
    return index.search(parse(query), [(name, f"/{name}", TEXTS[name]) for name in IMAGES] + [("away", "", "alma9")])


@pytest.mark.parametrize(
    "query, expected",
    [
        ("torch", {"gpu": ["torch 2.5.1", "torchvision 0.20.1"], "cpu": ["torch 2.4.1"]}),
        ("torch 2.5", {"gpu": ["torch 2.5.1"]}),
        ("torch 2.4", {"cpu": ["torch 2.4.1"]}),
        ("Torch 2", {"gpu": ["torch 2.5.1"], "cpu": ["torch 2.4.1"]}),
        ("torch 2.50", {}),
        ("root>=6.30", {"root": ["root 6.30.04"]}),
        ("root >= 6.30", {"root": ["root 6.30.04"]}),
        ("root 6.30.4", {"root": ["root 6.30.04"]}),
        ("root-base<7", {"root": ["root_base 6.30.4"]}),
        ("numpy<2", {"cpu": ["numpy 1.26.4"], "root": ["numpy 1.24.0"]}),
        ("numpy>=1.25,<2", {"cpu": ["numpy 1.26.4"]}),
        ("numpy<2 torch", {"cpu": ["numpy 1.26.4", "torch 2.4.1"]}),
        ("numpy<2 alma9", {"cpu": ["numpy 1.26.4"]}),
        ("alma9", {"cpu": [], "bare": [], "away": []}),
        ("openssl>=1.1.1t", {"old": ["openssl 1.1.1w"]}),
        ("tzdata==2024b", {"old": ["tzdata 2024b"]}),
        ("root>=", {"root": ["root 6.30.04", "root_base 6.30.4"], "old": ["root 6.26.10"]}),
        ("python 3.11", {"gpu": ["python 3.11.9"]}),
        ("xyzzy", {}),
    ],
)
def test_what_is_found(query, expected):
    assert found(query) == expected


@given(st.text(max_size=300))
@example("torch ==")
@example("a" + 190 * "=" + "~")
@example("a" + 66 * "==~")
@example("<<<>>>== ~= ,,")
@example("a>=1.0.*")
@example("root>=6..")
@example("numpy>1e999999999")
def test_whatever_is_typed_is_searched(query):
    assert set(found(query)) <= {*IMAGES, "away"}


@given(
    st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}((a|b|rc|\.post|\.dev)[0-9]{1,2})?", fullmatch=True),
    st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}", fullmatch=True),
)
def test_versions_compare_as_those_of_python(one, other):
    assert holds(one, ">=", other) == (Version(one) >= Version(other))
    assert holds(one, "==", other) == (Version(one) == Version(other))
    assert holds(one, "<", other) + holds(one, ">=", other) <= 1


@given(
    st.text(max_size=30), st.sampled_from(["=", "==", "===", "!=", ">=", "<=", ">", "<", "~="]), st.text(max_size=30)
)
def test_no_version_is_an_error(version, operator, wanted):
    assert holds(version, operator, wanted) in (True, False)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), max_size=30))
def test_the_index_forgets_what_it_is_told_to(steps):
    index, expected = Index(), {}
    for root, there in steps:
        if there and root not in index:
            expected[root] = [("common", "1.0"), (f"only-{root}", "2.0")]
            index.add(root, expected[root])
        elif not there and root in index:
            index.forget(root)
            del expected[root]
        everywhere = [(one, one, "") for one in "abcde"]
        assert set(index.search(parse("common"), everywhere)) == set(expected)
        assert {root: index.packages(root) for root in expected} == expected
        assert set(index.search(parse("only-a"), everywhere)) == {"a"} & set(expected)


def test_two_thousand_images_stay_small():
    dice = random.Random(1)
    names = [(f"package-{i}", f"{i % 9}.{minor}") for i in range(2000) for minor in range(10)]
    tracemalloc.start()
    index = Index()
    for i in range(2000):
        index.add(f"/images/{i}", [*dice.sample(names, 300)])
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(index) == 2000
    assert used < 30e6


def test_hostile_lists_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(packages, "_MAX_PAIRS", 10)
    index = Index()
    for i in range(10):
        index.add(f"/{i}", [(f"p{i}-{j}", "1") for j in range(5)])
    assert sum(len(index.packages(f"/{i}")) for i in range(10)) == 10


def test_no_package_takes_the_place_of_all():
    """20 images that list thousands of versions, each their own, neither slow a search nor shut others out."""
    index = Index()
    for i in range(20):
        index.add(f"/{i}", [("numpy", f"{i}.{j}") for j in range(5000)])
    index.add("/good", [("torch", "2.5.1")])
    assert index.left_out and len(index.search(parse("numpy"), [(f"{i}", f"/{i}", "") for i in range(20)])) == 1
    assert index.search(parse("torch 2.5"), [("good", "/good", "")]) == {"good": ["torch 2.5.1"]}
    for i in range(20):
        index.forget(f"/{i}")
    index.add("/later", [("numpy", "2.1.3")])
    assert index.search(parse("numpy 2.1"), [("later", "/later", "")]) == {"later": ["numpy 2.1.3"]}
    assert index.packages("/later") == [("numpy", "2.1.3")] and index.packages("/good") == [("torch", "2.5.1")]


async def test_what_is_left_out_is_told_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(packages, "_MAX_VERSIONS", 1)
    roots = [str(tmp_path / name) for name in "abc"]
    for i, root in enumerate(roots):
        installed(tmp_path / root, f"conda-meta/six-1.{i}-0.json")
    known = Packages(LOG)
    await known.follow(roots)
    assert known.index.roots() == roots
    (record,) = caplog.records
    assert "too many versions" in record.message and roots[1] in record.message


async def test_others_have_their_turn_while_many_are_forgotten():
    known, turns = Packages(LOG), []
    for i in range(50):
        known.index.add(f"/{i}", [("numpy", "1.0")])
    forgetting = asyncio.ensure_future(known.follow([]))
    while not forgetting.done():
        turns.append(len(known.index))
        await asyncio.sleep(0)
    assert len(turns) >= 50 and not known.index.roots()
