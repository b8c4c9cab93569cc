"""The hub dies while it submits; jobs that nobody owns; many servers, and how much of Slurm they need."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.faults.rig import FaultRig, nothing
from tests.realhub import RealHub, eventually

pytestmark = pytest.mark.needs("hub6", "slurm")
MANY = 200


@pytest.mark.parametrize("before", [True, False], ids=["before there is a job", "after"])
def test_the_hub_dies_while_it_submits(hub: RealHub, rig: FaultRig, before: bool) -> None:
    gate = rig.slurm.directory / "sbatch.gate"
    gate.touch()
    wait = f"while [ -e {gate} ]; do sleep 0.05; done"
    rig.commands.break_("sbatch", f'{wait}; "$real" "$@"' if before else f'job=$("$real" "$@"); {wait}; echo "$job"')
    hub.begin("alice", {"image": "tiny"})
    eventually(lambda: rig.commands.calls("sbatch"), "sbatch is called")
    if not before:
        eventually(rig.ids, "there is a job")
    hub.kill()
    gate.unlink()  # what still runs of sbatch goes on without its hub
    eventually(lambda: not rig.running("sbatch"), "sbatch has ended")
    hub.start()
    rig.looks(5)

    def settled() -> bool:
        model, jobs = hub.model("alice"), rig.ids()
        return bool(model.get("ready")) and len(jobs) == 1 if model else not jobs

    eventually(settled, "one server with one job, or none with none")
    assert len(rig.commands.calls("sbatch")) == 1
    assert not hub.model("alice") or rig.answers("alice")


def test_jobs_of_nobody_are_removed(hub: RealHub, rig: FaultRig) -> None:
    job = rig.start("alice")
    keeps = rig.start("bob")
    hub.kill()
    with sqlite3.connect(hub.database) as database:
        database.execute("delete from spawners where user_id = (select id from users where name = 'alice')")
    rig.commands.clear()
    hub.start()
    eventually(lambda: rig.ids() == [keeps.id], "the job is removed")
    assert f"job {job.id} " in hub.new_log() and "belongs to no server: removing it" in hub.new_log()
    assert [call[2].split()[-1] for call in rig.commands.calls("scancel")] == [str(job.id)]
    hub.ready("bob")
    assert rig.answers("bob")


def test_stops_of_many_at_once(hub: RealHub, rig: FaultRig, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of many users: JupyterHub itself has a hard time with many servers of one.
    hub.change_site({**rig.site(), "backends": {"engine": {**rig.part(), "run_as": "none"}}})
    # Nor through the proxy, which has room for ten requests that wait.
    monkeypatch.setattr(hub, "url", f"http://127.0.0.1:{hub.hub_port}")
    rig.slurm.drain()
    names = [f"user{number}" for number in range(MANY)]
    starts = [hub.begin(name, {"image": "tiny"}) for name in names]
    eventually(lambda: len(rig.ids()) == MANY, "all are queued", 120)
    assert all(start.result(60).status_code == 202 for start in starts)
    rig.commands.clear()
    with ThreadPoolExecutor(MANY) as pool:
        stops = [pool.submit(hub.stop_server, name) for name in names]
        while not all(stop.done() for stop in stops):
            assert requests.get(f"{hub.url}/hub/health", timeout=60).status_code == 200
        # JupyterHub gives a start that it interrupts a second; where that is not enough (500), one has to ask again
        assert {stop.result().status_code for stop in stops} <= {202, 204, 500}
    assert 1 <= len(rig.commands.calls("scancel")) <= MANY / 10
    hub.stop_servers()
    nothing("jobs", rig.our_jobs)


def test_how_often_slurm_is_asked(hub: RealHub, rig: FaultRig) -> None:
    """Once per interval, however many servers there are; one sbatch for each start, and nothing for a restart."""

    def asked(act: Any) -> dict[str, int]:
        rig.commands.clear()
        act()
        found: dict[str, int] = {}
        for _, name, _ in rig.commands.calls():
            found[name] = found.get(name, 0) + 1
        return found

    counts = []
    for names in (["s0"], [f"s{number}" for number in range(1, 8)]):
        began = time.monotonic()
        starts = asked(lambda names=names: [rig.start("alice", name) for name in names])
        looks = time.monotonic() - began
        assert starts["sbatch"] == len(names)
        # a new job has one more look of its own at most
        assert set(starts) <= {"sbatch", "squeue", "sinfo"} and starts.get("squeue", 0) <= looks + len(names) + 2
        counts.append(asked(lambda: hub_is_watched(6)))
    for count in counts:
        assert set(count) <= {"squeue", "sinfo"} and 3 <= count["squeue"] <= 8, counts
    assert abs(counts[0]["squeue"] - counts[1]["squeue"]) <= 2
    hub.kill()
    rig.commands.clear()
    hub.start()
    for number in range(8):
        hub.ready("alice", f"s{number}")
    restart = {name for _, name, _ in rig.commands.calls()}
    assert restart <= {"squeue", "sinfo", "scontrol"} and len(rig.commands.calls("squeue")) <= 8


def hub_is_watched(seconds: float) -> None:
    """Let some time pass: what is counted here is what happens in it."""
    end = time.monotonic() + seconds
    eventually(lambda: time.monotonic() > end, "time passes", seconds + 5)
