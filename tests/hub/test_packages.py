"""Packages of images, as the hub tells them to those who may use the images."""

from pathlib import Path
from typing import Any

import pytest

from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6")


@pytest.fixture
def site(site: Any, rig: Any) -> Any:
    """With an image of each source of packages, and one that is not for everybody."""
    roots = {name: rig.directory / "packages" / name for name in ("conda", "listed", "hidden")}
    for root in roots.values():
        (root / "bin").mkdir(parents=True, exist_ok=True)
    conda(roots["conda"], "torch-2.5.1-py311_0", "numpy-2.1.3-0")
    (roots["listed"] / "list-of-pkgs-inside.txt").write_text("uproot 5.0\n<script> 1\nroot 6.30.04\n")
    conda(roots["hidden"], "unpublished-generator-1.0-0", "torch-2.6.0-0")
    images = [{"name": name, "prefix": str(root)} for name, root in roots.items()]
    return {**site, "images": [*site["images"], *images[:2], {**images[2], "groups": ["insiders"]}]}


def conda(root: Path, *packages: str) -> None:
    (root / "conda-meta").mkdir(exist_ok=True)
    for package in packages:
        (root / "conda-meta" / f"{package}.json").touch()


def search(hub: RealHub, token: str, words: str) -> dict[str, list[str]]:
    answer = hub.api("GET", "/hepspawner/images", token=token, params={"search": words})
    assert answer.status_code == 200, answer.text
    return {one["name"]: one["packages"] for one in answer.json()["images"]}


def packages(hub: RealHub, token: str, name: str) -> Any:
    return hub.api("GET", f"/hepspawner/images/{name}/packages", token=token)


def test_packages_are_searched_and_listed(hub: RealHub, user: str, insider: str) -> None:
    token, theirs = hub.user_token(user), hub.user_token(insider)
    eventually(lambda: search(hub, theirs, "unpublished") and search(hub, token, "root>=6"), "the packages are read")
    assert search(hub, token, "torch 2.5") == {"conda": ["torch 2.5.1"]}
    assert search(hub, token, "root>=6.30 uproot<6") == {"listed": ["root 6.30.04", "uproot 5.0"]}
    assert search(hub, token, "a second image") == {"second": []}  # what the form finds by itself
    for odd in ("'\"><script>", "~=~=~=", "x" * 5000, "☕ 2"):
        assert search(hub, token, odd) == {}
    listed = packages(hub, token, "listed")
    assert listed.json() == {"packages": [{"name": "root", "version": "6.30.04"}, {"name": "uproot", "version": "5.0"}]}
    assert packages(hub, token, "second").json() == {"packages": []}
    # who may not use an image learns nothing of it
    assert search(hub, theirs, "torch>=2.6") == {"hidden": ["torch 2.6.0"]}
    assert search(hub, token, "torch>=2.6") == search(hub, token, "unpublished") == {}
    nonsense = packages(hub, token, "nonsense")
    assert nonsense.status_code == packages(hub, token, "hidden").status_code == 404
    assert packages(hub, token, "hidden").text.replace("hidden", "nonsense") == nonsense.text
    assert packages(hub, theirs, "hidden").json()["packages"][1] == {"name": "unpublished-generator", "version": "1.0"}
    for path in ("images?search=torch", "images/conda/packages"):
        assert hub.http.get(f"{hub.url}/hub/api/hepspawner/{path}").status_code == 403
