"""Sites, offers and golden files for the unit tests."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from hepspawner.choice import Field, Offer, Who, base_fields
from hepspawner.site.load import load_site
from hepspawner.site.model import Site

GOLDEN = Path(__file__).parent / "golden"

# Tests run beside others on busy machines: how long one example takes says nothing, and what fails is to fail again.
settings.register_profile("hepspawner", deadline=None, derandomize=True, database=None, max_examples=200)
settings.load_profile("hepspawner")


@pytest.fixture
def golden() -> Iterator[Callable[[str, str], None]]:
    """Compares a text with tests/unit/golden/NAME. With HEPSPAWNER_UPDATE_GOLDEN=1 the file is written instead."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("HEPSPAWNER_UPDATE_GOLDEN"):
            path.write_text(text)
        assert text == path.read_text(), f"{path} differs; HEPSPAWNER_UPDATE_GOLDEN=1 takes over what is new"

    return compare


@pytest.fixture
def write_site(tmp_path: Path) -> Callable[[str | bytes], str]:
    """Writes a site file; returns its path."""

    def write(text: str | bytes) -> str:
        path = tmp_path / "site.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A folder like tmp_path that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix="hepspawner-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


FACILITY: dict[str, Any] = {
    "images": [
        {"name": "base", "title": "ATLAS base", "path": "/cvmfs/atlas/base:v1"},
        {"name": "plain", "path": "/cvmfs/atlas/plain", "gpu": "none"},
        {"name": "trainer", "path": "/cvmfs/atlas/trainer", "gpu": "required"},
        {"name": "secret-image", "path": "/cvmfs/atlas/secret", "groups": ["insiders"]},
        {"name": "on-gpu-only", "path": "/cvmfs/atlas/on-gpu", "backends": ["gpu"]},
        {"name": "on-secret-backend", "path": "/cvmfs/atlas/x", "backends": ["secret-backend"]},
    ],
    "custom_images": {"allow": ["/cvmfs/unpacked/*", "/home/{username}/images/*"]},
    "backends": {
        "cpu": {
            "type": "local",
            "title": "The farm",
            "cpus": {"default": 1, "max": 8},
            "memory": {"default": "2G", "max": "16G"},
            "runtime": {"default": "8h", "max": "4d"},
        },
        "gpu": {
            "type": "local",
            "title": "The GPUs",
            "cpus": {"default": 4, "max": 64},
            "memory": {"default": "8G", "max": "1T"},
            "gpus": {"t4": {"title": "NVIDIA T4", "max": 1}, "a100": {"title": "NVIDIA A100", "max": 4}},
        },
        "secret-backend": {"type": "local", "groups": ["insiders"], "cpus": {"max": 99}},
    },
}
"""A site with a rule of each kind."""

OWN_FIELDS = {
    "cpu": [
        Field("partition", "Partition", "select", "short", values=(("short", "Short jobs"), ("long", "Long jobs"))),
        Field("nodes", "Nodes", "count", None),
    ]
}
"""What a batch backend adds to the fields of all."""


def offer_with(site: Site, who: Who, own: dict[str, list[Field]] | None) -> Offer:
    """What a site offers to a user, with own fields of backends beside those of all."""
    fields = {name: base_fields(site.backends[name]) + more for name, more in (own or {}).items()}
    return Offer(site, who, fields)


@pytest.fixture
def facility() -> Site:
    return load_site(FACILITY)


@pytest.fixture
def offer(facility: Site) -> Offer:
    """What `FACILITY` offers to alice, who is in no group."""
    return offer_with(facility, Who("alice"), OWN_FIELDS)


@pytest.fixture
def insider(facility: Site) -> Offer:
    """What `FACILITY` offers to bob, who is in the group of insiders."""
    return offer_with(facility, Who("bob", frozenset({"insiders"})), OWN_FIELDS)
