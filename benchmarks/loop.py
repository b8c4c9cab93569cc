"""Who holds a hub's event loop, and for how long: `watch(path)` in a hub's configuration writes it there, as JSON.

Each callback of the loop is timed. Meanwhile a thread looks, every millisecond, what the loop's thread is at: as long
as one and the same call into our code is on its stack, that call holds the loop, whoever made it. Python's garbage
collection, which happens in whatever code runs, is no one's: with 600 servers one takes 200 ms.
"""

import asyncio
import gc
import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

_OURS = f"{os.sep}hepspawner{os.sep}"
_PAUSE = 0.001
_WORTH = 0.002
_MOST = 40


class _Loop(threading.Thread):
    def __init__(self, path: str):
        super().__init__(daemon=True)
        self.path, self.main = path, threading.main_thread().ident or 0
        self.clock = time.pthread_getcpuclockid(self.main)
        self.number, self.began = 0, time.perf_counter()
        self.collecting = 0.0
        """Seconds of garbage collection so far."""
        self.callbacks: list[dict[str, Any]] = []
        self.ours: list[dict[str, Any]] = []

    def time_collections(self) -> None:
        began = 0.0

        def note(phase: str, info: dict[str, int]) -> None:
            nonlocal began
            if phase == "start":
                began = time.perf_counter()
            else:
                self.collecting += time.perf_counter() - began

        gc.callbacks.append(note)

    def time_callbacks(self) -> None:
        kind: Any = asyncio.events.Handle
        plain = kind._run

        def timed(handle: Any) -> None:
            self.number += 1
            start, cpu, collecting = time.perf_counter(), time.thread_time(), self.collecting
            plain(handle)
            seconds = time.perf_counter() - start
            if seconds > 5 * _WORTH:
                spent = 1000 * (time.thread_time() - cpu)
                name = _name(handle._callback)
                if self.collecting - collecting > seconds / 2:
                    name = f"garbage collection, in {name}"
                self.callbacks.append(self.entry(start, seconds, spent, name, self.number))

        kind._run = timed

    def entry(self, start: float, seconds: float, cpu: float, where: str, number: int) -> dict[str, Any]:
        at = round(start - self.began, 3)
        return {"at": at, "ms": round(1000 * seconds, 1), "cpu_ms": round(cpu, 1), "where": where, "callback": number}

    def run(self) -> None:
        key: tuple[int, FrameType] | None = None
        first = last = written = started = spent = 0.0
        names: dict[str, int] = {}
        while True:
            time.sleep(_PAUSE)
            now, cpu, number = time.perf_counter(), time.clock_gettime(self.clock), self.number
            now, cpu = now - self.collecting, cpu - self.collecting
            outer, name = _our_frame(sys._current_frames().get(self.main))
            same = outer is not None and key is not None and key[0] == number and key[1] is outer
            if not same:
                if key is not None and last - first + _PAUSE > _WORTH:
                    most = max(names, key=lambda one: names[one])
                    length = last - first + _PAUSE
                    self.ours.append(self.entry(first, length, 1000 * spent + 1, f"{_code(key[1])}: {most}", key[0]))
                key, first, started, names = (number, outer) if outer is not None else None, now, cpu, {}
            if outer is not None:
                last, spent = now, cpu - started
                names[name] = names.get(name, 0) + 1
            elif now - written > 1:
                self.write()
                written = now

    def write(self) -> None:
        found = {}
        for name in ("ours", "callbacks"):
            entries = sorted(getattr(self, name), key=lambda entry: -float(entry["ms"]))
            found[name] = entries[:_MOST]
        new = Path(self.path + ".new")
        new.write_text(json.dumps(found))
        new.rename(self.path)


def _our_frame(frame: FrameType | None) -> tuple[FrameType | None, str]:
    """The outermost frame of our code, and the name of the innermost."""
    outer, name = None, ""
    while frame is not None:
        if _OURS in frame.f_code.co_filename:
            outer, name = frame, name or _code(frame)
        frame = frame.f_back
    return outer, name


def _code(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_filename.rpartition(_OURS)[2]}:{getattr(code, 'co_qualname', code.co_name)}"


def _name(callback: Any) -> str:
    task = getattr(callback, "__self__", None)
    work = task.get_coro() if isinstance(task, asyncio.Task) else callback
    return str(getattr(work, "__qualname__", work))[:100]


def watch(path: str) -> None:
    """Begin."""
    sys.setswitchinterval(0.0005)
    loop = _Loop(path)
    loop.time_collections()
    loop.time_callbacks()
    loop.start()
