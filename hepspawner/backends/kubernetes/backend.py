"""Kubernetes: a pod for each server, and one watch that tells of all of them."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from ...session import GRACE, describe
from ...templates import Templates
from ..accounts import account_of
from ..base import Backend, BackendError, JobStatus, Log, Phase, Tag
from ..tags import as_written
from . import pod as builder
from . import words
from .client import ApiError, Client, problems_of
from .cluster import Cluster
from .config import Identity, KubernetesConfig
from .making import Maker
from .names import OF_SERVER, object_name, pod_name
from .reading import Pod

if TYPE_CHECKING:
    from ...session import Session

_TICK = 5.0
_SYNC_PATIENCE = 30.0
_END_SPARE = 75.0
"""Seconds that the kubelet has to put a pod away; old ones clear up what never ran once a minute."""
_VERDICT_PATIENCE = 5.0


class KubernetesBackend(Backend):
    """A namespace of a Kubernetes cluster, or one for each user."""

    Config = KubernetesConfig
    config: KubernetesConfig
    queues = True
    runs_images = "references"

    _made: ClassVar[dict[tuple[str, str], Tag]] = {}
    """The backends' names and jobs of what this process made, for a site that is read again has other backends of
    these names: what such a job lacks may still come."""

    def __init__(self, name: str, config: KubernetesConfig, log: Log, templates: Templates | None = None):
        super().__init__(name, config, log, templates)
        self.needs_auth_state = config.run_as == "auth_state"
        self._client = Client(config)
        self._cluster: Cluster | None = None
        self._told: dict[str, JobStatus] = {}
        self._ends: dict[str, JobStatus] = {}
        self._words: dict[str, list[str]] = {}
        self._wanted: dict[str, Tag] = {}
        self._presumed: dict[str, Tag] = {}
        self._starts: set[asyncio.Future[None]] = set()
        self._unowned: dict[str, float] = {}
        self._maker = Maker(config, lambda: self._api)
        self._moved = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    # --- what does not need a cluster

    def problems(self) -> list[str]:
        return problems_of(self.config)

    def preview(self, session: "Session") -> str:
        tag = Tag(self.hub or "hub", session.user, "", "0" * 32)
        try:
            made = self._pod(session, tag, self.config.run_as if isinstance(self.config.run_as, Identity) else None)
        except ValueError as error:
            raise BackendError(str(error)) from None
        return f"{yaml.safe_dump(made, sort_keys=False)}---\n{describe(session)}"

    def _pod(self, session: "Session", tag: Tag, who: Identity | None) -> dict[str, Any]:
        wanted = builder.Wanted(session.name, session.gpu, session.groups)
        return builder.patched(builder.pod(self.config, session, tag, who, GRACE), self.config.pod_patch, tag, wanted)

    # --- the watch

    def open(self) -> None:
        self._spawn(self._watch())

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._cluster is not None:
            await self._cluster.close()
        await asyncio.gather(*self._starts, return_exceptions=True)  # they need not fail because a site changes
        await self._client.close()

    async def _watch(self) -> None:
        while not self._client.connected:
            try:
                await self._client.connect()
            except Exception as error:
                self.log.error("backend %s: %s", self.name, error, exc_info=not isinstance(error, BackendError))
                await asyncio.sleep(self.config.poll_interval)
        one = None if self._per_user else self._namespace("")
        cluster = Cluster(lambda: self._api, one, self.config.poll_interval, self.log, self.name)
        cluster.on_change, cluster.on_gone, cluster.on_list = self._changed, self._gone, self._listed
        self._cluster = cluster
        cluster.open(self.hub)
        self._move()
        while True:
            await asyncio.sleep(min(_TICK, self.config.poll_interval))
            try:
                if not cluster.feed.stale:
                    self._look_after(cluster)
            except Exception:  # whatever it is, it must not be the last look
                self.log.exception("backend %s: a look at its pods failed", self.name)

    def _look_after(self, cluster: Cluster) -> None:
        for pod in list(cluster.pods.values()):
            # Patience comes to an end without anything happening, and an end is told though telling of it failed once.
            if pod.waits or (pod.ended and pod.job not in self._ends):
                self._changed(pod)
        self._sweep(cluster.pods.values())

    @property
    def _api(self) -> Client:
        if not self._client.connected:
            raise BackendError(f"{self.title} is not connected yet; the hub's log says why")
        return self._client

    @property
    def _per_user(self) -> bool:
        return "{" in (self.config.namespace or "")

    def _namespace(self, user: str) -> str:
        template = self.config.namespace
        return object_name(template, user, most=63) if template else self._api.namespace

    def _job(self, tag: Tag) -> str:
        return f"{self._namespace(tag.user)}/{pod_name(tag)}"

    async def _synced(self) -> Cluster:
        """The cluster, once its pods were listed. Raises BackendError."""
        if not await self._until(lambda: self._cluster is not None, _SYNC_PATIENCE) or self._cluster is None:
            raise BackendError(f"{self.title} is not connected yet; the hub's log says why")
        await self._cluster.feed.synced(_SYNC_PATIENCE)
        return self._cluster

    def _changed(self, pod: Pod) -> None:
        assert self._cluster is not None
        if not self._is_ours(pod):
            return
        seen = self._cluster.seen(pod)
        status = words.status_of(seen, time.time(), self.config.scale_up_timeout)
        if status.phase is Phase.QUEUED and (self.name, pod.job) not in self._made and words.is_half_made(seen):
            status = words.HALF_MADE
        if trouble := seen.events.get("FailedMount"):
            self._spawn(self._maker.launcher_again(pod.namespace, trouble))
        if status.phase is Phase.ENDED or status.hopeless:
            self._words[pod.job] = words.last_words(pod)
        self._tell(pod, status)

    def _listed(self) -> None:
        presumed, self._presumed = self._presumed, {}
        assert self._cluster is not None
        for job, tag in presumed.items():
            if job not in self._cluster.pods:
                self.on_change(tag.session, self._lost(job))

    def _lost(self, job: str) -> JobStatus:
        return JobStatus(Phase.LOST, f"{self.title} knows nothing of pod {job} any more")

    def _gone(self, pod: Pod) -> None:
        assert self._cluster is not None
        if self._is_ours(pod):
            events = self._cluster.seen(pod).events
            self._tell(pod, words.end_of(replace(pod, leaving=True), events))
        if pod.job not in self._wanted:
            self._forget(pod.job)

    def _forget(self, job: str) -> None:
        """From now on it has no owner: where nobody else removes it, the watch does."""
        for known in (self._told, self._ends, self._words, self._wanted):
            known.pop(job, None)
        self._made.pop((self.name, job), None)

    def _is_ours(self, pod: Pod) -> bool:
        """Whether it is for this backend to judge: another one of the hub may have pods in the namespace, and anybody
        who may make pods in his can copy a tag."""
        return pod.tag is not None and pod.tag in (self._wanted.get(pod.job), self._made.get((self.name, pod.job)))

    def _tell(self, pod: Pod, status: JobStatus) -> None:
        assert pod.tag is not None
        if status.phase is Phase.ENDED:
            status = self._ends.setdefault(pod.job, status)
        self._move()  # also where no more is told of it: a stop waits for what runs beside a server that ended
        if self._told.get(pod.job) != status:
            self._told[pod.job] = status
            self.on_change(pod.tag.session, status)

    def _move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _until(self, condition: Any, seconds: float) -> bool:
        """Wait until something holds, looked at whenever a pod changed. Whether it came to hold."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not condition():
            moved = self._moved
            try:
                await asyncio.wait_for(moved.wait(), deadline - asyncio.get_running_loop().time())
            except asyncio.TimeoutError:
                return bool(condition())
        return True

    def _sweep(self, pods: Iterable[Pod]) -> None:
        """Remove pods of this hub that belong to nobody: of a start that was given up, or a stop that got lost."""
        now = asyncio.get_running_loop().time()
        seen, self._unowned = self._unowned, {}
        for pod in pods:
            if pod.tag is None or pod.tag.hub != self.hub or pod.leaving or pod.job in self._wanted:
                continue
            since = self._unowned[pod.job] = seen.get(pod.job, now)
            if now - since < 2 * self.config.poll_interval:
                continue
            if self.owned(pod.tag):
                del self._unowned[pod.job]
            else:
                self.log.warning(
                    "backend %s: pod %s (%s) belongs to no server: removing it", self.name, pod.job, pod.tag
                )
                self._unowned[pod.job] = now  # if it stays, it is tried as long again
                self._spawn(self._let_go(pod.job))

    # --- jobs

    async def submit(self, session: "Session", tag: Tag, job_input: dict[str, Any]) -> str:
        await self._synced()
        who = await self._identity(session, tag)
        try:
            made = self._pod(session, tag, who)
        except ValueError as error:
            raise BackendError(str(error)) from None
        namespace, job = self._namespace(tag.user), self._job(tag)
        self._wanted[job] = self._made[self.name, job] = as_written(tag)
        work = asyncio.ensure_future(self._maker.start(namespace, made, tag, job_input, self._note, session.claim))
        self._starts.add(work)
        work.add_done_callback(self._starts.discard)
        try:
            await asyncio.shield(work)
        except (Exception, asyncio.CancelledError) as error:
            # A request may be on its way: what comes of it must not be left.
            self._spawn(self._unwanted(work, job))
            if isinstance(error, (BackendError, asyncio.CancelledError)):
                raise
            self.log.exception("backend %s: pod %s could not be made", self.name, job)
            raise BackendError(f"its pod could not be made: {error}") from None
        return job

    async def _unwanted(self, work: "asyncio.Future[None]", job: str) -> None:
        try:
            await asyncio.gather(work, return_exceptions=True)
        finally:
            self._forget(job)
        await self._let_go(job)

    async def _identity(self, session: "Session", tag: Tag) -> Identity | None:
        """Whose numbers a pod has. Raises BackendError."""
        run_as = self.config.run_as
        if isinstance(run_as, Identity):
            return run_as
        if run_as == "account":
            account = await account_of(tag.user)
            process = account.process
            return Identity(uid=process["user"], gid=process["group"], groups=process["extra_groups"])
        if run_as == "auth_state":
            try:
                return Identity.of_login(session.auth_state)
            except ValueError as error:
                raise BackendError(str(error)) from None
        return None

    def _note(self, pod: Pod) -> None:
        if self._cluster is not None and pod.job not in self._ends:  # it may be gone already
            self._cluster.add(pod)

    async def find(self, tag: Tag) -> str | None:
        if self.config.namespace and not (self._cluster and self._cluster.feed.lists):
            # A hub that starts must not wait for the cluster: if there is a pod, this is it.
            job = self._job(tag)
            self._presumed[job] = self._wanted[job] = as_written(tag)
            return job
        cluster = await self._synced()
        if cluster.feed.stale:
            raise BackendError(f"{self.title} cannot be seen: {cluster.feed.problem}")
        job = self._job(tag)
        pod = cluster.pods.get(job)
        if pod is None or pod.tag != as_written(tag):
            return None
        self._wanted[job] = as_written(tag)
        return job

    async def status(self, job: str, tag: Tag) -> JobStatus:
        self._wanted[job] = as_written(tag)
        if job in self._ends:
            return self._ends[job]
        cluster = self._cluster
        if cluster is None or not cluster.feed.lists or cluster.feed.stale:
            problem = cluster.feed.problem if cluster else "the hub has just been started"
            return JobStatus(Phase.UNKNOWN, f"{self.title} cannot be seen at the moment ({problem})")
        pod = cluster.pods.get(job)
        if pod is None or pod.tag != as_written(tag):
            return self._lost(job)
        self._changed(pod)
        return self._told[job]

    async def verdict(self, job: str) -> JobStatus | None:
        def over() -> bool:
            pod = self._cluster.pods.get(job) if self._cluster else None
            return job in self._ends or (pod is not None and pod.leaving)

        if not await self._until(over, _VERDICT_PATIENCE):
            return None
        if job in self._ends:
            return self._ends[job]
        return JobStatus(Phase.ENDED, "its pod was deleted", None, "Ask the site's admins if it was not you.")

    async def last_words(self, job: str, tag: Tag, started: bool = True) -> list[str]:
        return self._words.get(job, [])

    async def cancel(self, job: str, tag: Tag, grace: float) -> None:
        self._wanted.setdefault(job, as_written(tag))
        cluster = await self._synced()
        seconds = int(grace) + (builder.SPARE if grace else 0)
        begun, problem = asyncio.get_running_loop().time(), ""
        while True:
            try:
                await self._remove(job, seconds)
                problem = ""
            except ApiError as error:
                problem = str(error)
            left = begun + seconds + _END_SPARE - asyncio.get_running_loop().time()

            def gone() -> bool:
                pod = cluster.pods.get(job)
                return not cluster.feed.stale and (pod is None or (pod.leaving and pod.over))

            if await self._until(gone, min(left, 5.0) if problem else left):
                return
            if not problem or left < 0:
                break
        pod = cluster.pods.get(job)
        where = f" on node {pod.node}" if pod and pod.node else ""
        why = problem or (cluster.feed.problem if cluster.feed.stale else f"it is stuck in Terminating{where}")
        text = f"it cannot be told whether pod {job} ended: {why}"
        self.log.warning("backend %s: %s", self.name, text)
        raise BackendError(text)

    async def _remove(self, job: str, grace: int) -> None:
        namespace, _, name = job.partition("/")
        await self._api.delete("Pod", namespace, name, grace=max(1, grace))

    async def forget(self, job: str, tag: Tag) -> None:
        self._forget(job)
        await self._let_go(job)

    async def _let_go(self, job: str) -> None:
        """Remove a pod that has no owner; where that fails the watch does it later."""
        try:
            await self._remove(job, 0)
        except BackendError as error:
            self.log.warning("backend %s: pod %s is left for now: %s", self.name, job, error)

    async def delete_forever(self, user: str, server: str) -> None:
        made = self.config.home.pvc if self.config.home else None
        per_server = any(f"{{{one}}}" in self.config.pvc_name_template for one in OF_SERVER)
        if made is None or not made.delete or (server and not per_server):
            return
        await self._synced()
        namespace = self._namespace(user)
        if await self._maker.unmake_home(namespace, Tag(self.hub, user, server, "")):
            self.log.warning("backend %s: removed the home of %s, who was deleted, in %s", self.name, user, namespace)

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            known = isinstance(error, BackendError)
            self.log.error("backend %s: %s", self.name, error, exc_info=None if known else error)
