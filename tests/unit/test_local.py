"""The local backend alone: jobs are processes, told apart by pid and start time. The launcher is a script here."""

import asyncio
import contextlib
import json
import logging
import os
import pwd
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from hepspawner.backends.base import BackendError, Phase, Tag
from hepspawner.backends.local import LocalBackend, LocalConfig, _start_time, marked

PATIENCE = 20  # seconds that a test waits for what has to happen; not spent where it does
TAG = Tag("hub-of-test-local", "alice", "", os.urandom(16).hex())

# Stands in for `python -I -S launcher.py`. Tells where it is, and what it was given, by files.
LAUNCHER = """#!/bin/bash
cd {folder}
cat > input
tr '\\0' '\\n' < /proc/$$/environ > environ
id -un > user
{body}
"""
WAIT = "echo $$ > up.new; mv up.new up; while :; do sleep 0.05; done"


@pytest.fixture
def user():
    """As whom servers run: somebody else where the tests are root."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    return next((name for name in ("alice", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()}), "nobody")


@pytest.fixture
async def backend(public_path, user):
    """Makes a backend whose launcher runs some lines of bash; ends what they started."""
    made = []
    public_path.chmod(0o777)

    def make(body=WAIT, **config):
        script = public_path / "python"
        script.write_text(LAUNCHER.format(folder=public_path, body=body))
        script.chmod(0o755)
        one = LocalBackend("here", LocalConfig(type="local", python=str(script), **config), logging.getLogger("test"))
        one.ends = asyncio.Queue()
        one.on_change = lambda job, status: one.ends.put_nowait((job, status))
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()
    for pid in {*marked(TAG.session), *marked(str(TAG), "HEPSPAWNER_TAG")}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def tag(user):
    return Tag(TAG.hub, user, TAG.server, TAG.session)


@pytest.fixture
def file(public_path):
    """Waits for a file of the launcher's and reads it."""

    async def read(name):
        async def there():
            while not (public_path / name).exists():
                await asyncio.sleep(0.01)

        await asyncio.wait_for(there(), PATIENCE)
        return (public_path / name).read_text()

    return read


async def submit(backend, tag, job_input=None):
    return await backend.submit(None, tag, job_input or {"ticket": "t"})


def runs(pid):
    return bool(_start_time(pid))


# --- a job from its beginning to its end


async def test_a_job_runs_as_its_user_with_its_input_and_a_clean_environment(backend, tag, user, file, monkeypatch):
    for name in ("JUPYTERHUB_CRYPT_KEY", "LD_LIBRARY_PATH", "PYTHONPATH"):
        monkeypatch.setenv(name, "of the hub")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    local = backend()
    job = await submit(local, tag, {"ticket": "secret ü", "n": 1})
    assert (await local.status(job, TAG)).phase is Phase.RUNNING
    await file("up")
    assert json.loads(await file("input")) == {"ticket": "secret ü", "n": 1}
    assert await file("user") == f"{user}\n"
    environ = dict(line.split("=", 1) for line in (await file("environ")).splitlines())
    account = pwd.getpwnam(user)
    assert environ == {
        "HOME": account.pw_dir,
        "USER": user,
        "LOGNAME": user,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HEPSPAWNER_TAG": str(tag),
        "CUDA_VISIBLE_DEVICES": "3",
    }
    pid = int(job.split(":")[0])
    assert "secret" not in Path(f"/proc/{pid}/cmdline").read_text()
    await local.cancel(job, tag, 1)
    assert not runs(pid)


@pytest.mark.parametrize(
    "body, code, reason",
    [
        ("exit 0", 0, "the launcher ended"),
        ("exit 75", 75, "the launcher ended with exit code 75"),
        ("kill -KILL $$", -9, "the launcher was killed by SIGKILL"),
        ("kill -40 $$", -40, "the launcher was killed by signal 40"),
    ],
)
async def test_the_end_of_a_job_is_told_at_once(backend, tag, body, code, reason):
    local = backend(body)
    job = await submit(local, tag)
    ended, status = await asyncio.wait_for(local.ends.get(), PATIENCE)
    assert (ended, status.phase, status.exit_code, status.reason) == (TAG.session, Phase.ENDED, code, reason)
    assert await local.status(job, TAG) == status
    assert local.ends.empty(), "told once"


