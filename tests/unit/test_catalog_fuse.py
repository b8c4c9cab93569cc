"""The catalog over a real FUSE file system that is sick: nothing waits for it, and what it does is told."""

import asyncio
import errno
import os
import sys
import time
from pathlib import Path

import pytest

from hepspawner.catalog import catalog as catalog_module
from hepspawner.catalog import repository as repository_module
from hepspawner.catalog.probe import look
from hepspawner.cli import main
from tests.cvmfs import Repository
from tests.rigs.cvmfs import trees
from tests.unit.catalogs import PATIENCE, Watched

pytestmark = pytest.mark.needs("fuse")

REFERENCES = [f"ghcr.io/atlas/base:v{i}" for i in range(5)]


@pytest.fixture(scope="module")
def cvmfs():
    """A repository with images and their wish list."""
    with Repository() as one:
        for reference in REFERENCES:
            trees.ducc(one.source, reference)
        trees.wishlist(one.source, REFERENCES)
        trees.sif(one.source / "image.sif")
        yield one


@pytest.fixture(autouse=True)
def _well_again(cvmfs):
    yield
    cvmfs.is_sick("")


@pytest.fixture
async def catalog(monkeypatch):
    """One that soon tries again what did not answer."""
    monkeypatch.setattr(repository_module, "_LONGEST_PAUSE", 0.0)
    async with Watched() as one:
        yield one


@pytest.fixture
def hang(cvmfs, monkeypatch):
    """Makes the repository hang, and catalogs impatient."""

    def begin(how="hang"):
        monkeypatch.setattr(repository_module, "SILENCE", 1.0)
        monkeypatch.setattr(catalog_module, "_READ_SILENCE", 2.0)
        cvmfs.is_sick(how)

    return begin


def wishlist(cvmfs):
    place = {"file": f"{cvmfs.root}/recipe.yaml", "repository": str(cvmfs.root)}
    return {"from": "wishlist", **place, "name": "{name}:{tag}"}


