"""Trees with the layouts that repositories on CVMFS have, of images that are not real and small, or real ones."""

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

SIF_HEAD = b"#!/usr/bin/env run-singularity\n\0" + b"SIF_MAGIC\0" + b"01\0"
"""How a SIF begins: the interpreter's line, then the magic."""

Populate = Callable[[Path], object]


def sandbox(place: Path) -> Path:
    """An image of two directories; like DUCC's flat ones it has no directory /cvmfs."""
    (place / "usr").mkdir(parents=True)
    (place / ".singularity.d").mkdir()
    return place


def hard_linked(image: Path) -> Populate:
    """A real image again, at no cost: on the same disk each file is the very same one."""

    def populate(place: Path) -> None:
        subprocess.run(["cp", "-al", f"{image}/.", f"{place}/"], check=True)

    return populate


def sif(place: Path, size: int = 1000) -> Path:
    """A file that looks like a SIF."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(SIF_HEAD + b"\0" * (size - len(SIF_HEAD)))
    return place


def digest_of(text: str) -> str:
    """A made-up digest."""
    return hashlib.sha256(text.encode()).hexdigest()


def _replace_link(link: Path, target: str | Path) -> None:
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(link.name + ".new")
    new.symlink_to(target)
    new.replace(link)


def ducc(repository: Path, reference: str, version: str = "1", populate: Populate = sandbox, told: str = "") -> str:
    """Publish an image as DUCC does; again with another version: its tag moves. Returns its digest.

    `told`: what its manifest.json says instead.
    """
    digest = digest_of(f"{reference} {version}")
    flat = repository / ".flat" / digest[:2] / digest
    if not flat.exists():
        flat.mkdir(parents=True)
        populate(flat)
    link = repository / reference
    _replace_link(link, os.path.relpath(flat, link.parent))
    metadata = repository / ".metadata" / reference
    metadata.mkdir(parents=True, exist_ok=True)
    layers = [{"digest": f"sha256:{digest_of(str(i))}", "size": 1000} for i in range(3)]
    (metadata / "manifest.json").write_text(
        json.dumps({"schemaVersion": 2, "config": {"digest": f"sha256:{told or digest}"}, "layers": layers})
    )
    return digest


def osg(repository: Path, seen_as: str, reference: str, version: str = "1", populate: Populate = sandbox) -> str:
    """Publish an image as OSG's scripts do: by an absolute link, which says where the repository is seen."""
    digest = digest_of(f"{reference} {version}")
    place = Path(".images") / digest[:2] / digest[2:]
    if not (repository / place).exists():
        (repository / place).mkdir(parents=True)
        populate(repository / place)
    _replace_link(repository / reference, f"{seen_as}/{place}")
    return digest


def wishlist(repository: Path, references: list[str], name: str = "unpacked.cern.ch") -> Path:
    """The wish list of a repository, as DUCC reads it."""
    lines = "".join(f"    - 'https://{reference}'\n" for reference in references)
    head = f"version: 1\nuser: cvmfsunpacker\ncvmfs_repo: '{name}'\noutput_format: 'https://x/$(image)'\ninput:\n"
    path = repository / "recipe.yaml"
    path.write_text(head + lines)
    return path
