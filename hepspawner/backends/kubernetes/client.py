"""The API server: raw JSON in and out, each request with a deadline."""

import asyncio
import importlib.util
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import yaml

from ..base import BackendError
from .config import KubernetesConfig

_DEADLINE = 20.0
_PAGE = 250
"""Objects of a list that are asked for at once: a megabyte or two, which is read on the loop in some hundredths of a
second. A thread would keep the loop waiting as long."""
_RENEWAL = 5.0
"""Seconds at least between two readings of who we are."""
_UNKNOWN = 401
_UNREADABLE = (yaml.YAMLError, OSError, ValueError, TypeError, KeyError, AttributeError)
"""What reading a file raises in which something else is than should be."""
_MISSING = "kubernetes_asyncio is not installed: pip install 'hepspawner[kubernetes]'"
IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
KINDS = {"Pod": "pods", "Secret": "secrets", "ConfigMap": "configmaps", "Service": "services"}
KINDS |= {"PersistentVolumeClaim": "persistentvolumeclaims", "Namespace": "namespaces"}


class ApiError(BackendError):
    """The API server refused (`status` of HTTP), or (None) it is not known what became of a request."""

    def __init__(self, message: str, status: int | None = None, reason: str = ""):
        super().__init__(message)
        self.status, self.reason = status, reason


class Client:
    """One cluster, as the site names it. Of use once it has connected."""

    def __init__(self, config: KubernetesConfig):
        self._config = config
        self._api: Any = None
        self._former: Any = None
        """The one before: a watch may still read from it."""
        self._reading: asyncio.Task[None] | None = None
        self._read_at = float("-inf")
        self.namespace = "default"
        """Where a pod goes whose backend names none."""

    @property
    def connected(self) -> bool:
        """Whether it was ever read who and where we are."""
        return self._api is not None

    async def connect(self) -> None:
        """Read who and where we are; again, where the API server knows that one no more. Raises BackendError."""
        # A program that gives out tokens may hang: it is left running, and not started a second time.
        reading = self._reading = self._reading or asyncio.ensure_future(self._read())
        done, _ = await asyncio.wait([reading], timeout=_DEADLINE)
        if not done:
            raise BackendError(f"the cluster's configuration took more than {_DEADLINE:.0f} s to read")
        if self._reading is reading:
            self._reading = None
        reading.result()

    async def _read(self) -> None:
        try:
            # Dear: 100 MB and a second. Not for those who read a site file alone.
            client, kube = await asyncio.to_thread(_library)
        except ImportError:
            raise BackendError(_MISSING) from None
        config, settings = self._config, client.Configuration()
        namespace = self.namespace
        try:
            if config.kubeconfig is None and config.context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
                kube.load_incluster_config(client_configuration=settings)
                namespace = await asyncio.to_thread(IN_CLUSTER.read_text)
            else:
                path = str(config.kubeconfig) if config.kubeconfig else None
                await kube.load_kube_config(path, context=config.context, client_configuration=settings)
                namespace = await asyncio.to_thread(_namespace_of, kube, path, config.context)
            api = client.ApiClient(settings)
        except (kube.ConfigException, *_UNREADABLE) as error:
            raise BackendError(f"the cluster's configuration cannot be read: {_words(error)}") from None
        finally:
            self._read_at = asyncio.get_running_loop().time()
        if self._former is not None:
            await self._former.close()
        self._former, self._api = self._api, api
        self.namespace = namespace.strip()

    async def close(self) -> None:
        """Let go of connections."""
        if self._reading is not None:
            self._reading.cancel()
        for api in (self._api, self._former):
            if api is not None:
                await api.close()

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

    async def list(self, path: str, **query: Any) -> AsyncIterator[dict[str, Any]]:
        """All objects of a kind, as of one moment, some at a time. Raises ApiError: 410 where that took too long."""
        rest: dict[str, Any] = {"limit": _PAGE}
        while rest:
            page = await self._call("GET", path, None, **query, **rest)
            yield page
            token = page["metadata"].get("continue")
            rest = {"limit": _PAGE, "continue": token} if token else {}

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
            found = json.loads(await answer.read())
        except (aiohttp.ClientError, asyncio.TimeoutError, ValueError, OSError) as error:
            raise ApiError(f"the API server's answer was cut short: {_words(error)}") from None
        return dict(found)

    async def _request(self, method: str, path: str, body: Any, query: dict[str, Any], timeout: Any) -> Any:
        used = self._api
        try:
            return await self._asked(used, method, path, body, query, timeout)
        except ApiError as error:
            if error.status != _UNKNOWN:
                raise
            # Tokens and certificates expire: whoever gave us this one may have another by now.
            if self._api is used and asyncio.get_running_loop().time() - self._read_at > _RENEWAL:
                await self.connect()
            if self._api is used:
                raise
        return await self._asked(self._api, method, path, body, query, timeout)

    async def _asked(self, api: Any, method: str, path: str, body: Any, query: dict[str, Any], timeout: Any) -> Any:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            answer = await api.call_api(
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


def problems_of(config: KubernetesConfig) -> list[str]:
    """Why a cluster's configuration is of no use, as far as it can be told from here. Reads the kubeconfig."""
    if importlib.util.find_spec("kubernetes_asyncio") is None:
        return [_MISSING]
    if config.kubeconfig is None:
        return []
    try:
        contexts = [str(one["name"]) for one in yaml.safe_load(Path(config.kubeconfig).read_text())["contexts"]]
    except FileNotFoundError:
        return [f"there is no {config.kubeconfig}"]
    except OSError as error:
        return [f"{config.kubeconfig} cannot be read: {error.strerror}"]
    except _UNREADABLE:
        return [f"{config.kubeconfig} is no kubeconfig"]
    if config.context is not None and config.context not in contexts:
        return [f"{config.kubeconfig} has no context {config.context}; there are: {', '.join(contexts)}"]
    return []


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
