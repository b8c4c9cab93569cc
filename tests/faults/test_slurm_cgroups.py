"""Where Slurm holds jobs to their memory by cgroups."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults.rig import FaultRig
from tests.realhub import RealHub

pytestmark = pytest.mark.needs("hub6", "slurm")


@pytest.fixture(scope="module")
def rig(engines: dict[str, Any]) -> Iterator[FaultRig]:
    """A cluster with cgroups, and its hub."""
    one = FaultRig(engines, CGROUP=1)
    yield one
    one.close()


def test_too_much_memory(hub: RealHub, rig: FaultRig) -> None:
    hub.change_site(rig.site(memory={"default": "300M", "max": "2G"}))
    rig.start("alice", image="odd")
    rig.start("bob", image="odd", memory="2G")
    for user in ("alice", "bob"):
        os.kill(hub.server_get(user, "facts").json()["pid"], signal.SIGUSR2)
    hub.gone("alice")
    rig.no_route("alice")
    form = rig.form_says("needed more memory than")
    assert "Ask for more memory" in form
    rig.looks(2)
    assert rig.answers("bob")
