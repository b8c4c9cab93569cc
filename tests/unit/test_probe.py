"""Facts about paths, found by a child that can be killed."""

import asyncio
import pwd
import sys
import time
from pathlib import Path

import pytest

from hepspawner.catalog import probe
from hepspawner.catalog.probe import Fact, examine, look

# The real start of a SIF: the interpreter's line, then the magic.
SIF_HEAD = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"01\0"
PATIENCE = 20  # seconds that a test waits for what has to happen; not spent where it does


@pytest.fixture
def place(public_path):
    """A folder with a path of each kind."""
    (public_path / "sandbox/usr").mkdir(parents=True)
    (public_path / "other-sandbox/.singularity.d").mkdir(parents=True)
    (public_path / "flat:v1/usr").mkdir(parents=True)
    (public_path / "prefix/bin").mkdir(parents=True)
    (public_path / "folder").mkdir()
    (public_path / "image.sif").write_bytes(SIF_HEAD + b"\0" * 1000)
    (public_path / "text").write_text("not an image")
    (public_path / "empty").touch()
    (public_path / "tag").symlink_to("flat:v1")
    (public_path / "dangling").symlink_to("gone")
    (public_path / "circle").symlink_to("circle")
    return public_path


@pytest.fixture
async def children(monkeypatch):
    """The processes that were started."""
    started = []
    real = asyncio.create_subprocess_exec

    async def noted(*args, **kwargs):
        started.append(await real(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
    yield started
    for child in started:
        await asyncio.wait_for(child.wait(), PATIENCE)
        child._transport.close()  # before its loop is


KINDS = {
    "sandbox": "sandbox",
    "other-sandbox": "sandbox",
    "image.sif": "sif",
    "prefix": "prefix",
    "tag": "sandbox",
    "folder": "not an image",
    "text": "not an image",
    "empty": "not an image",
    "/etc/passwd": "not an image",
    "gone": "missing",
    "dangling": "missing",
    "text/below": "missing",
    "a\0b": "missing",
}


async def test_what_lies_at_a_path(place):
    facts = await look([str(place / name) for name in KINDS], PATIENCE)
    assert {path.removeprefix(f"{place}/"): fact.kind for path, fact in facts.items()} == KINDS


async def test_links_are_resolved(place):
    path = str(place / "tag")
    assert (await look([path], PATIENCE))[path].real == str(place / "flat:v1")


def test_a_sick_file_system_is_not_known_to_be_bad(place):
    assert examine(str(place / "circle")).kind in ("missing", "no answer")


async def test_nothing_asked_starts_nothing(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere")
    assert await look([], PATIENCE) == {}


@pytest.mark.needs("users")
async def test_what_a_user_may_not_read(place, engines):
    (place / "sandbox").chmod(0o700)
    (place / "image.sif").chmod(0o600)
    (place / "private/sandbox/usr").mkdir(parents=True)
    (place / "private").chmod(0o700)
    entry = pwd.getpwnam(engines["users"][0])
    account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    names = ["sandbox", "image.sif", "private/sandbox", "other-sandbox"]
    paths = [str(place / name) for name in names]
    facts = await look(paths, PATIENCE, account)
    assert [facts[path].kind for path in paths] == ["unreadable", "unreadable", "unreadable", "sandbox"]
    assert [fact.kind for fact in (await look(paths, PATIENCE)).values()] == ["sandbox", "sif", "sandbox", "sandbox"]


async def test_a_child_that_hangs_costs_its_deadline_and_nothing_else(place, children, monkeypatch, tmp_path):
    hanging = tmp_path / "python"  # on a file system that hangs: see test_catalog_fuse.py
    hanging.write_text("""#!/bin/sh
echo '[0, "sandbox", "", "", 0, 0, "", null]'
exec sleep 1000
""")
    hanging.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hanging))
    began = time.monotonic()
    facts = await look(["/one", "/another"], 1)
    assert time.monotonic() - began < PATIENCE
    assert [fact.kind for fact in facts.values()] == ["sandbox", "no answer"]
    assert facts["/another"].ok, "that nothing answers is not known to be bad: the node may tell"
    (child,) = children
    assert await asyncio.wait_for(child.wait(), PATIENCE) == -9
    assert not Path(f"/proc/{child.pid}").exists()


async def test_a_child_that_cannot_work_is_no_answer(place, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    path = str(place / "sandbox")
    assert await look([path], PATIENCE) == {path: probe.NO_ANSWER}


async def test_a_child_that_talks_nonsense_is_no_answer(place, children, monkeypatch, tmp_path):
    talker = tmp_path / "talker"
    talker.write_text("#!/bin/sh\ncat > /dev/null\necho nonsense\n")
    talker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(talker))
    path = str(place / "sandbox")
    assert await look([path], PATIENCE) == {path: probe.NO_ANSWER}


async def test_many_paths_at_once(place):
    names = [str(place / f"{'long name ☕ ' * 10}{i}") for i in range(2000)]
    facts = await look([*names, str(place / "sandbox")], PATIENCE)
    assert len(facts) == 2001 and facts[str(place / "sandbox")].kind == "sandbox"
    assert {facts[name].kind for name in names} == {"missing"}


@pytest.mark.parametrize(
    "kind, ok, text",
    [
        ("sandbox", True, ""),
        ("sif", True, ""),
        ("prefix", True, ""),
        ("no answer", True, "the file system does not answer"),
        ("missing", False, "does not exist"),
        ("unreadable", False, "may not be read"),
        ("not an image", False, "is not an image: neither a SIF nor the root directory of a system"),
    ],
)
def test_the_words(kind, ok, text):
    assert (Fact(kind).ok, Fact(kind).text) == (ok, text)