def children_of(parent):
    """The processes that look at paths for a process."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and b"examine.py" in (entry / "cmdline").read_bytes():
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                found |= {int(entry.name)} if int(ppid) == parent and state != "Z" else set()
        except OSError:
            continue
    return found


async def test_all_is_well_at_first(catalog, cvmfs):
    catalog.use(wishlist(cvmfs), {"name": "sif", "path": f"{cvmfs.root}/image.sif"})
    await catalog.stock()
    assert set(catalog.kinds().values()) == {"sandbox", "sif"} and len(catalog.images) == 6
    assert catalog.problems == []


async def test_a_repository_that_begins_to_hang(catalog, cvmfs, hang, caplog):
    caplog.set_level("INFO")
    catalog.use(wishlist(cvmfs), {"name": "host", "prefix": "/usr"})
    await catalog.stock()
    digest = catalog.of("base:v1").digest
    hang()
    await catalog.look_again()
    state = catalog.of("base:v1")
    assert state.kind == "no answer" and state.ok and " does not answer since " in state.text
    assert state.digest == digest, "what was known is still told"
    assert catalog.of("host").kind == "prefix"
    await catalog.look_again()  # nobody waits for the children that hang, in D state
    assert any("does not answer since" in text for text in catalog.problems)
    assert len([r for r in caplog.records if "does not answer" in r.message]) == 1
    cvmfs.is_sick("")
    # a child that is let go tells that it is well again
    await catalog.until(lambda: catalog.of("base:v1").kind == "sandbox")
    assert "answers again" in caplog.text and catalog.problems == []


async def test_one_that_hangs_from_the_start_keeps_nothing_else_away(catalog, cvmfs, hang, tmp_path):
    hang()
    trees.sandbox(tmp_path / "here")
    catalog.use(
        {"name": "there", "path": f"{cvmfs.root}/{REFERENCES[0]}"},
        {"name": "here", "path": [f"{cvmfs.root}/{REFERENCES[0]}", f"{tmp_path}/here"]},
        wishlist(cvmfs),
        {"name": "host", "prefix": "/usr"},
    )
    await catalog.stock()
    await catalog.until(lambda: catalog.kinds() == {"there": "no answer", "here": "sandbox", "host": "prefix"})
    assert catalog.of("here").path == f"{tmp_path}/here"
    assert any("wishlist" in text and "does not answer" in text for text in catalog.problems)


async def test_the_children_that_hang_are_few(catalog, cvmfs, hang):
    catalog.use({"name": "there", "path": f"{cvmfs.root}/{REFERENCES[0]}"})
    await catalog.stock()
    hang()
    before = children_of(os.getpid())
    for _ in range(6):
        await catalog.look_again()
    assert 0 < len(children_of(os.getpid()) - before) <= 3


async def test_one_path_that_hangs_keeps_no_answers_from_others_for_long(catalog, cvmfs, hang):
    hang(f"hang /{REFERENCES[1]}")
    entries = [{"name": f"v{i}", "path": f"{cvmfs.root}/{reference}"} for i, reference in enumerate(REFERENCES)]
    catalog.use(*entries)
    await catalog.stock()
    await catalog.look_again()
    assert catalog.kinds() == {f"v{i}": "no answer" if i == 1 else "sandbox" for i in range(len(REFERENCES))}


async def test_a_slow_repository_is_waited_for_as_long_as_it_answers(catalog, cvmfs):
    cvmfs.is_sick("slow 0.005")
    catalog.use(*({"name": f"v{i}", "path": f"{cvmfs.root}/{one}"} for i, one in enumerate(REFERENCES)))
    await catalog.stock()
    assert set(catalog.kinds().values()) == {"sandbox"}


@pytest.mark.parametrize("error", ["EIO", "ENOTCONN", "ELOOP"])
async def test_errors_of_a_sick_file_system_are_no_verdict_on_its_images(catalog, cvmfs, error):
    cvmfs.is_sick(error)
    catalog.use({"name": "there", "path": f"{cvmfs.root}/{REFERENCES[0]}"}, wishlist(cvmfs))
    await catalog.stock()
    state = catalog.of("there")
    assert state.kind == "no answer" and state.ok
    assert os.strerror(getattr(errno, error)) in state.text
    assert any("wishlist" in text and "cannot be read" in text for text in catalog.problems)
    cvmfs.is_sick("")
    await catalog.look_again()
    assert catalog.of("there").kind == "sandbox"


async def test_a_start_does_not_wait_for_what_is_left_alone(catalog, cvmfs, hang, monkeypatch):
    monkeypatch.setattr(repository_module, "_LONGEST_PAUSE", 1000.0)
    monkeypatch.setattr(repository_module, "_PAUSE", 1000.0)
    catalog.use({"name": "there", "path": f"{cvmfs.root}/{REFERENCES[0]}"})
    hang()
    await catalog.stock()
    monkeypatch.setattr(repository_module, "SILENCE", 1000.0)
    await asyncio.wait_for(catalog.look(catalog.images[0]), PATIENCE)
    assert catalog.of("there").kind == "no answer"


async def test_looking_at_what_hangs_costs_its_deadline(cvmfs):
    cvmfs.is_sick(f"hang /{REFERENCES[0]}")
    paths = [f"{cvmfs.root}/image.sif", f"{cvmfs.root}/{REFERENCES[0]}", f"{cvmfs.root}/{REFERENCES[1]}"]
    facts = await asyncio.wait_for(look(paths, 2), PATIENCE)
    assert [facts[path].kind for path in paths] == ["sif", "no answer", "no answer"]


def test_the_command_ends_and_says_so(cvmfs, hang, write_site, capsys):
    hang()
    path = write_site(
        f"images:\n  - {{name: base, path: '{cvmfs.root}/{REFERENCES[0]}'}}\n  - {{name: host, prefix: /usr}}\n"
        f"  - {{from: wishlist, file: '{cvmfs.root}/recipe.yaml', repository: '{cvmfs.root}'}}\n"
        "backends: {here: {type: local}}\n"
    )
    assert main(["images", path, "--user", "alice"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split("gpu")[0].split() == ["base", "no", "answer", "-", "-"]
    assert "does not answer since" in err and "wishlist" in err
    assert main(["check", path]) == 0
    assert "does not answer since" in capsys.readouterr()[0]


async def test_children_end_with_the_hub(cvmfs, tmp_path):
    """A hub that is killed leaves none behind, once the file system lets go."""
    cvmfs.is_sick("hang")
    script = tmp_path / "hub.py"
    script.write_text(
        "import asyncio, sys\nfrom hepspawner.catalog.probe import look\n"
        f"asyncio.run(look([{f'{cvmfs.root}/x'!r}], 1000))\n"
    )
    hub = await asyncio.create_subprocess_exec(
        sys.executable, str(script), env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    )
    end = time.monotonic() + PATIENCE
    while not children_of(hub.pid) and time.monotonic() < end:
        await asyncio.sleep(0.05)
    ours = children_of(hub.pid)
    assert ours
    hub.kill()
    await hub.wait()
    cvmfs.is_sick("")
    while any(Path(f"/proc/{pid}").exists() for pid in ours) and time.monotonic() < end:
        await asyncio.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in ours)
