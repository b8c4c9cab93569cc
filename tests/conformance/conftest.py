"""The engines that the suite runs on, and a real hub before each."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conformance.htcondor_rig import HTCondorRig
from tests.conformance.kubernetes_rig import KubernetesRig
from tests.conformance.rig import BackendRig, LocalRig
from tests.conformance.slurm_rig import SlurmRig
from tests.hubs import Hubs, pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub, eventually

# A backend joins here, with the engines without which it cannot run.
RIGS: dict[str, Callable[[dict[str, Any]], BackendRig]] = {
    "local": LocalRig,
    "slurm": SlurmRig,
    "htcondor": HTCondorRig,
    "kubernetes": KubernetesRig,
}
NEEDS: dict[str, list[str]] = {name: ["hub6", *([] if name == "local" else [name])] for name in RIGS}


@pytest.fixture(
    scope="session", params=[pytest.param(name, marks=pytest.mark.needs(*NEEDS[name]), id=name) for name in RIGS]
)
def rig(request: pytest.FixtureRequest, engines: dict[str, Any]) -> Iterator[BackendRig]:
    """An engine that is ready to run jobs."""
    one = RIGS[request.param](engines)
    yield one
    one.close()


@pytest.fixture(scope="session")
def hubs(rig: BackendRig) -> Iterator[Hubs]:
    """The hubs before one engine."""
    all_of_them = Hubs()
    yield all_of_them
    all_of_them.close()


@pytest.fixture
def hub(request: pytest.FixtureRequest, rig: BackendRig, hubs: Hubs, engines: dict[str, Any]) -> Iterator[RealHub]:
    """A hub of JupyterHub 6, or of the test's parameter. After each test nothing of its servers may be left."""
    version = getattr(request, "param", "hub6")
    one = hubs.get(version, lambda: RealHub(engines[version], site_of(rig), version=version, address=rig.hub_address))
    yield one
    rig.release()
    rig.open_gate()
    if one.process is None or one.process.poll() is not None:
        one.start()
    one.stop_servers()
    try:
        eventually(lambda: not rig.jobs(one.id), "the engine has no job of the hub any more", 10)
        eventually(lambda: not one.leftovers(), "no process of a server is left", 10)
    finally:
        one.end_leftovers()
    if one.site != site_of(rig):
        one.change_site(site_of(rig))


def site_of(rig: BackendRig, part: dict[str, Any] | None = None) -> dict[str, Any]:
    """A site with one backend: the engine."""
    return {"images": rig.images(), "backends": {"engine": part or rig.part()}}
