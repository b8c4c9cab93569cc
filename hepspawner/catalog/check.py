"""`hepspawner check --image`: what is wrong with one image, before a site offers it."""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..backends.base import BackendError
from ..backends.command import Result, run
from ..site.model import Image
from . import inspect
from .findings import findings, hub_version
from .layouts import layout_of
from .probe import look

_PROGRAM = Path(str(inspect.__file__))
_LOOK, _INSPECT = 20.0, 120.0


async def check_image(path: str, command: str = Image.model_fields["command"].default[0]) -> tuple[list[str], bool]:
    """Lines for the admin, and whether a server can be started from the image as far as can be told.

    A sandbox is looked into from outside; a SIF by Apptainer, with the image's own Python. Either can be given up.
    """
    program = await asyncio.to_thread(_PROGRAM.read_bytes)
    fact = (await look([path], _LOOK))[path]
    if fact.kind not in ("sandbox", "sif"):
        return [f"problem: {path} {fact.text or 'is a prefix, not the root directory of a system'}"], False
    try:
        done = await _inspect(fact.real, fact.kind, command, program)
        facts = json.loads(done.out)
        found = findings(facts, command, *hub_version())
        lines = _summary(facts)
    except BackendError as error:
        return [f"problem: {path}: {error}"], False
    except (ValueError, LookupError, TypeError, AttributeError):  # what the image's own Python says may be anything
        return [f"problem: {path} could not be looked into: {done.text or f'exit code {done.code}'}"], False
    digest = layout_of(path, fact.real).digest
    head = f"{path}: {fact.kind}{f', {digest}' if digest else ''}"
    bad = sum(one.bad for one in found)
    return [
        head,
        *lines,
        *map(str, sorted(found, key=lambda one: not one.bad)),
        f"{_count(bad, 'problem')}, {_count(len(found) - bad, 'note')}",
    ], not bad


def _summary(facts: Mapping[str, Any]) -> list[str]:
    packages = [f"{name} {version}" for name, version in facts["packages"].items() if version]
    versions = [f"Python {facts['python_version'] or 'unknown'}", *packages]
    return [
        f"server: {facts['server'] or 'none'}; {', '.join(versions)}",
        f"kernels: {', '.join(kernel['name'] for kernel in facts['kernels']) or 'none'}",
    ]


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


async def _inspect(real: str, kind: str, command: str, program: bytes) -> Result:
    order = {"root": real if kind == "sandbox" else "/", "command": command, "inside": kind == "sif"}
    if kind == "sandbox":
        return await run([sys.executable, "-I", "-S", str(_PROGRAM), json.dumps(order)], b"", {}, _INSPECT, {})
    argv = ["apptainer", "exec", "--cleanenv", "--no-mount", "home,tmp,cwd"]
    argv += ["--userns"] if os.geteuid() == 0 else []  # root's own way needs more rights than many machines give it
    # An image may have its Python under several names.
    script = (
        'for p in python3 python /usr/bin/python3; do command -v "$p" >/dev/null && exec "$p" -S - "$0"; done; exit 9'
    )
    argv += [real, "/bin/sh", "-c", script, json.dumps(order)]
    variables = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return await run(argv, program, variables, _INSPECT, {})
