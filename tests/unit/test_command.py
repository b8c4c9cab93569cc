"""Commands with deadlines, and what is asked for together."""

import asyncio
import sys
import time

import pytest

from hepspawner.backends.accounts import Account
from hepspawner.backends.base import BackendError
from hepspawner.backends.command import CommandError, Commands, CommandsConfig, Together
from tests.unit.test_local import runs

ALICE = Account("alice", 1001, "/home/alice", {"user": 1001})


class Config(CommandsConfig):
    names = frozenset({"sh", "tool"})


def commands(run_as="none", **keys):
    return Commands(Config.model_validate(keys), run_as)


async def test_a_command_has_the_environment_of_the_site_and_nothing_of_the_hubs(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_HUB", "x")
    result = await commands(environment={"SLURM_CONF": "/etc/x"}).run("sh", "-c", "env; pwd; cat", stdin="ü", MORE="y")
    lines = set(result.out.split("\n"))
    assert {"SLURM_CONF=/etc/x", "MORE=y", "LC_ALL=C.UTF-8", "/", "ü"} <= lines
    assert not [line for line in lines if "SECRET" in line]


async def test_what_a_command_complains_of():
    result = await commands().run("sh", "-c", "echo out; echo ' two  words ' >&2; exit 3")
    assert (result.code, result.text) == (3, "two words")
    with pytest.raises(CommandError, match="sh says: two words") as error:
        await commands().ask("sh", "-c", "echo out; echo ' two  words ' >&2; exit 3")
    assert not error.value.unclear


async def test_a_command_that_hangs_is_given_up_with_all_that_it_started(tmp_path):
    pids = tmp_path / "pids"
    began = time.monotonic()
    with pytest.raises(CommandError, match="sh did not answer within 1 s") as error:
        await commands(timeouts={"sh": "1s"}).run("sh", "-c", f"sleep 600 & echo $! $$ >{pids}; wait")
    assert error.value.unclear  # it may have done its work all the same
    assert time.monotonic() - began < 10
    for pid in pids.read_text().split():
        while runs(int(pid)):
            await asyncio.sleep(0.01)


async def test_a_command_that_is_not_there():
    with pytest.raises(CommandError, match="/no/such/tool cannot be run: No such file or directory") as error:
        await commands(paths={"tool": "/no/such/tool"}).run("tool", "x")
    assert not error.value.unclear


async def test_a_command_that_wants_no_input_and_one_that_says_too_much(monkeypatch):
    result = await commands().run("sh", "-c", "exec <&-; exit 0", stdin="x" * 10_000_000)
    assert result.code == 0
    monkeypatch.setattr("hepspawner.backends.command._MOST_OUTPUT", 100_000)
    with pytest.raises(CommandError, match="said more than"):
        await commands().run("sh", "-c", "yes", stdin="")


async def test_only_a_few_run_at_once(tmp_path):
    count = f"echo $$ >{tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.05; rm {tmp_path}/$$"
    one = commands()
    results = await asyncio.gather(*(one.run("sh", "-c", count) for _ in range(30)))
    assert max(int(result.out) for result in results) <= 8


@pytest.mark.parametrize(
    "run_as, argv",
    [
        ("runuser", ["runuser", "-u", "alice", "--", "/usr/bin/tool", "x"]),
        ("sudo", ["sudo", "-n", "-u", "alice", "--", "/usr/bin/tool", "x"]),
        ("setuid", ["/usr/bin/tool", "x"]),
        ("none", ["/usr/bin/tool", "x"]),
    ],
)
def test_as_whom(run_as, argv):
    one = commands(run_as, paths={"tool": "/usr/bin/tool"})
    assert one.argv("tool", "x", account=ALICE) == argv
    assert one.argv("tool", "x") == ["/usr/bin/tool", "x"]


async def test_the_event_loop_goes_on_while_a_command_runs():
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.ensure_future(tick())
    await commands(paths={"tool": sys.executable}).run("tool", "-c", "import time; time.sleep(0.5)")
    ticking.cancel()
    assert ticks > 10


# --- together


async def test_what_is_asked_for_at_once_is_one_go():
    batches = []

    async def work(items):
        batches.append(sorted(items))
        await asyncio.sleep(0.05)

    together = Together(work)
    await asyncio.gather(*(together.add(item) for item in (3, 1, 2, 1)))
    assert batches == [[1, 2, 3]]
    await together.add(4)
    assert batches == [[1, 2, 3], [4]]


async def test_an_error_is_everybodys_and_the_next_go_is_another():
    async def work(items):
        if "bad" in items:
            raise BackendError("no")

    together = Together(work)
    results = await asyncio.gather(together.add("bad"), together.add("good"), return_exceptions=True)
    assert [str(result) for result in results] == ["no", "no"]
    await together.add("good")


async def test_who_waits_no_more_does_not_take_it_from_the_others():
    done = []

    async def work(items):
        done.extend(items)

    together = Together(work)
    first, second = asyncio.ensure_future(together.add("x")), asyncio.ensure_future(together.add("x"))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert done == ["x"]
