"""A Kubernetes backend before an API server that is made up: faults that a real one cannot be made to show at will."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from hepspawner.backends.base import BackendError, JobStatus, Phase, Tag
from hepspawner.backends.kubernetes import KubernetesBackend, KubernetesConfig, making, words
from hepspawner.backends.kubernetes import backend as module
from hepspawner.backends.kubernetes.client import ApiError

HUB, SPACE = "0123456789ab", "lab"
SESSION: Any = SimpleNamespace(
    user="alice",
    name="lab",
    container_image="quay.io/jupyter/base:1",
    cpus=None,
    memory=None,
    gpu=None,
    gpus=0,
    mounts=[],
    groups=(),
    auth_state={},
    claim=None,
)
AWAY = ApiError("the API server does not answer: it is away")
PATIENCE = 30.0


class Api:
    """What several clients see: objects by kind and name, and watches that tell of pods and events."""

    connected, namespace = True, SPACE

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, dict[str, Any]]] = {}
        self.watches: dict[str, list[asyncio.Queue[Any]]] = {"pods": [], "events": []}
        self.faults: dict[tuple[str, str], list[Exception]] = {}
        """What the next requests of such a verb and kind end in; the last one for ever, if it is `AWAY`."""
        self.asked: list[tuple[str, str]] = []
        self.hold: dict[tuple[str, str], asyncio.Event] = {}
        """What answers wait for, of such requests."""
        self.version = 1

    async def _ask(self, verb: str, kind: str) -> None:
        self.asked.append((verb, kind))
        if hold := self.hold.get((verb, kind)):
            await hold.wait()
        if faults := self.faults.get((verb, kind)):
            raise faults[0] if faults[0] is AWAY else faults.pop(0)

    async def create(self, namespace: str | None, thing: dict[str, Any]) -> dict[str, Any]:
        await self._ask("create", thing["kind"])
        there = self.objects.setdefault(thing["kind"], {})
        name = thing["metadata"]["name"]
        if name in there:
            raise ApiError(f"{name} already exists", 409, "AlreadyExists")
        self.version += 1
        when = datetime.now(timezone.utc).isoformat()
        more = {"namespace": namespace, "uid": f"u{self.version}", "resourceVersion": str(self.version)}
        made = {**thing, "metadata": {**thing["metadata"], **more, "creationTimestamp": when}}
        there[name] = {**made, "status": {"phase": "Pending"}} if thing["kind"] == "Pod" else made
        if thing["kind"] == "Pod":
            self.tell("pods", "ADDED", there[name])
        return there[name]

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        await self._ask("get", kind)
        try:
            return self.objects[kind][name]
        except KeyError:
            raise ApiError(f'{kind} "{name}" not found', 404, "NotFound") from None

    async def delete(self, kind: str, namespace: str, name: str, uid: str = "", grace: int | None = None) -> None:
        await self._ask("delete", kind)
        if gone := self.objects.get(kind, {}).pop(name, None):
            self.tell("pods", "DELETED", gone)

    async def list(self, path: str, **query: Any) -> AsyncIterator[dict[str, Any]]:
        what = path.rpartition("/")[2]
        page = {"metadata": {"resourceVersion": str(self.version)}, "items": []}
        if what == "pods":
            page["items"] = list(self.objects.get("Pod", {}).values())
        await self._ask("list", what)
        yield page

    @asynccontextmanager
    async def watch(self, path: str, seconds: float, **query: Any) -> AsyncIterator[Any]:
        told: asyncio.Queue[Any] = asyncio.Queue()
        queues = self.watches[path.rpartition("/")[2]]

        async def events() -> AsyncIterator[Any]:
            while True:
                one = await told.get()
                if isinstance(one, Exception):
                    raise one
                yield one

        queues.append(told)
        try:
            yield events()
        finally:
            queues.remove(told)

    def tell(self, what: str, kind: str, thing: dict[str, Any]) -> None:
        """Have all watches see something."""
        self.version += 1
        metadata = {**thing["metadata"], "resourceVersion": str(self.version)}
        for one in self.watches[what]:
            one.put_nowait({"type": kind, "object": {**thing, "metadata": metadata}})

    def cut(self, error: Exception) -> None:
        """End the watches of pods."""
        for one in self.watches["pods"]:
            one.put_nowait(error)

    def happens(self, job: str, reason: str, message: str, at: float) -> None:
        """Have an event of a pod seen."""
        when = datetime.fromtimestamp(at, timezone.utc).isoformat()
        about = {"kind": "Pod", "namespace": SPACE, "name": job.partition("/")[2]}
        event = {"metadata": {"name": "e"}, "involvedObject": about, "reason": reason, "message": message}
        self.tell("events", "ADDED", {**event, "type": "Warning", "lastTimestamp": when})

    @property
    def pods(self) -> dict[str, dict[str, Any]]:
        """Those there are, by name."""
        return self.objects.get("Pod", {})


class Connection:
    """A client of it; what it was asked when it is closed comes to nothing."""

    def __init__(self, api: Api):
        self._api, self._closed = api, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    async def create(self, namespace: str | None, thing: dict[str, Any]) -> dict[str, Any]:
        made = await self._api.create(namespace, thing)
        if self._closed:
            raise RuntimeError("Session is closed")
        return made

    async def close(self) -> None:
        self._closed = True


async def until(condition: Callable[[], object]) -> None:
    """Wait until something holds."""

    async def holds() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(holds(), PATIENCE)


def tag(user: str = "alice", session: str = "f" * 32) -> Tag:
    return Tag(HUB, user, "", session)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    monkeypatch.setattr(making, "_AGAIN", 0.01)
    monkeypatch.setattr(KubernetesBackend, "_made", {})
    return Api()


class Told(list[tuple[str, JobStatus]]):
    """What a backend told, and of which session."""

    def __call__(self, session: str, status: JobStatus) -> None:
        self.append((session, status))


@pytest.fixture
async def join(api: Api) -> AsyncIterator[Callable[..., KubernetesBackend]]:
    made = []

    def new(name: str = "k8s", interval: float = 0.05, owned: bool = True, **more: Any) -> KubernetesBackend:
        config = KubernetesConfig.model_validate({"type": "kubernetes", "namespace": SPACE, **more})
        one = KubernetesBackend(name, config.model_copy(update={"poll_interval": interval}), logging.getLogger("test"))
        one._client = Connection(api)  # type: ignore[assignment]
        one.hub, one.owned, one.on_change = HUB, lambda tag: owned, Told()
        one.open()
        made.append(one)
        return one

    yield new
    for one in made:
        await one.close()


Join = Callable[..., KubernetesBackend]


# --- what is made while something else happens


async def test_a_pod_that_is_made_while_all_are_listed_again(api: Api, join: Join) -> None:
    backend = join()
    first = await backend.submit(SESSION, tag(), {})
    api.hold["list", "pods"] = hold = asyncio.Event()
    api.cut(ApiError("too old", 410))
    await until(lambda: api.asked.count(("list", "pods")) == 2)
    second = await backend.submit(SESSION, tag(session="e" * 32), {})
    hold.set()
    await until(lambda: backend._cluster and backend._cluster.feed.lists == 2)
    for job, one in ((first, tag()), (second, tag(session="e" * 32))):
        assert (await backend.status(job, one)).phase is Phase.QUEUED
    assert all(status.phase is Phase.QUEUED for _, status in backend.on_change)  # type: ignore[attr-defined]
    # what the next list lacks is gone
    await until(lambda: api.watches["pods"])
    del api.pods[second.partition("/")[2]]
    api.cut(ApiError("too old", 410))
    await until(lambda: backend._cluster and backend._cluster.feed.lists == 3)
    assert (await backend.status(second, tag(session="e" * 32))).reason == "its pod was deleted"


async def test_a_site_that_is_changed_during_a_start(api: Api, join: Join) -> None:
    """The start goes on, and the backend that comes next does not say that half of it is missing."""
    backend = join()
    api.hold["create", "Secret"] = hold = asyncio.Event()
    start = asyncio.ensure_future(backend.submit(SESSION, tag(), {}))
    await until(lambda: ("create", "Secret") in api.asked)
    closing = asyncio.ensure_future(backend.close())
    after, told = join(), Told()
    after.on_change = told
    (name,) = api.pods
    await until(lambda: f"{SPACE}/{name}" in (after._cluster.pods if after._cluster else {}))
    api.pods[name]["spec"]["nodeName"] = "node1"
    api.tell("pods", "MODIFIED", api.pods[name])
    created = datetime.fromisoformat(api.pods[name]["metadata"]["creationTimestamp"]).timestamp()
    api.happens(f"{SPACE}/{name}", "FailedMount", f'secret "{name}" not found', created + 60)
    await until(lambda: any("a volume cannot be mounted" in status.reason for _, status in told))
    assert not any(status.hopeless for _, status in told)
    hold.set()
    assert await start == f"{SPACE}/{name}"
    await closing
    assert name in api.objects["Secret"]


@pytest.mark.parametrize("error", [AWAY, RuntimeError("Session is closed")])
async def test_what_a_start_that_failed_leaves_is_removed(
    api: Api, join: Join, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(making, "_PATIENCE", 0.05)
    backend = join(owned=False)
    api.faults = {("create", "Secret"): [error], ("delete", "Pod"): [AWAY]}
    with pytest.raises(BackendError, match=str(error)):
        await backend.submit(SESSION, tag(), {})
    await until(lambda: ("delete", "Pod") in api.asked)
    assert api.pods
    api.faults.clear()
    await until(lambda: not api.pods)


async def test_why_a_pod_without_an_owner_is_not_removed(
    api: Api, join: Join, caplog: pytest.LogCaptureFixture
) -> None:
    backend = join()
    job = await backend.submit(SESSION, tag(), {})
    await backend.close()
    refused = 'pods "x" is forbidden: User "hub" cannot delete'
    api.faults["delete", "Pod"] = [ApiError(refused, 403, "Forbidden")]
    join(owned=False)
    await until(lambda: not api.pods)
    assert f"pod {job} is left for now: {refused}" in caplog.text


# --- whose pods they are


async def test_two_backends_of_a_hub_in_one_namespace(api: Api, join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    patient, hasty = join("patient", scale_up_timeout="30m"), join("hasty", scale_up_timeout="1s")
    job = await patient.submit(SESSION, tag(), {})
    pod = api.pods[job.partition("/")[2]]
    pod["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    pod["status"]["conditions"] = [said]
    monkeypatch.setattr(module.time, "time", lambda: datetime(2026, 1, 1, 0, 1, tzinfo=timezone.utc).timestamp())
    api.tell("pods", "MODIFIED", pod)
    for one in (patient, hasty):
        await until(lambda one=one: one._cluster and one._cluster.pods[job].unscheduled)
    assert not hasty.on_change  # type: ignore[attr-defined]
    assert not (await patient.status(job, tag())).hopeless


async def test_a_tag_that_was_copied(api: Api, join: Join) -> None:
    backend = join(namespace="own-{username}")
    job = await backend.submit(SESSION, tag(), {})
    (pod,) = api.pods.values()
    metadata = {**pod["metadata"], "namespace": "own-eve", "name": "jupyter-evil"}
    api.tell("pods", "ADDED", {**pod, "metadata": metadata, "status": {"phase": "Failed"}})
    await until(lambda: backend._cluster and "own-eve/jupyter-evil" in backend._cluster.pods)
    assert (await backend.status(job, tag())).phase is Phase.QUEUED
    assert all(status.phase is Phase.QUEUED for _, status in backend.on_change)  # type: ignore[attr-defined]


# --- requests that fail, and are repeated

CONFLICT = 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified'


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (("create", "Pod"), ApiError(CONFLICT, 409, "Conflict")),
        (("create", "Pod"), ApiError("the API server does not answer")),
        (("get", "PersistentVolumeClaim"), ApiError("the API server does not answer")),
    ],
)
async def test_a_request_is_repeated(api: Api, join: Join, request_: tuple[str, str], fault: Exception) -> None:
    api.faults[request_] = [fault, fault]
    await join(home={"pvc": {"size": "1G"}}).submit(SESSION, tag(), {})
    assert api.asked.count(request_) == 3


async def test_a_pod_that_was_made_by_a_request_without_an_answer(api: Api, join: Join) -> None:
    class Deaf(Api):
        async def create(self, namespace: str | None, thing: dict[str, Any]) -> dict[str, Any]:
            made = await super().create(namespace, thing)
            if thing["kind"] == "Pod":
                raise ApiError("the API server does not answer")
            return made

    deaf = Deaf()
    deaf.faults["get", "Pod"] = [ApiError("the API server does not answer")]
    backend = join()
    backend._client = Connection(deaf)  # type: ignore[assignment]
    assert await backend.submit(SESSION, tag(), {}) == f"{SPACE}/{next(iter(deaf.pods))}"


async def test_a_namespace_that_is_not_known_everywhere_at_once(api: Api, join: Join) -> None:
    fault = ApiError('namespaces "own-alice" not found', 404, "NotFound")
    api.faults["create", "ConfigMap"] = [fault, fault, fault]
    await join(namespace="own-{username}").submit(SESSION, tag(), {})
    assert api.asked.count(("create", "ConfigMap")) == 4 and api.asked.count(("create", "Namespace")) == 1


async def test_a_namespace_that_never_comes(api: Api, join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "_PATIENCE", 0.05)
    api.faults["create", "ConfigMap"] = [ApiError('namespaces "own-alice" not found', 404, "NotFound")] * 1000
    with pytest.raises(BackendError, match="Kubernetes lacks something that it needs"):
        await join(namespace="own-{username}").submit(SESSION, tag(), {})


async def test_a_launcher_that_was_removed_is_made_again_for_the_pod_that_waits(api: Api, join: Join) -> None:
    backend = join()
    job = await backend.submit(SESSION, tag(), {})
    (name,) = api.objects["ConfigMap"]
    for at in (1000.0, 2000.0):
        del api.objects["ConfigMap"][name]
        api.happens(job, "FailedMount", f'configmap "{name}" not found', at)
        await until(lambda: api.objects["ConfigMap"])


# --- what a watch tells


async def test_what_could_not_be_taken_in_is_looked_at_again(
    api: Api, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = join()
    job = await backend.submit(SESSION, tag(), {})
    defects, end_of = [LookupError("a defect")], words.end_of

    def fails_once(*args: Any) -> JobStatus:
        if defects:
            raise defects.pop()
        return end_of(*args)

    monkeypatch.setattr(words, "end_of", fails_once)
    pod = api.pods[job.partition("/")[2]]
    pod["status"]["phase"] = "Failed"
    api.tell("pods", "MODIFIED", pod)
    await until(lambda: any(status.phase is Phase.ENDED for _, status in backend.on_change))  # type: ignore[attr-defined]
    await until(lambda: backend._cluster and backend._cluster.feed.lists == 2)