async def test_without_pidfds_the_next_look_tells_the_end(backend, tag, file, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    local = backend()
    job = await submit(local, tag)
    os.kill(int(await file("up")), signal.SIGKILL)
    while (await local.status(job, TAG)).phase is Phase.RUNNING:
        await asyncio.sleep(0.01)
    assert (await local.status(job, TAG)).reason == "the launcher was killed by SIGKILL"
    assert local.ends.qsize() == 1


async def test_cancel_asks_politely_first(backend, tag, file):
    local = backend("trap 'echo polite > asked; exit 3' TERM; " + WAIT)
    job = await submit(local, tag)
    await file("up")
    await local.cancel(job, tag, 10)
    assert await file("asked") == "polite\n"
    assert (await local.status(job, TAG)).exit_code == 3


async def test_cancel_ends_what_does_not_listen_and_what_ran_away(backend, tag, file, monkeypatch):
    monkeypatch.setattr(LocalBackend, "_gone", lambda self, job, seconds: asyncio.sleep(0))  # the grace is over at once
    daemon = "trap '' TERM; echo $$ > away.new; mv away.new away; while :; do sleep 0.05; done"
    runaway = f"HEPSPAWNER_SESSION={tag.session} setsid bash -c {shlex.quote(daemon)} &"
    local = backend(f"trap '' TERM; {runaway} {WAIT}")
    job = await submit(local, tag)
    pids = [int(await file("up")), int(await file("away"))]
    assert all(map(runs, pids))
    await local.cancel(job, tag, 0)
    assert not any(map(runs, pids))
    await local.cancel(job, tag, 0)  # what is gone is no error


async def test_forget_ends_what_a_killed_launcher_left_behind(backend, tag, file):
    left = f"HEPSPAWNER_SESSION={tag.session} setsid bash -c 'echo $$ > left.new; mv left.new left; sleep 600' & "
    local = backend(left + WAIT)
    job = await submit(local, tag)
    pid = int(await file("left"))
    os.kill(int(await file("up")), signal.SIGKILL)
    await asyncio.wait_for(local.ends.get(), PATIENCE)
    assert runs(pid)
    await local.forget(job, tag)
    while runs(pid):
        await asyncio.sleep(0.01)
    assert (await local.status(job, TAG)).phase is Phase.ENDED


# --- after a restart of the hub


async def test_a_job_is_found_by_its_tag_and_taken_up(backend, tag, file):
    job = await submit(backend(), tag)
    pid = int(await file("up"))
    later = backend()  # of the next hub
    assert await later.find(tag) == job
    assert (await later.status(job, TAG)).phase is Phase.RUNNING
    os.kill(pid, signal.SIGKILL)
    assert (await asyncio.wait_for(later.ends.get(), PATIENCE))[0] == TAG.session
    while await later.find(tag):  # a child of the script outlives it for a moment
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("change", ["hub", "user", "server", "session"])
async def test_another_tag_finds_nothing(backend, tag, file, change):
    local = backend()
    await submit(local, tag)
    await file("up")
    other = {**vars(tag), change: vars(tag)[change] + "0"}
    assert await local.find(Tag(**other)) is None


async def test_another_process_with_the_pid_is_not_the_job(backend, tag):
    local = backend()
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        started = _start_time(sleeper.pid)
        job = f"{sleeper.pid}:{int(started) - 1}"
        assert (await local.status(job, TAG)).phase is Phase.ENDED
        await local.cancel(job, tag, 0)
        await local.forget(job, tag)
        assert sleeper.poll() is None
        assert (await local.status(f"{sleeper.pid}:{started}", TAG)).phase is Phase.RUNNING
    finally:
        sleeper.kill()
        sleeper.wait()


async def test_a_job_that_ended_before_it_could_be_looked_at_has_ended(backend, tag):
    dead = subprocess.Popen(["true"])
    dead.wait()
    for job in (f"{dead.pid}:", f"{os.getpid()}:"):
        assert (await backend().status(job, TAG)).phase is Phase.ENDED


def test_a_name_with_blanks_and_parentheses_does_not_hide_the_start_time(tmp_path):
    program = tmp_path / "a) Z (b 1 2"
    program.write_text("#!/bin/sh\nread x\n")
    program.chmod(0o755)
    child = subprocess.Popen([program], stdin=subprocess.PIPE)
    try:
        assert _start_time(child.pid).isdigit()
    finally:
        child.communicate()
    assert _start_time(child.pid) == ""


# --- what cannot be


async def test_a_python_that_is_missing(backend, tag):
    local = backend()
    local.config = local.config.model_copy(update={"python": "/nowhere/python3"})
    with pytest.raises(BackendError) as caught:
        await submit(local, tag)
    assert str(caught.value) == "the launcher cannot be run by /nowhere/python3: No such file or directory"


@pytest.mark.needs("users")
async def test_who_has_no_account_and_who_is_root(backend):
    local = backend()
    for name in ("no-such-user", "a\0b", "$(id)", ""):
        with pytest.raises(BackendError, match="there is no account"):
            await local.account(name)
    with pytest.raises(BackendError, match="servers do not run as root here"):
        await local.account("root")
    assert (await backend(allow_root=True).account("root")).process["user"] == 0


@pytest.mark.needs("users")
async def test_groups_are_the_users(backend, engines):
    name = engines["users"][0]
    process = await backend().look_as(name)
    entry = pwd.getpwnam(name)
    assert process == {
        "user": entry.pw_uid,
        "group": entry.pw_gid,
        "extra_groups": os.getgrouplist(name, entry.pw_gid),
    }
