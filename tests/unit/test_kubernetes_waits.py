"""How long a pod may wait for what, when its server is over, and what is told of one that ends again and again."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from hepspawner.backends.base import JobStatus, Phase, Tag
from hepspawner.backends.kubernetes import KubernetesBackend, KubernetesConfig, words
from hepspawner.backends.kubernetes.names import TAG
from hepspawner.backends.kubernetes.reading import Seen, read_event, read_pod, seconds
from hepspawner.backends.tags import as_written, write_tag
from hepspawner.hub.run import Run
from hepspawner.hub.watch import Watch

CREATED = "2026-01-01T00:00:00Z"
PATIENCE = 600.0
SERVER_WAITS = {"name": "server", "state": {"waiting": {"reason": "ContainerCreating"}}}


def later(after: float) -> str:
    """The time so many seconds after the pod was made."""
    return f"2026-01-01T00:{int(after) // 60:02}:{int(after) % 60:02}Z"


def raw_pod(*containers: dict[str, Any], node: str = "node1", **more: Any) -> dict[str, Any]:
    metadata = {"name": "p", "namespace": "n", "uid": "u", "creationTimestamp": CREATED}
    spec = {"nodeName": node, "restartPolicy": more.pop("restart", "Never")}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Pending", "containerStatuses": containers, **more}}


def container(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, **more}


def event(reason: str, after: float, message: str = "") -> Any:
    about = {"kind": "Pod", "name": "p", "namespace": "n"}
    return read_event({"involvedObject": about, "reason": reason, "message": message, "lastTimestamp": later(after)})


def status(raw: dict[str, Any], after: float, *events: Any) -> JobStatus:
    """What is told of a pod so many seconds after it was made."""
    seen = Seen(read_pod(raw), {one.reason: one for one in events})
    return words.status_of(seen, seconds(CREATED) + after, PATIENCE)


# --- patience


def test_a_claim_that_was_just_made_may_not_be_known_to_the_scheduler_yet() -> None:
    missing = 'persistentvolumeclaim "claim-bob" not found. preemption: 0/1 nodes are available: 1 Preemption is not'
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": missing}
    one = raw_pod(node="", conditions=[condition])
    soon, then = status(one, 0.1), status(one, 31)
    assert "its volume claim-bob is not there" in soon.reason and not soon.hopeless and not soon.advice
    assert then.hopeless and then.advice


TROUBLES = [("FailedMount", "a volume cannot be mounted"), ("FailedCreatePodSandBox", "cannot make its network yet")]


@pytest.mark.parametrize("reason, meant", TROUBLES, ids=[one[0] for one in TROUBLES])
def test_a_node_that_took_long_to_come_has_its_own_time(reason: str, meant: str) -> None:
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": later(595)}
    one = raw_pod(SERVER_WAITS, conditions=[placed])
    trouble = event(reason, 605, "driver name cvmfs.csi.cern.ch not found in the list of registered CSI drivers")
    soon, then = status(one, 610, trouble), status(one, 1200, trouble)
    assert meant in soon.reason and not soon.hopeless
    assert meant in then.reason and then.hopeless
    assert "being pulled" in status(one, 1200, trouble, event("Pulling", 620)).reason


def test_a_volume_is_missed_also_by_a_pod_with_init_containers() -> None:
    """What waits for its volumes is said to wait for the init containers, which wait for them, too."""
    waits = {"waiting": {"reason": "PodInitializing"}}
    server, trouble = container("server", waits), event("FailedMount", 5, "timed out")
    init = [container("chown", waits)], [container("chown", {"running": {}})]
    assert [status(raw_pod(server, initContainerStatuses=one), 9, trouble).reason for one in init] == [
        "a volume cannot be mounted on node node1 (timed out)",
        "its container is being started on node node1",
    ]


# --- the end of the server

SIDECAR = container("proxy", {"running": {}})


def died(reason: str = "Error", code: int = 137) -> dict[str, Any]:
    return container("server", {"terminated": {"reason": reason, "exitCode": code, "message": "the last line"}})


def test_a_server_that_died_is_over_though_a_sidecar_runs_on() -> None:
    one = raw_pod(died("OOMKilled"), SIDECAR, phase="Running")
    found = status(one, 60)
    assert (found.phase, found.exit_code) == (Phase.ENDED, 137) and "needed more memory" in found.reason
    pod = read_pod(one)
    assert words.last_words(pod) == ["the last line"]
    assert not pod.over and not pod.waits  # a stop still waits for the sidecar


async def test_a_stop_hears_of_the_end_of_what_runs_beside_a_server_that_ended() -> None:
    backend = KubernetesBackend("pods", KubernetesConfig(type="kubernetes"), logging.getLogger("test"))
    backend.hub, tag = "hub", Tag("hub", "alice", "", "s1")
    one = raw_pod(died(), SIDECAR, phase="Running")
    one["metadata"]["annotations"] = {TAG: write_tag(tag)}
    pod, pods = read_pod(one), {}
    pods[pod.job], backend._wanted[pod.job] = pod, as_written(tag)
    backend._cluster = SimpleNamespace(pods=pods, seen=Seen)  # type: ignore[assignment]
    backend._changed(pod)
    gone = asyncio.ensure_future(backend._until(lambda: not pods, 60))
    await asyncio.sleep(0)
    del pods[pod.job]
    backend._gone(pod)
    assert await asyncio.wait_for(gone, 10)


def test_a_server_that_is_started_again_is_not_over() -> None:
    for restart, code, phase in (
        ("Always", 0, Phase.QUEUED),
        ("OnFailure", 1, Phase.QUEUED),
        ("OnFailure", 0, Phase.ENDED),
    ):
        found = status(raw_pod(died(code=code), SIDECAR, phase="Running", restart=restart), 60)
        assert found.phase is phase, (restart, code)


def test_what_ended_before_is_told_of_a_crash_loop() -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 1, "message": "one\nno space left"}}
    waits = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    one = raw_pod(container("server", waits, lastState=ended), restart="Always", phase="Running")
    found = status(one, 60)
    assert found.hopeless and "ends again and again" in found.reason
    assert words.last_words(read_pod(one)) == ["one", "no space left"]


async def test_a_user_sees_the_last_lines_of_what_is_given_up() -> None:
    run = Run(Tag("hub", "alice", "", "s1"), "pods", "", {})
    run.job, run.secrets = "n/p", lambda: ["t0ken"]
    ended: list[tuple[str, float]] = []

    class Pods:
        async def last_words(self, job: str, tag: Tag, started: bool) -> list[str]:
            assert not ended  # what is removed has no log any more
            return [f"{job} has no space left", "t0ken"]

        async def cancel(self, job: str, tag: Tag, grace: float) -> None:
            ended.append((job, grace))

    hub: Any = SimpleNamespace(backend=lambda name: Pods(), spawn=asyncio.ensure_future)
    await Watch(hub).conclude(run, JobStatus(Phase.QUEUED, "it ends again and again", None, "", True, host="node1"))
    await asyncio.sleep(0)
    assert run.ended and run.ended.log == ["n/p has no space left", "<secret>"] and ended == [("n/p", 0)]
