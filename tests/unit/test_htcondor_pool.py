"""What HTCondor tells of its pool, and what its analysis of a job blames."""

import pytest

from hepspawner.backends.base import BackendError
from hepspawner.backends.htcondor import HTCondorConfig, answers, cluster

GPUS = {
    "new": {"capability": 9.0},
    "large": {"require": 'DeviceName == "A100-SXM4-40GB"', "memory": "40G"},
    "elsewhere": {"requirements": 'Machine == "elsewhere"'},
}
CONFIG = HTCondorConfig.model_validate({"type": "htcondor", "title": "The pool", "gpus": GPUS})
MACHINE = "Machine slot1@worker undefined"
# part, usable, cores free and in all, MiB, KiB, GPUs in all, and of each kind
SLOTS = f"""
{MACHINE} 0 1 62 64 200000 1000000.0 2 0 1 0
{MACHINE}2 0 0 64 64 100000 900000.0 0 0 0 0
Machine slot1_1@worker undefined 1 0 2 2 100 1000.0 1 0 1 0
"""


def pool() -> list[cluster.Slot]:
    return cluster.read_pool(SLOTS.strip(), CONFIG.gpus)[0]


def analysis(condition: str, **attributes: str) -> str:
    """As condor_q -better-analyze of HTCondor 25."""
    defined = "".join(f"    {name} = {value}\n" for name, value in attributes.items())
    return f"""
The Requirements expression for job 5.000 is

    ((Machine isnt "x") && (Foo is 3)) && (TARGET.Cpus >= RequestCpus)

Job 5.000 defines the following attributes:

{defined}
        Slots
Step   Matched  Condition
----- --------- ---------
[7]           3  TARGET.Memory >= RequestMemory
[13]          0  {condition}
[14]          0  [1] && [13]
"""


EXPRESSION = "MAX({ 1024,(TransferInputSizeMB + 1) * 1.25 }) * 1024 (kb)"
COUNTED = "countMatches(MY.RequireGPUs,TARGET.AvailableGPUs) >= RequestGPUs"
CAPABLE = {"RequireGPUs": "Capability >= GPUsMinCapability", "GPUsMinCapability": "9.0", "RequestGPUs": "1"}
LARGE = {
    "RequireGPUs": '(DeviceName == "A100-SXM4-40GB") && GlobalMemoryMb >= GPUsMinMemory',
    "GPUsMinMemory": "40960",
}


@pytest.mark.parametrize(
    ("text", "blamed"),
    [
        (analysis("Foo is 3", RequestDisk=EXPRESSION), ["Foo is 3"]),
        (analysis("TARGET.Cpus >= RequestCpus", RequestCpus="65"), ["Cpus >= 65"]),
        (analysis("TARGET.Cpus >= RequestCpus", RequestCpus="64"), []),
        (analysis("TARGET.Memory >= RequestMemory", RequestMemory="200001 (mb)"), ["Memory >= 200001 (mb)"]),
        (analysis("TARGET.Memory >= RequestMemory", RequestMemory="200000 (mb)"), []),
        (analysis("TARGET.GPUs >= RequestGPUs", RequestGPUs="3"), ["GPUs >= 3"]),
        (analysis("TARGET.GPUs >= RequestGPUs", RequestGPUs="2"), []),
        (analysis(COUNTED, **CAPABLE), ["GPUs >= 1 with Capability >= 9.0"]),
        (analysis(COUNTED, **LARGE, RequestGPUs="2"), []),  # one of the two is in use
        (analysis(COUNTED, RequireGPUs="Odd", RequestGPUs="2"), []),  # of a site that was changed meanwhile
        (analysis("Foo is 3", RequestDisk="1000001 (kb)"), ["Disk >= 1000001 (kb)", "Foo is 3"]),
        (analysis("TARGET.Disk >= RequestDisk", RequestDisk="1000001 (kb)"), ["Disk >= 1000001 (kb)"]),
        (analysis("TARGET.Disk >= RequestDisk", RequestDisk="1000000 (kb)"), []),
        (analysis("TARGET.Disk >= RequestDisk", RequestDisk=EXPRESSION), []),
    ],
)
def test_what_no_machine_could_ever_have_is_blamed(text: str, blamed: list[str]) -> None:
    most = cluster.largest(pool(), CONFIG.gpus)
    assert [one for one in answers.read_analysis(text) if not cluster.may_be_in_use(one, most)] == blamed


def test_more_gpus_of_a_kind_than_one_machine_has_are_blamed() -> None:
    (asked,) = answers.read_analysis(analysis(COUNTED, **LARGE, RequestGPUs="3"))
    assert not cluster.may_be_in_use(asked, cluster.largest(pool(), CONFIG.gpus))
    assert asked.startswith("GPUs >= 3 with") and asked.endswith("GlobalMemoryMb >= 40960")


def test_room_is_not_blamed_while_nothing_is_known_of_the_pool() -> None:
    nothing = cluster.largest([], CONFIG.gpus)
    for asked in ("Cpus >= 100", "GPUs >= 3", "GPUs >= 1 with Capability >= 9.0", "Disk >= 5 (kb)"):
        assert cluster.may_be_in_use(asked, nothing)
    assert not cluster.may_be_in_use("Foo is 3", nothing)


def test_slots() -> None:
    room = cluster.room(CONFIG, "farm", pool(), 5)
    assert (room.cores, room.gpus["large"], room.waiting, room.title) == (
        cluster.Amount(62, 128),
        cluster.Amount(1, 2),
        5,
        "The pool",
    )
    most = cluster.largest(pool(), CONFIG.gpus)
    assert (most.cores, most.memory, most.disk, most.gpus) == (64, 200000 * 2**20, 1000000 * 2**10, 2)


@pytest.mark.parametrize(
    "wrong", ["", "1 2 3", f"{MACHINE} 0 1 62 64 200000 9 undefined 1 0 0", "error x y z a b", "Machine", MACHINE]
)
def test_slots_that_cannot_be_read(wrong: str) -> None:
    with pytest.raises(BackendError):
        cluster.read_pool(wrong + "\n", CONFIG.gpus)
