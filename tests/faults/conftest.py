"""One Slurm with a hub, and one HTCondor for all tests of faults. After each all is mended, and nothing may be left."""

import logging
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from hepspawner.backends import batch
from hepspawner.backends.htcondor import HTCondorBackend, HTCondorConfig
from tests.faults.condor import HUB, Make
from tests.faults.kube import cluster, join, relay  # noqa: F401
from tests.faults.rig import FaultRig
from tests.htcondor import Condor, counting_commands
from tests.hubs import pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub
from tests.slurm import Commands


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


@pytest.fixture(scope="session")
def pool() -> Iterator[Condor]:
    """A pool of HTCondor."""
    with Condor() as one:
        yield one


@pytest.fixture
def calls() -> Iterator[Commands]:
    """Its commands, which `make` uses."""
    with tempfile.TemporaryDirectory(prefix="condor-commands-") as directory:
        yield counting_commands(directory)


@pytest.fixture
def mended(pool: Condor) -> Iterator[None]:
    """After the test all daemons answer, and there is no job."""
    yield
    pool.mend()
    pool.remove_all()


@pytest.fixture
async def make(pool: Condor, calls: Commands, mended: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes a backend of the pool, whose commands are counted."""
    monkeypatch.setattr(batch, "_CANCEL_AGAIN", 3.0)
    monkeypatch.setattr(batch, "_RECONCILE_AGAIN", 1.0)
    made: list[HTCondorBackend] = []

    def new(timeout: str = "20s", environment: dict[str, str] | None = None, **more: Any) -> HTCondorBackend:
        paths = {name: str(calls.directory / name) for name in calls.names}
        commands = {
            "paths": paths,
            "environment": {**pool.env, **(environment or {})},
            "timeouts": dict.fromkeys(calls.names, timeout),
        }
        part = {"type": "htcondor", "poll_interval": "1s", "commands": commands, **more}
        one = HTCondorBackend("farm", HTCondorConfig.model_validate(part), logging.getLogger("test"))
        one.hub = HUB
        one.open()
        made.append(one)
        return one

    yield new
    for one in made:
        await one.close()
