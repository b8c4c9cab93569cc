"""Making what belongs to a session: its pod, Secret and Service, the launcher's ConfigMap, the user's claim."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

from ..base import BackendError, Tag
from . import pod as builder
from . import words
from .client import ApiError, Client
from .config import KubernetesConfig
from .names import HUB, OWNER
from .reading import Event, Pod, read_pod
from .volumes import claim_name, home_of

_PATIENCE = 60.0
_AGAIN = 1.0


class Maker:
    """Makes objects, each once, however often a request has to be repeated: names are a session's own."""

    def __init__(self, config: KubernetesConfig, client: Callable[[], Client]):
        self._config, self._client = config, client
        self._launcher_in: dict[str, float] = {}
        """Namespaces that have the ConfigMap; since when its absence would be news, in seconds since the epoch."""

    async def start(
        self,
        namespace: str,
        made: dict[str, Any],
        tag: Tag,
        job_input: dict[str, Any],
        noted: Callable[[Pod], None],
        claim: str | None = None,
    ) -> None:
        """Make a pod and all that it needs; `noted` is called with the pod; `claim`: see `claim_name`. Raises
        BackendError."""
        await asyncio.gather(self._launcher(namespace), self._home(namespace, tag, claim))
        pod = await self._surely(namespace, made)
        noted(read_pod(pod))
        owner = pod["metadata"]
        job_input = {
            **job_input,
            "port": self._config.port,
            "home": home_of(self._config, tag.user),
            "home_needed": True,
        }
        if self._config.connect == "service":
            service = await self._surely(namespace, builder.service(self._config, tag, owner))
            job_input["address"] = service["spec"]["clusterIP"]
            job_input["port_needed"] = True
        # Owned by the pod, and so after it: a hub that dies in between leaves no Secret behind. The kubelet waits.
        await self._surely(namespace, builder.secret(tag, owner, job_input), read=False)

    async def _surely(self, namespace: str | None, thing: dict[str, Any], read: bool = True) -> dict[str, Any]:
        """Make an object, or find that it is made. Raises BackendError: there is none, or it cannot be told."""

        async def make(client: Client) -> dict[str, Any]:
            try:
                return await client.create(namespace, thing)
            except ApiError as error:
                if error.status != 409 or error.reason != "AlreadyExists":
                    raise
            # Of an attempt that seemed to fail.
            return await client.get(thing["kind"], str(namespace), thing["metadata"]["name"]) if read else {}

        try:
            try:
                return await self._insist(make)
            except ApiError as error:
                if error.status != 404 or f'namespaces "{namespace}" not found' not in str(error):
                    raise
            # A new user's own one. What comes next may be asked of a server that has not heard of it.
            await self._surely(None, builder.namespace(str(namespace)), read=False)
            return await self._insist(make, 404)
        except ApiError as error:
            if error.status is None:
                raise
            raise BackendError(words.refusal(str(error))) from None

    async def _insist(self, ask: Callable[[Client], Awaitable[dict[str, Any]]], *soon: int) -> dict[str, Any]:
        """Ask until it is known what came of it, and that is none of some statuses that will `soon` be others.

        Raises ApiError.
        """
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            try:
                return await ask(self._client())
            except ApiError as error:
                # A conflict is of many who count against one quota at once.
                again = error.status in (None, *soon) or error.reason == "Conflict"
                if not again or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(_AGAIN * random.uniform(0.5, 1.5))

    async def _launcher(self, namespace: str) -> None:
        if namespace not in self._launcher_in:
            await self._surely(namespace, builder.launcher_map(), read=False)
            self._launcher_in.setdefault(namespace, 0.0)

    async def launcher_again(self, namespace: str, trouble: Event) -> None:
        """Make the ConfigMap again, if it is what a pod lacks whose volumes cannot be mounted: the kubelet looks again
        and again. Raises BackendError."""
        if builder.launcher_name() in trouble.message and trouble.at > self._launcher_in.get(namespace, 0.0):
            self._launcher_in[namespace] = trouble.at
            await self._surely(namespace, builder.launcher_map(), read=False)

    async def _home(self, namespace: str, tag: Tag, kept: str | None) -> None:
        """See that a user's claim is there, and his. Raises BackendError."""
        made = self._config.home.pvc if self._config.home else None
        if made is None:
            return
        name = claim_name(self._config, tag, kept)
        try:
            found = await self._insist(lambda client: client.get("PersistentVolumeClaim", namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise BackendError(words.refusal(str(error))) from None
            found = await self._surely(namespace, builder.claim(self._config, made, tag, kept))
        owner = owner_of(found)
        if owner is None:
            mark = f"kubectl annotate -n {namespace} pvc {name} {OWNER}=USER"
            raise BackendError(f"the claim {name} does not say whose home it is; an admin can: {mark}")
        if owner != tag.user:
            raise BackendError(f"the claim {name} is another user's home")

    async def unmake_home(self, namespace: str, tag: Tag) -> bool:
        """Remove a user's claim and all that is in it; whether there was one. Raises ApiError, and BackendError where
        it is not surely his, or another hub's."""
        name = claim_name(self._config, tag)
        try:
            found = await self._client().get("PersistentVolumeClaim", namespace, name)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        if owner_of(found) != tag.user:
            raise BackendError(f"the claim {name} is kept: it does not say that it is the home of {tag.user!r}")
        # KubeSpawner's have no hub's mark.
        if (found["metadata"].get("labels") or {}).get(HUB, tag.hub) != tag.hub:
            raise BackendError(f"the claim {name} is kept: another hub made it")
        await self._client().delete("PersistentVolumeClaim", namespace, name, uid=found["metadata"]["uid"])
        return True


def owner_of(claim: dict[str, Any]) -> str | None:
    """Whose home a claim is; None where it does not say."""
    owner = (claim["metadata"].get("annotations") or {}).get(OWNER)
    return owner if owner is None else str(owner)
