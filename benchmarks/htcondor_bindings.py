"""HTCondor's command line and its Python bindings side by side: 1000 jobs, and a schedd that hangs.

    python benchmarks/htcondor_bindings.py

Only for root. The bindings (PyPI's `htcondor`, imported as htcondor2) get an environment of their own, which is removed
again. Both act as alice; the commands are started as the hub starts them.
"""

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

JOBS, ROUNDS, DEADLINE, PATIENCE = 1000, 15, 3.0, 60.0
ATTRIBUTES = ["ClusterId", "JobStatus", "Owner", "HoldReason", "RemoteHost", "EnteredCurrentStatus", "LastRejMatchTime"]
MINE = 'Owner == "bob"'
JOB = {"executable": "/bin/sleep", "arguments": "600", "transfer_executable": "false", "initialdir": "/tmp"}
JOB |= {"should_transfer_files": "yes", "when_to_transfer_output": "on_exit"}


def median(act: Callable[[], Any]) -> float:
    """Milliseconds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


async def given_up(act: Callable[[], Any]) -> None:
    """Prints after how many seconds an executor's call with a deadline returns to the loop, and when its thread is free
    again: a line each."""
    ended = threading.Event()

    def work() -> None:
        try:
            act()
        except Exception:  # it says that the schedd does not answer
            pass
        finally:
            ended.set()

    began = time.perf_counter()
    threading.Thread(target=work, daemon=True).start()  # the executor's own would keep this process from ending
    await asyncio.sleep(DEADLINE)
    print(round(time.perf_counter() - began), flush=True)
    await asyncio.to_thread(ended.wait)
    print(round(time.perf_counter() - began), flush=True)


def bindings(what: str) -> None:
    """What is measured with the bindings, in a process that has them."""
    import htcondor2  # type: ignore[import-not-found]

    schedd = htcondor2.Schedd()
    submission = htcondor2.Submit(JOB)

    def query() -> None:
        found = schedd.query(constraint=MINE, projection=ATTRIBUTES)
        assert len(found) == JOBS

    def submit() -> None:
        schedd.spool(schedd.submit(submission, spool=True))

    if what == "calm":
        print(median(query), median(submit), flush=True)
    else:
        asyncio.run(given_up(query if what == "query" else submit))


def main() -> int:
    """Print the figures."""
    if os.geteuid() != 0:
        print("only root can run the daemons of a batch system")
        return 0
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.htcondor import Condor

    with Condor(NEGOTIATE=600) as pool:
        python = pool.directory / "venv/bin/python"
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "htcondor==25.*"], check=True)
        script = shutil.copy(__file__, pool.directory)
        for _ in range(10):
            pool.sleeper(user="bob", count=JOBS // 10)
        description = "".join(f"{name} = {value}\n" for name, value in JOB.items()) + "queue\n"

        def query() -> None:
            argv = ["condor_q", "-allusers", "-json", "-attributes", ",".join(ATTRIBUTES), "-constraint", MINE]
            assert len(json.loads(pool.command(*argv))) == JOBS

        def submit() -> None:
            pool.command("condor_submit", "-spool", "-terse", user="alice", stdin=description)

        def other(what: str) -> list[str]:
            try:
                text = pool.run(str(python), script, what, user="alice", timeout=PATIENCE).stdout
            except subprocess.TimeoutExpired as error:
                text = (error.stdout or b"").decode()
            return str(text).split()

        print(f"{'median ms':46} {'bindings':>9} {'command':>9}")
        bound = [float(word) for word in other("calm")]
        print(f"{f'query of {JOBS} jobs':46} {bound[0]:9.1f} {median(query):9.1f}")
        print(f"{'submission with its files sent to the spool':46} {bound[1]:9.1f} {median(submit):9.1f}")
        pool.freeze("schedd")
        for what in ("query", "submit"):
            seconds = [f"after {word} s" for word in other(what)] + 2 * [f"not within {PATIENCE:.0f} s"]
            print(f"hung schedd, {what} in a thread, given up after {DEADLINE:.0f} s:")
            print(f"  the event loop goes on {seconds[0]}, the thread ends {seconds[1]}")
        pool.thaw("schedd")
        print(f"load {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:]:
        bindings(sys.argv[1])
        os._exit(0)  # a thread may hang in HTCondor's library
    sys.exit(main())
