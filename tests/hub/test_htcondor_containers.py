"""Images that HTCondor itself runs as containers: a real pool with a real Apptainer before a real hub."""

import pwd
import shutil
import tempfile
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.htcondor_rig import HTCondorRig
from tests.conformance.rig import TINY
from tests.hubs import pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub, eventually
from tests.rigs.cvmfs import trees

pytestmark = pytest.mark.needs("hub6", "htcondor", "apptainer", "image", "users")

# It writes where a test sees it that it was asked to end.
SAVES = """
import signal, sys
def save(*_):
    open(sys.argv[2], "w").write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
"""


class Contained(HTCondorRig):
    """A pool that runs containers, and binds a directory of the tests into each."""

    def __init__(self, engines: dict[str, Any]):
        self.shared = Path(tempfile.mkdtemp(prefix="shared-"))
        self.shared.chmod(0o777)
        (self.shared / "tiny.py").write_text(SAVES + TINY.read_text())
        # What docs/htcondor.md says of images without that file.
        (self.shared / "empty").touch()
        home = pwd.getpwnam("alice").pw_dir  # and not bob's
        binds = f"{home} {self.shared} {self.shared / 'empty'}:/.singularity.d/env/99-base.sh"
        conf = [f"SINGULARITY = {engines['apptainer']}", f'SINGULARITY_BIND_EXPR = "{binds}"']
        super().__init__(engines, EXTRA_CONF="\n".join([*conf, "SINGULARITY_RUN_TEST_BEFORE_JOB = False"]))

    def part(self) -> dict[str, Any]:
        part = {**super().part(), "universe": "container", "apptainer": "/nonexistent/apptainer"}
        return {**part, "gpus": {"a100": {"max": 2}}}

    def images(self) -> list[dict[str, Any]]:
        command = ["python3", "-IS", str(self.shared / "tiny.py"), "serve", str(self.shared / "saved")]
        image = {"path": self.engines["image"]}
        own = {"name": "in-image", **image, "command": command, "environment": {"FLAVOUR": "vanilla $HOME"}}
        gone = {"name": "unbound", **image, "mounts": ["/not/bound"]}
        return [*super().images(), own, gone]

    def close(self) -> None:
        super().close()
        shutil.rmtree(self.shared)


@pytest.fixture(scope="module")
def rig(engines: dict[str, Any]) -> Iterator[Contained]:
    one = Contained(engines)
    yield one
    one.close()


@pytest.fixture(scope="module")
def hub(rig: Contained, engines: dict[str, Any]) -> Iterator[RealHub]:
    one = RealHub(engines["hub6"], {"images": rig.images(), "backends": {"engine": rig.part()}})
    one.start()
    yield one
    one.stop()


def form_says(hub: RealHub, words: str) -> None:
    """The form tells how alice's last server ended."""
    person = hub.browser("alice")
    eventually(lambda: words in unescape(person.form().text), f"the form tells: {words}")


def test_a_users_lab_is_in_the_container(hub: RealHub, rig: Contained) -> None:
    answer = hub.start_server("alice", {"image": "sandbox"})
    assert answer.status_code in (201, 202), answer.text
    hub.ready("alice")
    assert "version" in hub.server_get("alice", "api").json()
    (job,) = rig.condor.jobs(hub.state("alice")["session"])
    assert job.user == "alice" and job.ad["ContainerImage"] == rig.engines["image"]
    hub.stop_server("alice")
    hub.gone("alice")
    assert not rig.jobs(hub.id)


def test_what_is_in_the_container(hub: RealHub, rig: Contained) -> None:
    assert hub.start_server("alice", {"image": "in-image", "gpu": "a100"}).status_code in (201, 202)
    hub.ready("alice")
    facts = hub.server_get("alice", "facts").json()
    environment = facts["environment"]
    assert facts["uid"] and environment["JUPYTERHUB_USER"] == "alice"
    assert hub.server_get("alice", "hub").json() == {"status": 200, "name": "alice"}
    assert environment["FLAVOUR"] == "vanilla $HOME"
    assert environment["APPTAINER_CONTAINER"] == rig.engines["image"]  # Apptainer says so to what it runs
    assert environment["PATH"].startswith("/opt/conda/bin:")  # the image's
    assert environment["HOME"] == facts["cwd"] == pwd.getpwnam("alice").pw_dir
    assert environment["CUDA_VISIBLE_DEVICES"].startswith("GPU-") and environment["_CONDOR_SLOT"]
    hub.stop_server("alice")
    hub.gone("alice")
    # it was asked to end, not killed
    eventually(lambda: (rig.shared / "saved").exists(), "the server saved its work")


def test_a_home_that_the_pool_does_not_bind_is_a_scratch_directory(hub: RealHub, rig: Contained) -> None:
    assert hub.start_server("bob", {"image": "in-image"}).status_code in (201, 202)
    hub.ready("bob")
    facts = hub.server_get("bob", "facts").json()
    assert facts["environment"]["HOME"] == facts["cwd"] and facts["cwd"].startswith(str(rig.condor.directory))
    hub.stop_server("bob")
    hub.gone("bob")


def test_a_mount_that_the_pool_does_not_bind_is_named(hub: RealHub) -> None:
    hub.start_server("alice", {"image": "unbound"})
    form_says(hub, "mount /not/bound does not exist")


def test_a_prefix_is_a_vanilla_job(hub: RealHub, rig: Contained) -> None:
    assert hub.start_server("bob", {"image": "tiny"}).status_code in (201, 202)
    hub.ready("bob")
    (job,) = rig.condor.jobs(hub.state("bob")["session"])
    assert "ContainerImage" not in job.ad
    hub.stop_server("bob")
    hub.gone("bob")


def test_a_tag_is_resolved_when_its_job_is_submitted(hub: RealHub, rig: Contained) -> None:
    top = rig.shared / "cvmfs"
    ducc, osg = trees.ducc(top, "x/ducc:v1"), trees.osg(top, str(top), "x/osg:v1")
    found = [{"name": name, "path": str(top / f"x/{name}:v1")} for name in ("ducc", "osg")]
    hub.change_site({"images": [*rig.images(), *found], "backends": {"engine": rig.part()}})
    rig.hold()
    try:
        for image, digest, place in (
            ("ducc", ducc, f".flat/{ducc[:2]}/{ducc}"),
            (f"osg@{osg}", osg, f".images/{osg[:2]}/{osg[2:]}"),
        ):
            hub.begin("alice", {"image": image})
            state = hub.reached("submitted", "alice")
            (job,) = rig.condor.jobs(state["session"])
            assert job.ad["ContainerImage"] == str(top / place)
            assert state["image"]["digest"] == digest and state["image"]["tag"].startswith(f"{top}/x/")
            hub.stop_server("alice")
            hub.gone("alice")
    finally:
        rig.release()


def test_what_apptainer_says_of_an_image_reaches_its_user(hub: RealHub, rig: Contained) -> None:
    bare = rig.shared / "bare"
    (bare / "usr/bin").mkdir(parents=True)
    images = [*rig.images(), {"name": "bare-image", "path": str(bare)}]
    hub.change_site({"images": images, "backends": {"engine": rig.part()}})
    hub.start_server("alice", {"image": "bare-image"})
    form_says(hub, "the job ended with exit code 255")
    form_says(hub, "FATAL:")
