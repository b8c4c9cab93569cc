"""Images that users bring: paths, with what is wrong with them told before anything starts, and references that the
real Apptainer pulls from a real registry."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.apptainer.registry import Registry, small_image
from tests.hubs import pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("apptainer", "image", "hub6", "users")

TINY = Path(__file__).parents[1] / "tiny_server.py"


@pytest.fixture(scope="module")
def user(engines: dict[str, Any]) -> Iterator[str]:
    name = engines["users"][0]
    cache = Path(pwd.getpwnam(name).pw_dir, ".apptainer/cache")
    before = cache.exists()
    yield name
    if not before:
        shutil.rmtree(cache, ignore_errors=True)


@pytest.fixture(scope="module")
def registry(engines: dict[str, Any]) -> Iterator[Registry]:
    one = Registry(small_image(engines, TINY))
    yield one
    one.close()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="hepspawner-own-"))
    folder.chmod(0o755)
    for name in ("ml-base:v1/usr", "bare:v1/usr/bin", "locked"):
        (folder / name).mkdir(parents=True)
    (folder / "locked").chmod(0o700)
    (folder / "notes.txt").write_text("no image")
    (folder / "out").symlink_to("/usr")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def hub(engines: dict[str, Any], registry: Registry, place: Path) -> Iterator[RealHub]:
    here = {"type": "local", "apptainer": engines["apptainer"], "environment": {"APPTAINER_NOHTTPS": "1"}}
    site = {
        "images": [{"name": "known", "path": f"{place}/known-image:v3"}],
        "custom_images": {
            "allow": [f"{place}/*", f"docker://{registry.host}/physics/*", f"oras://{registry.host}/sif/*"]
        },
        "backends": {"here": here, "node": {**here, "probe": "node"}},
        "mounts": [],
    }
    one = RealHub(engines["hub6"], site)
    try:
        yield one.start()
    finally:
        one.stop()


@pytest.mark.parametrize(
    "name, text",
    [
        ("ml-bsae:v1", "does not exist; did you mean 'PLACE/ml-base:v1'?"),
        ("deeper/known-image:v2", "does not exist; did you mean 'PLACE/known-image:v3'?"),
        ("wholly-different", "does not exist"),
        ("notes.txt", "is not an image: neither a SIF nor the root directory of a system"),
        ("locked", "may not be read"),
        ("out", "leads out of what is allowed; allowed: PLACE/*"),
        ("bare:v1", "has no jupyterhub-singleuser in its PATH: no server can be started from it"),
    ],
)
def test_what_is_wrong_with_a_path_is_said_before_anything_starts(
    hub: RealHub, user: str, place: Path, name: str, text: str
) -> None:
    answer = hub.start_server(user, {"custom_image": f"{place}/{name}", "backend": "here"})
    assert answer.status_code == 400
    assert answer.json()["message"].startswith(f"'{place}/{name}' {text.replace('PLACE', str(place))}")


def test_what_only_the_node_can_see_is_told_by_it(hub: RealHub, user: str, place: Path) -> None:
    hub.begin(user, {"custom_image": f"{place}/notes.txt", "backend": "node"})
    hub.gone(user)
    told = "notes.txt is not an image: neither a SIF nor the root directory of a system, on "
    eventually(lambda: told in hub.browser(user).form().text, "the form tells why")


def test_an_image_is_pulled_with_its_progress_and_kept(hub: RealHub, user: str, registry: Registry) -> None:
    reference = f"docker://{registry.host}/physics/tiny:v1"
    hub.begin(user, {"custom_image": reference, "backend": "here"})
    assert registry.asked.wait(60)
    person = hub.browser(user)
    eventually(lambda: "The image is pulled" in person.get(f"/hub/spawn-pending/{user}").text, "the pull is shown")
    registry.gate.set()
    hub.ready(user, seconds=120)
    environment = hub.server_get(user, "facts").json()["environment"]
    assert (environment["HEPSPAWNER_IMAGE"], environment["OF_THE_IMAGE"]) == (reference, "yes")
    assert "APPTAINER_NOHTTPS" not in environment and "APPTAINERENV_APPTAINER_NOHTTPS" not in environment
    hub.stop_server(user)
    hub.gone(user)

    registry.asked.clear()
    hub.start_server(user, {"custom_image": reference, "backend": "here"})
    hub.ready(user, seconds=120)
    assert not registry.asked.is_set()  # it was kept in the user's home
    assert Path(pwd.getpwnam(user).pw_dir, ".apptainer/cache").is_dir()
    hub.stop_server(user)
    hub.gone(user)


def test_a_sif_of_a_registry(
    hub: RealHub, user: str, registry: Registry, engines: dict[str, Any], tmp_path: Path
) -> None:
    registry.gate.set()
    sif = tmp_path / "tiny.sif"
    build = [engines["apptainer"], "build", "--no-https", sif, f"docker://{registry.host}/physics/tiny:v1"]
    subprocess.run(build, check=True, capture_output=True, env={**os.environ, "APPTAINER_CACHEDIR": str(tmp_path)})
    registry.add_sif("v3", sif.read_bytes())
    reference = f"oras://{registry.host}/sif/tiny:v3"
    hub.start_server(user, {"custom_image": reference, "backend": "here"})
    hub.ready(user, seconds=120)
    environment = hub.server_get(user, "facts").json()["environment"]
    assert (environment["HEPSPAWNER_IMAGE"], environment["OF_THE_IMAGE"]) == (reference, "yes")
    hub.stop_server(user)
    hub.gone(user)


def test_an_image_that_the_registry_does_not_have(hub: RealHub, user: str, registry: Registry) -> None:
    hub.begin(user, {"custom_image": f"docker://{registry.host}/physics/tiny:v2", "backend": "here"})
    hub.gone(user, seconds=120)
    told = "The registry has no such image"
    eventually(lambda: told in hub.browser(user).form().text, "the form tells why")


@pytest.mark.parametrize(
    "given, text",
    [
        ("docker://HOST/other/tiny:v1", "'docker://HOST/other/tiny:v1' is not allowed; allowed: "),
        ("oras://HOST/physics/tiny:v1", "'oras://HOST/physics/tiny:v1' is not allowed"),
        ("docker://me:hunter2@HOST/physics/tiny:v1", "'docker://…@HOST/physics/tiny:v1' holds credentials"),
        ("docker://HOST/physics/tiny:v1 --nv", "'docker://HOST/physics/tiny:v1 --nv' is no reference"),
    ],
)
def test_references_that_are_refused(hub: RealHub, user: str, registry: Registry, given: str, text: str) -> None:
    answer = hub.start_server(user, {"custom_image": given.replace("HOST", registry.host), "backend": "here"})
    assert answer.status_code == 400
    assert text.replace("HOST", registry.host) in answer.json()["message"]
    assert "hunter2" not in answer.text + hub.log()
