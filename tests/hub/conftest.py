"""A real hub with a site that has something to choose, on the machine itself."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.rig import LocalRig
from tests.hubs import Hubs, pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub


@pytest.fixture(scope="session")
def rig(engines: dict[str, Any]) -> Iterator[LocalRig]:
    """The machine itself, with images of a tiny server."""
    one = LocalRig(engines)
    yield one
    one.close()


@pytest.fixture
def site(rig: LocalRig) -> dict[str, Any]:
    """A site with three backends (all of them this machine) and images for everybody, for some, and for GPUs."""
    tiny = {"prefix": str(rig.directory / "prefix"), "command": ["tiny", "serve"]}
    extra = [
        {"name": "second", "title": "A second image", "description": "With <b>markup</b>", **tiny},
        {"name": "needs-gpu", "gpu": "required", **tiny},
        {"name": "insiders-only", "title": "Top secret", "groups": ["insiders"], **tiny},
        {"name": "insiders-gone", "groups": ["insiders"], "prefix": "/no/such/secret/place"},
    ]
    own = ("tiny", "waiting", "crashing", "gone", "bare")
    choices = {
        "cpus": {"default": 1, "max": 4},
        "memory": {"default": "512M", "max": "2G"},
        "runtime": {"default": "1h", "max": "8h"},
    }
    return {
        "images": [image for image in rig.images() if image["name"] in own] + extra,
        "custom_images": {"allow": [f"{rig.directory}/prefix*"], "groups": ["insiders"]},
        "backends": {
            "engine": {**rig.part(), **choices},
            "gpu-engine": {**rig.part(), "title": "GPUs", "gpus": {"a100": {"title": "NVIDIA A100", "max": 2}}},
            "insiders-engine": {**rig.part(), "title": "Hidden", "groups": ["insiders"]},
        },
    }


@pytest.fixture(scope="module")
def hubs() -> Iterator[Hubs]:
    """The hubs that a module's tests share: what users did in others must not be the choice of "last time"."""
    all_of_them = Hubs()
    yield all_of_them
    all_of_them.close()


@pytest.fixture
def hub(
    request: pytest.FixtureRequest, rig: LocalRig, hubs: Hubs, engines: dict[str, Any], site: Any
) -> Iterator[RealHub]:
    """A hub of JupyterHub 6, or of the test's parameter, with `site`."""
    version = getattr(request, "param", "hub6")
    one = hubs.get(version, lambda: RealHub(engines[version], site, version=version))
    if one.site != site:
        one.change_site(site)
        one.mark_log()
    yield one
    rig.release()
    rig.open_gate()
    one.stop_servers()


@pytest.fixture
def new_hub(engines: dict[str, Any]) -> Iterator[Callable[..., RealHub]]:
    """Makes hubs for one test alone."""
    made: list[RealHub] = []

    def make(site: Any, config: str = "", version: str = "hub6", **more: Any) -> RealHub:
        made.append(RealHub(engines[version], site, config, version=version, **more))
        return made[-1].start()

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def user(rig: LocalRig) -> str:
    """Somebody who may have servers."""
    return rig.users[0]


@pytest.fixture
def other(rig: LocalRig) -> str:
    """Somebody else."""
    return rig.users[1]


@pytest.fixture
def insider(hub: RealHub, other: str) -> Iterator[str]:
    """Somebody in the group `insiders`."""
    hub.add_user(other)
    hub.api("POST", "/groups/insiders")
    assert hub.api("POST", "/groups/insiders/users", {"users": [other]}).ok
    yield other
    hub.api("DELETE", "/groups/insiders")
