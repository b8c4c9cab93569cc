"""The client of the API server: large lists, credentials that expire, a configuration that is of no use."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from hepspawner.backends.base import BackendError
from hepspawner.backends.kubernetes import KubernetesConfig
from hepspawner.backends.kubernetes import client as module
from hepspawner.backends.kubernetes.client import ApiError, Client, path_of, problems_of

EXEC = "client.authentication.k8s.io/v1"
PODS = [{"metadata": {"name": f"p{number}"}} for number in range(5)]


class Server:
    """An API server that believes one token, and has five pods."""

    def __init__(self, path: Path) -> None:
        self.path, self.token = path, path / "token"
        self.believed, self.asked = "first", 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if request.headers.get("Authorization") != f"Bearer {self.believed}":
            return web.json_response({"message": "Unauthorized", "code": 401}, status=401)
        begin = int(request.query.get("continue") or 0)
        end = begin + int(request.query["limit"])
        more = {"continue": str(end)} if end < len(PODS) else {}
        return web.json_response({"metadata": {"resourceVersion": "7", **more}, "items": PODS[begin:end]})

    def config(self, port: int, script: str) -> KubernetesConfig:
        """Of a cluster whose tokens a program gives out."""
        program = self.path / "program"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        user = {"exec": {"apiVersion": EXEC, "command": str(program), "interactiveMode": "Never"}}
        kubeconfig = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "one", "user": "hub", "namespace": "lab"}}],
            "clusters": [{"name": "one", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "hub", "user": user}],
        }
        path = self.path / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig))
        return KubernetesConfig.model_validate({"type": "kubernetes", "kubeconfig": str(path)})


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


Connect = Callable[..., Client]


@pytest.fixture
async def client(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connect]:
    """Makes a client of the server, with such a program."""
    monkeypatch.setattr(module, "_RENEWAL", 0.0)
    runner = web.AppRunner(application := web.Application())
    application.router.add_route("*", "/{path:.*}", server.answer)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made = []

    def new(script: str) -> Client:
        made.append(Client(server.config(runner.addresses[0][1], script)))
        return made[-1]

    yield new
    for one in made:
        await one.close()
    await runner.cleanup()


def gives(server: Server) -> str:
    """A program that gives out what is in a file."""
    said = json.dumps({"apiVersion": EXEC, "kind": "ExecCredential", "status": {"token": "TOKEN"}})
    return f"sed \"s/TOKEN/$(cat {server.token})/\" <<'END'\n{said}\nEND"


async def pods(client: Client) -> list[Any]:
    return [one async for page in client.list(path_of("Pod", "lab")) for one in page["items"]]


async def test_a_large_list_comes_in_pages(server: Server, client: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 2)
    server.token.write_text("first")
    one = client(gives(server))
    await one.connect()
    assert one.namespace == "lab"
    assert await pods(one) == PODS
    assert server.asked == 3


async def test_a_token_that_expires(server: Server, client: Connect) -> None:
    server.token.write_text("first")
    one = client(gives(server))
    await one.connect()
    for token in ("second", "third", "fourth"):
        server.believed = token
        server.token.write_text(token)
        assert await asyncio.gather(pods(one), pods(one)) == [PODS, PODS]
    server.believed = "fifth"
    with pytest.raises(ApiError, match="Unauthorized") as refused:
        await pods(one)
    assert refused.value.status == 401
    server.token.write_text("fifth")
    assert await pods(one) == PODS


async def test_a_program_that_hangs_is_started_once(
    server: Server, client: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DEADLINE", 0.1)
    started = server.path / "started"
    one = client(f"echo $$ >> {started}\nexec sleep 1000")
    for _ in range(3):
        with pytest.raises(BackendError, match="took more than"):
            await one.connect()
    while not (started.exists() and started.read_text().endswith("\n")):
        with pytest.raises(BackendError, match="took more than"):
            await one.connect()
    (pid,) = started.read_text().split()
    os.kill(int(pid), signal.SIGKILL)
    monkeypatch.undo()
    with pytest.raises(BackendError, match="cannot be read: exec: process returned -9"):
        await one.connect()


@pytest.mark.parametrize("text", ["{", "[]", "a: b", "contexts: [a]", ""])
async def test_a_file_that_is_no_kubeconfig(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    config = KubernetesConfig.model_validate({"type": "kubernetes", "kubeconfig": str(path)})
    assert problems_of(config) == [f"{path} is no kubeconfig"]
    with pytest.raises(BackendError, match="the cluster's configuration cannot be read"):
        await Client(config).connect()


def test_what_can_be_told_before_the_hub_starts(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    config = server.config(1, "")
    assert problems_of(config) == []
    path = config.kubeconfig
    assert problems_of(config.model_copy(update={"context": "there"})) == [
        f"{path} has no context there; there are: here"
    ]
    assert problems_of(config.model_copy(update={"kubeconfig": "/no/such"})) == ["there is no /no/such"]
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert problems_of(config) == ["kubernetes_asyncio is not installed: pip install 'hepspawner[kubernetes]'"]
