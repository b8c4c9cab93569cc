"""What an image's place tells of it, what a reference is, and what a mistyped path may have meant."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepspawner.catalog import near
from hepspawner.catalog.layouts import directory_of, is_within, layout_of, may_outlive, outlive_words, places_of
from hepspawner.catalog.references import full_reference, is_reference, matches, without_credentials
from hepspawner.site.load import SiteError, load_site

DIGEST = "8e1e32f4" + 56 * "0"
DAY = 86400
UNPACKED, OSG = "/cvmfs/unpacked.cern.ch", "/cvmfs/singularity.opensciencegrid.org"


@pytest.mark.parametrize(
    "path, real, name, digest, grace",
    [
        (f"{UNPACKED}/ghcr.io/x/y:z", f"{UNPACKED}/.flat/8e/{DIGEST}", "ghcr.io/x/y:z", DIGEST, 0),
        (f"{UNPACKED}/r.de:5005/x:y", f"{UNPACKED}/.flat/8e/{DIGEST}", "r.de:5005/x:y", DIGEST, 0),
        (f"{OSG}/htc/x:latest", f"{OSG}/.images/8e/{DIGEST[2:]}", "htc/x:latest", DIGEST, 2 * DAY),
        # reached at another place than where it really is
        ("/cvmfs/u/x:y", f"/data/u/.flat/8e/{DIGEST}", "x:y", DIGEST, 0),
        (f"{UNPACKED}/.flat/8e/{DIGEST}", f"{UNPACKED}/.flat/8e/{DIGEST}", f"{UNPACKED}/.flat/8e/{DIGEST}", DIGEST, 0),
        ("/cvmfs/atlas.cern.ch/a.sif", "/cvmfs/atlas.cern.ch/a.sif", "/cvmfs/atlas.cern.ch/a.sif", "", None),
        ("/data/x", "", "/data/x", "", None),
        ("/data/x", "/data/.flat/8e/nothex", "/data/x", "", None),
        ("/data/x", f"/data/.flat/8e/{DIGEST}/usr", "/data/x", "", None),
        ("/data/x", f"/data/.flat/8e/8e/{DIGEST[2:]}", "/data/x", "", None),
        ("/data/x", f"/data/.images/{DIGEST}", "/data/x", "", None),
    ],
)
def test_the_layouts(path, real, name, digest, grace):
    layout = layout_of(path, real)
    assert (layout.name, layout.digest, layout.grace) == (name, digest, grace)


@pytest.mark.parametrize(
    "real, runtime, outlives",
    [
        (f"{UNPACKED}/.flat/8e/{DIGEST}", 3600, True),
        (f"{OSG}/.images/8e/{DIGEST[2:]}", 2 * DAY, False),
        (f"{OSG}/.images/8e/{DIGEST[2:]}", 2 * DAY + 1, True),
        (f"{OSG}/.images/8e/{DIGEST[2:]}", None, True),
        ("/data/x.sif", None, False),
    ],
)
def test_a_server_that_may_outlive_its_image(real, runtime, outlives):
    layout = layout_of("/cvmfs/x/y", real)
    assert may_outlive(layout, runtime) == outlives
    assert bool(outlive_words(layout, runtime)) == outlives
    assert ("2d after" in outlive_words(layout, runtime)) == (outlives and "images" in real)


@pytest.mark.parametrize(
    "path, real, directory",
    [
        (f"{UNPACKED}/x:y", f"{UNPACKED}/.flat/8e/{DIGEST}", f"{UNPACKED}/.flat/8e/{DIGEST}"),
        (f"{OSG}/x:y", f"{OSG}/.images/8e/{DIGEST[2:]}", f"{OSG}/.images/8e/{DIGEST[2:]}"),
        # this machine has /cvmfs at another place
        (f"{UNPACKED}/x:y", f"/mnt{UNPACKED}/.flat/8e/{DIGEST}", f"{UNPACKED}/.flat/8e/{DIGEST}"),
        ("/data/x:y", f"/data/.flat/8e/{DIGEST}", f"/data/.flat/8e/{DIGEST}"),
        ("/data/x", "/mnt/data/x-2", "/data/x"),
        (f"{UNPACKED}/x.sif", "", f"{UNPACKED}/x.sif"),
    ],
)
def test_where_any_machine_has_what_a_path_leads_to(path, real, directory):
    assert directory_of(path, real) == directory


@pytest.mark.parametrize(
    "path, real, within",
    [
        (f"{UNPACKED}/x:y", f"{UNPACKED}/.flat/8e/{DIGEST}", True),
        (f"{UNPACKED}/x:y", f"/mnt{UNPACKED}/.flat/8e/{DIGEST}", True),
        (f"{UNPACKED}/x:y", f"{OSG}/.flat/8e/{DIGEST}", False),
        (f"{UNPACKED}/x:y", f"{UNPACKED}.evil/.flat/8e/{DIGEST}", False),
        ("/data/x", "/mnt/x", True),
        ("/data/x", f"{OSG}/.flat/8e/{DIGEST}", False),
    ],
)
def test_what_a_node_may_tell_of_a_path(path, real, within):
    assert is_within(path, real) == within


@pytest.mark.parametrize("real", [f"{UNPACKED}/.flat/8e/{DIGEST}", f"{UNPACKED}/.images/8e/{DIGEST[2:]}"])
def test_the_places_of_a_digest_are_where_its_layout_has_it(real):
    assert real in places_of(f"{UNPACKED}/ghcr.io/x/y:z", DIGEST)


def test_nothing_else_below_cvmfs_is_asked_for_than_the_repository():
    assert all(place.startswith(f"{UNPACKED}/.") for place in places_of(f"{UNPACKED}/a/b/c:d", DIGEST))
    assert f"/data/tree/.flat/8e/{DIGEST}" in places_of("/data/tree/a/b:c", DIGEST)


@pytest.mark.parametrize(
    "text, full",
    [
        ("docker://alpine", "docker://docker.io/library/alpine:latest"),
        ("docker://x/y:1", "docker://docker.io/x/y:1"),
        ("docker://ghcr.io/x/y", "docker://ghcr.io/x/y:latest"),
        ("docker://localhost/y", "docker://localhost/y:latest"),
        ("docker://r.de:5005/x/y_z.a-b:V1.2_3", "docker://r.de:5005/x/y_z.a-b:V1.2_3"),
        ("oras://ghcr.io/x/y:1", "oras://ghcr.io/x/y:1"),
        (f"docker://ghcr.io/x/y:1@sha256:{DIGEST}", f"docker://ghcr.io/x/y@sha256:{DIGEST}"),
    ],
)
def test_references_in_full(text, full):
    assert is_reference(text) and full_reference(text) == full == full_reference(full)


@pytest.mark.parametrize(
    "text",
    ["", "/x", "ghcr.io/", "ghcr.io/X/y", "ghcr.io/../y", "-x/y", "ghcr.io/x y", "ghcr.io/x\n", "ghcr.io/x?a=b",
     "ghcr.io//x", "ghcr.io/x:", "ghcr.io/x@sha256:12", "ghcr.io/x%2f..", "a:b@ghcr.io/x", "ghcr.io/" + "x" * 600,
     "ghcr.io:999999/x", "ghcr.io/x --nv", "$(id)/x", "é.de/x"],
)  # fmt: skip
def test_what_is_no_reference(text):
    with pytest.raises(ValueError):
        full_reference("docker://" + text)


@given(st.text(max_size=60))
def test_whatever_is_typed_comes_out_plain_or_not_at_all(text):
    try:
        full = full_reference("docker://" + text)
    except ValueError:
        return
    assert full.isascii() and full.isprintable() and " " not in full
    assert matches(full, "docker://*") and full_reference(full) == full


def test_credentials_are_not_shown():
    assert without_credentials("docker://me:secret@ghcr.io/x@sha256:1") == "docker://…@ghcr.io/x@sha256:1"
    assert without_credentials("docker://ghcr.io/x@sha256:1") == "docker://ghcr.io/x@sha256:1"
    assert "secret" not in without_credentials("docker://me:secret@")


@pytest.mark.parametrize(
    "glob, yes, no",
    [
        ("docker://ghcr.io/*", "docker://ghcr.io/x/y:1", "docker://ghcr.io.evil.com/x:1"),
        ("docker://ghcr.io/*", "docker://ghcr.io/x:1", "oras://ghcr.io/x:1"),
        ("docker://*.cern.ch/*", "docker://r.cern.ch/x:1", "docker://evil.com/a.cern.ch/x:1"),
        ("docker://ghcr.io/x/y", f"docker://ghcr.io/x/y@sha256:{DIGEST}", "docker://ghcr.io/x/yz:1"),
        ("docker://ghcr.io/x/y:1", "docker://ghcr.io/x/y:1", "docker://ghcr.io/x/y:2"),
        ("docker://*", "docker://r.de:5000/x:1", "oras://r.de/x:1"),
    ],
)
def test_what_a_glob_allows(glob, yes, no):
    assert matches(yes, glob) and not matches(no, glob)


@pytest.mark.parametrize("glob", ["docker://", "docker://ghcr.io", "docker://GHCR.io/*", "docker://me:x@ghcr.io/*"])
def test_globs_that_are_mistakes_are_told_at_once(glob):
    site = {"images": [{"name": "a", "path": "/a"}], "backends": {"b": {"type": "local"}}}
    with pytest.raises(SiteError, match=r"custom_images.allow\[0\].*write docker://registry/name"):
        load_site({**site, "custom_images": {"allow": [glob]}})


def test_near_misses(tmp_path):
    for name in ("ml-base:v1", "ml-base:v2", "other", ".ml-base:v1"):
        (tmp_path / name).mkdir()
    known = ["/cvmfs/x/ml-base:v12", "/cvmfs/y/unlike"]
    order = json.dumps({"path": f"{tmp_path}/ml-bsae:v1", "known": known})
    program = [sys.executable, "-I", "-S", near.__file__]
    done = subprocess.run(program, input=order, capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {f"{tmp_path}/ml-base:v1", f"{tmp_path}/ml-base:v2", known[0]}
    assert near.near(f"{tmp_path}/no/such/ml-base:v12", known) == [known[0]]
    assert near.near("/", known) == []
