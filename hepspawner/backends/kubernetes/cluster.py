"""What is known of a hub's pods in one cluster: two feeds, of pods and of events."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

from ..base import Log
from .client import Client, path_of
from .feed import Feed
from .names import PREFIX, selector
from .reading import Event, Pod, Seen, read_event, read_pod

_EVENTS = 2000
"""Pods of which events are kept: they may come before their pod does."""


class Cluster:
    """Pods by the id of their job. Nothing here waits, and nothing is asked for: it is told."""

    def __init__(self, client: Callable[[], Client], namespace: str | None, renewal: float, log: Log, name: str):
        """`namespace`: None for all; `name`: of the backend."""
        self._events: OrderedDict[str, dict[str, Event]] = OrderedDict()
        self.pods: dict[str, Pod] = {}
        self._added: dict[str, float] = {}
        """When pods were added that no feed told of yet, by the loop's clock."""
        self.on_change: Callable[[Pod], None] = lambda pod: None
        """Called when something happened to a pod."""
        self.on_gone: Callable[[Pod], None] = lambda pod: None
        """Called with a pod that is no more, as it was last."""
        self.on_list: Callable[[], None] = lambda: None
        """Called when all pods were listed."""
        of_pods = {"fieldSelector": "involvedObject.kind=Pod"}
        self.feed = Feed(client, path_of("Pod", namespace), {}, renewal, log, (name, "pods"), read_pod)
        events = path_of("events", namespace)
        self.happenings = Feed(client, events, of_pods, renewal, log, (name, "events"), _ours)
        self.feed.on_list, self.feed.on_event = self._pods_listed, self._pod_changed
        self.happenings.on_list, self.happenings.on_event = self._events_listed, self._event

    def open(self, hub: str) -> None:
        """Begin to watch the pods of a hub."""
        self.feed.select({"labelSelector": selector(hub)})
        self.feed.open()
        self.happenings.open()

    async def close(self) -> None:
        """Watch no more."""
        await self.feed.close()
        await self.happenings.close()

    def seen(self, pod: Pod) -> Seen:
        """A pod and what happened to it."""
        return Seen(pod, self._events.get(pod.job, {}))

    def add(self, pod: Pod) -> None:
        """Take in a pod that was just made: until a feed tells of it, its absence must not mean its end."""
        if pod.job not in self.pods:
            self.pods[pod.job] = pod
            self._added[pod.job] = asyncio.get_running_loop().time()

    def _pods_listed(self, found: Iterable[Pod]) -> None:
        before, self.pods = self.pods, {pod.job: pod for pod in found}
        added, self._added = self._added, {}
        for job, at in added.items():
            if at >= self.feed.asked_at and job in before and job not in self.pods:
                # Made after the list was; the watch that begins now tells of it.
                self.pods[job], self._added[job] = before[job], at
        for job, pod in before.items():
            if job not in self.pods or self.pods[job].uid != pod.uid:
                self.on_gone(pod)
        for job, pod in list(self.pods.items()):
            if before.get(job) != pod:
                self.on_change(pod)
        self.on_list()

    def _pod_changed(self, kind: str, pod: Pod) -> None:
        self._added.pop(pod.job, None)
        if kind == "DELETED":
            self.pods.pop(pod.job, None)
            self.on_gone(pod)
            self._events.pop(pod.job, None)
        elif self.pods.get(pod.job) != pod:
            self.pods[pod.job] = pod
            self.on_change(pod)

    def _events_listed(self, found: Iterable[Event]) -> None:
        for event in sorted(found, key=lambda one: one.at):
            self._note(event)

    def _event(self, kind: str, event: Event) -> None:
        if kind != "DELETED":
            self._note(event)

    def _note(self, event: Event) -> None:
        job = f"{event.namespace}/{event.pod}"
        self._events.setdefault(job, {})[event.reason] = event
        self._events.move_to_end(job)
        if len(self._events) > _EVENTS:
            self._events.popitem(last=False)
        if (pod := self.pods.get(job)) is not None:
            self.on_change(pod)


def _ours(item: dict[str, Any]) -> Event | None:
    """An event, if it can be of a pod of ours."""
    event = read_event(item)
    return event if event is not None and event.pod.startswith(PREFIX) else None
