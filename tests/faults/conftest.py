"""One Slurm and one hub for all tests of faults; after each test all is mended, and nothing may be left."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.kube import cluster, make, relay  # noqa: F401
from tests.faults.rig import FaultRig
from tests.hubs import pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub


@pytest.fixture(scope="session")
def rig(engines: dict[str, Any]) -> Iterator[FaultRig]:
    """A cluster without accounting, and its hub."""
    one = FaultRig(engines, SLURMDTIMEOUT=10, REQUEUEDELAY=5)
    yield one
    one.close()


@pytest.fixture
def hub(rig: FaultRig) -> Iterator[RealHub]:
    """The hub. Whatever happens to Slurm, it must not stumble over it."""
    one = rig.hub
    one.mark_log()
    rig.commands.clear()
    yield one
    rig.settle()
    assert not rig.tracebacks()
