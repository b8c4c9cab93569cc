"""The API server: raw JSON in and out, each request with a deadline."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from ..base import BackendError
from .config import KubernetesConfig

_DEADLINE = 20.0
_LARGE = 256 * 1024
"""Answers above it are read in a thread."""
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
KINDS = {"Pod": "pods", "Secret": "secrets", "ConfigMap": "configmaps", "Service": "services"}
KINDS |= {"PersistentVolumeClaim": "persistentvolumeclaims", "Namespace": "namespaces"}


class ApiError(BackendError):
    """The API server refused (`status` of HTTP), or (None) it is not known what became of a request."""

    def __init__(self, message: str, status: int | None = None, reason: str = ""):
        super().__init__(message)
        self.status, self.reason = status, reason


class Client:
    """One cluster, as the site names it. Made by `connect`, inside the event loop."""

    def __init__(self, api: Any, namespace: str):
        self._api = api
        self.namespace = namespace
        """Where a pod goes whose backend names none."""

    @classmethod
    async def connect(cls, config: KubernetesConfig) -> "Client":
        """Read who and where we are. Raises BackendError."""
        # Dear: 100 MB and a second. Not for those who read a site file alone.
        client, kube = await asyncio.to_thread(_library)
        settings = client.Configuration()
        namespace = "default"
        try:
            if config.kubeconfig is None and config.context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                kube.load_incluster_config(client_configuration=settings)
                namespace = await asyncio.to_thread(IN_CLUSTER.read_text)
            else:
                path = str(config.kubeconfig) if config.kubeconfig else None
                await kube.load_kube_config(path, context=config.context, client_configuration=settings)
                namespace = await asyncio.to_thread(_namespace_of, kube, path, config.context)
        except (kube.ConfigException, OSError, ValueError, TypeError) as error:
            raise BackendError(f"the cluster's configuration cannot be read: {error}") from None
        return cls(client.ApiClient(settings), namespace.strip())

    async def close(self) -> None:
        """Let go of connections."""
        await self._api.close()

    async def create(self, namespace: str | None, thing: dict[str, Any]) -> dict[str, Any]:
        """Make an object. Raises ApiError: 409 where it is there already."""
        # A field that it does not know would be dropped without a word. Kubernetes before 1.25 does not hear it.
        return await self._call("POST", path_of(thing["kind"], namespace), thing, fieldValidation="Strict")

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """An object. Raises ApiError: 404 where there is none."""
        return await self._call("GET", path_of(kind, namespace, name))

    async def delete(self, kind: str, namespace: str, name: str, uid: str = "", grace: int | None = None) -> None:
        """Remove an object, or (`uid`) that one alone; one that is gone, or another one now, is no error."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", path_of(kind, namespace, name), options)
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    async def list(self, path: str, **query: Any) -> dict[str, Any]:
        """All objects of a kind, as of one moment."""
        return await self._call("GET", path, None, **query)

    @asynccontextmanager
    async def watch(self, path: str, seconds: float, **query: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """What happens, as it happens, for about so many seconds, once the API server took it on. Raises ApiError:
        410 where too much happened since."""
        # An answer that is open for long: what counts is that it ends when it was said to, or that there was something.
        timeout = aiohttp.ClientTimeout(total=None, connect=_DEADLINE, sock_read=seconds + _DEADLINE / 2)
        query |= {"watch": "true", "timeoutSeconds": int(seconds), "allowWatchBookmarks": "true"}
        answer = await self._request("GET", path, None, query, timeout)
        try:
            yield _events(answer)
        finally:
            answer.close()

    async def _call(self, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
        answer = await self._request(method, path, body, query, aiohttp.ClientTimeout(total=_DEADLINE))
        try:
            data = await answer.read()
            found = await asyncio.to_thread(json.loads, data) if len(data) > _LARGE else json.loads(data)
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, OSError) as error:
            raise ApiError(f"the API server's answer was cut short: {_words(error)}") from None
        return dict(found)

    async def _request(self, method: str, path: str, body: Any, query: dict[str, Any], timeout: Any) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            answer = await self._api.call_api(
                path,
                method,
                query_params=list(query.items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout,
            )
            if answer.status < 300:
                return answer
            text = (await answer.read()).decode(errors="replace")
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise ApiError(f"the API server does not answer: {_words(error)}") from None
        said = _status(text)
        # Too many requests, or its own trouble: what became of it is not known.
        known = answer.status < 500 and answer.status != 429
        raise ApiError(said.get("message") or text[:300], answer.status if known else None, said.get("reason", ""))


def path_of(kind: str, namespace: str | None, name: str = "") -> str:
    """The path of objects of a kind; without a namespace: of all namespaces, or of what has none."""
    inside = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"/api/v1{inside}/{KINDS.get(kind, kind)}" + (f"/{quote(name, safe='')}" if name else "")


def _library() -> tuple[Any, Any]:
    from kubernetes_asyncio import client, config

    return client, config


def _namespace_of(kube: Any, path: str | None, context: str | None) -> str:
    contexts, current = kube.list_kube_config_contexts(path)
    chosen = next((one for one in contexts if one["name"] == context), current)
    return str((chosen or {}).get("context", {}).get("namespace") or "default")


async def _events(answer: Any) -> AsyncIterator[dict[str, Any]]:
    rest = b""
    try:
        async for chunk in answer.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                if event.get("type") == "ERROR":
                    said = event.get("object") or {}
                    raise ApiError(str(said.get("message") or "the watch ended in an error"), said.get("code"))
                yield event
    except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, OSError) as error:
        raise ApiError(f"the watch was cut: {_words(error)}") from None


def _status(text: str) -> dict[str, str]:
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
