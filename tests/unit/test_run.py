"""One attempt to run a server: who may claim it, what the waiting page shows, and how its end is told."""

import asyncio
import json
import time
from datetime import datetime

import pytest

from hepspawner.backends.base import JobStatus, Phase, Tag
from hepspawner.hub.run import ClaimError, Failure, Run, clean_log, explain

FIRST, SECOND = "a" * 32, "b" * 32


@pytest.fixture
def run():
    return Run(Tag("hub", "alice", "", "0f0f"), "farm", "ML base on the farm", {"image": "base"})


def refused(run, claimant):
    with pytest.raises(ClaimError) as caught:
        run.claim(claimant)
    return str(caught.value)


# --- claim


def test_only_the_first_may_claim_and_he_may_ask_again(run):
    run.claim(FIRST)
    run.claim(FIRST)  # the answer may have been lost
    assert refused(run, SECOND) == "the ticket was used already"
    run.claim(FIRST)


def test_nobody_may_claim_a_server_that_is_up(run):
    run.claim(FIRST)
    run.ready("http://node:1")
    for claimant in (FIRST, SECOND):
        assert refused(run, claimant) == "the ticket was used already"


def test_nobody_may_claim_a_session_that_is_over(run):
    run.end(Failure("over"))
    assert refused(run, FIRST) == "the session is over"


@pytest.mark.parametrize("claimant", [None, 7, "", "short", "x" * 201, b"x" * 32, ["x" * 32], "ü" * 32, "\ud800" * 32])
def test_a_malformed_claim(run, claimant):
    assert refused(run, claimant) == "malformed claim"
    run.claim(FIRST)  # and it took nothing


def test_the_claim_survives_a_restart_of_the_hub(run):
    run.claim(FIRST)
    restored = Run.restore(json.loads(json.dumps(run.state())), run.tag)
    assert refused(restored, SECOND) == "the ticket was used already"
    restored.claim(FIRST)


def test_each_step_of_the_server_is_saved_once(run):
    """A hub that comes after this one must know that there is something to end politely."""
    saved = []
    run.on_news = lambda: saved.append((sorted(run.times), run.url))
    for _ in range(2):
        run.mark("starting")
    for _ in range(2):
        run.ready("http://node:1")
    assert saved == [(["starting"], None), (["ready", "starting"], "http://node:1")]


def test_what_is_saved_is_all_and_no_secret(run):
    run.job, run.places, run.also = "7:1", ["/cvmfs/base"], ["/cvmfs/other"]
    run.runs_from("/cvmfs/u.ch/base", "/cvmfs/u.ch/.flat/8e/8e1e32f4ab12cd")
    run.claim(FIRST)
    run.mark("submitted")
    run.ready("http://node:1")
    state = json.dumps(run.state())
    assert FIRST not in state
    restored = Run.restore(json.loads(state), run.tag)
    assert restored.state() == run.state()
    assert restored.image["digest"] == "8e1e32f4ab12cd"
    assert (restored.job, restored.url, restored.backend, restored.summary) == (
        "7:1",
        "http://node:1",
        "farm",
        "ML base on the farm",
    )


# --- waiting


async def test_who_waits_is_woken_when_the_server_is_up(run):
    waiting = asyncio.create_task(run.settled())
    await asyncio.sleep(0)
    run.mark("submitted")
    run.claim(FIRST)
    await asyncio.sleep(0)
    assert not waiting.done()
    run.ready("http://node:1")
    await asyncio.wait_for(waiting, 5)


async def test_who_waits_is_woken_by_the_end(run):
    waiting = [asyncio.create_task(run.settled()) for _ in range(3)]
    await asyncio.sleep(0)
    run.end(Failure("over"))
    await asyncio.wait_for(asyncio.gather(*waiting), 5)


def test_only_the_first_word_on_the_end_counts(run):
    ends = []
    run.on_end = lambda: ends.append(run.ended.message)
    run.end(Failure("first"), 3)
    run.end(Failure("second"), 4)
    assert (ends, run.ended.message, run.exit_code) == (["first"], "first", 3)


def stages(run):
    return [(stage.title, stage.state, stage.detail) for stage in run.stages()]


def test_the_stages(run):
    submitted, node, image, lab = (
        "Checked and submitted",
        "Waiting for the node",
        "The node prepares the image",
        "JupyterLab starts",
    )
    assert stages(run) == [(submitted, "now", ""), (node, "next", ""), (image, "next", ""), (lab, "next", "")]
    run.job = "17"
    run.mark("submitted")
    since = datetime.fromtimestamp(run.times["submitted"]).strftime("%H:%M")
    run.wait(JobStatus(Phase.QUEUED, "the queue is long", expected=time.time() - 60))
    assert stages(run) == [
        (submitted, "done", "job 17"),
        (node, "now", f"the queue is long; waiting since {since}"),
        (image, "next", ""),
        (lab, "next", ""),
    ]
    soon = time.time() + 1
    run.wait(JobStatus(Phase.QUEUED, "the queue is long", advice="Be patient.", expected=soon + 14 * 86400))
    later = datetime.fromtimestamp(soon + 14 * 86400).strftime("%a %H:%M")
    text = f"the queue is long; waiting since {since}; expected to start about {later}; Be patient."
    assert stages(run)[1] == (node, "now", text)
    run.wait(JobStatus(Phase.RUNNING, host="c1"))
    assert stages(run)[1] == (node, "now", "node c1 prepares the job")
    run.claim(FIRST)
    run.notes = ["left out: /data", "another"]
    assert stages(run)[1:3] == [(node, "done", ""), (image, "now", "left out: /data; another")]
    run.mark("starting")
    run.ready("http://node:1")
    assert [state for _, state, _ in stages(run)] == ["done"] * 4
    assert all(len(stage.time) == 8 for stage in run.stages())


# --- the end, in words

RUNTIME = "The time that was asked for is over after 8 h. Ask for more time, or save your work earlier."
NO_SERVER = "The image has no jupyterhub-singleuser: choose another, or ask its author to add the package jupyterhub."
LOOK = "The last lines of its log may tell why; choose another image, or ask the site's admins."


@pytest.mark.parametrize(
    "report, log, words",
    [
        ({"reason": "stopped", "seconds": 5}, [], "The server was stopped after 5 s."),
        ({"reason": "stopped"}, [], "The server was stopped."),
        ({"reason": "runtime", "seconds": 28800}, [], RUNTIME),
        (
            {"reason": "missing", "message": "image /cvmfs/x does not exist on node7"},
            [],
            "The server could not be started: image /cvmfs/x does not exist on node7. "
            "Choose another image, or tell the site's admins.",
        ),
        (
            {"reason": "failed", "message": "apptainer could not be started on n1: No such file or directory"},
            [],
            "The server could not be started: apptainer could not be started on n1: No such file or directory. "
            "Apptainer is missing on that machine: tell the site's admins.",
        ),
        (
            {"reason": "exited", "code": 0, "seconds": 3600},
            [],
            f"The server ended with exit code 0 after 60 min. {LOOK}",
        ),
        (
            {"reason": "exited", "code": 1, "seconds": 0.4},
            ["x"],
            f"The server ended with exit code 1 after 0 s. {LOOK}",
        ),
        ({"reason": "exited", "code": 137, "seconds": 60}, [], f"The server was killed by signal 9 after 60 s. {LOOK}"),
        (
            {"reason": "exited", "code": 255},
            ['FATAL:   "jupyterhub-singleuser": executable file not found in $PATH'],
            f"The server ended with exit code 255. {NO_SERVER}",
        ),
        (
            {"reason": "exited", "code": 127},
            ["setup: line 2: exec: jupyterhub-singleuser: not found", "bash: jupyterhub-singleuser: command not found"],
            f"The server ended with exit code 127. {NO_SERVER}",
        ),
        (
            {"reason": "exited", "code": 255},
            ['FATAL:   "start.sh": executable file not found in $PATH'],
            "The server ended with exit code 255. The image lacks the command: choose another image.",
        ),
        (
            {"reason": "exited", "code": 255},
            ["FATAL: image format not recognized"],
            "The server ended with exit code 255. That is no image that Apptainer can run: choose another.",
        ),
        (
            {"reason": "exited", "code": 255},
            ["FATAL: /dev/fuse: Permission denied"],
            "The server ended with exit code 255. The machine lets users mount no SIF images: take a sandbox, "
            "or tell the site's admins.",
        ),
        (
            {"reason": "exited", "code": 255},
            ["FATAL: mount hook function failure: mount source /nowhere doesn't exist"],
            "The server ended with exit code 255. A directory that the site mounts is missing: tell the site's admins.",
        ),
        (
            {"reason": "exited", "code": 1},
            ["OSError: [Errno 122] Disk quota exceeded"],
            "The server ended with exit code 1. A disk is full, perhaps your home: make room and try again.",
        ),
        (
            {"reason": "exited", "code": 1},
            ["MemoryError"],
            "The server ended with exit code 1. The memory did not suffice: ask for more.",
        ),
        # what no honest launcher sends
        ({}, [], f"The server ended. {LOOK}"),
        ({"reason": [], "code": "x" * 10**6, "seconds": "long"}, [], f"The server ended. {LOOK}"),
        ({"reason": "exited", "code": 10**400, "seconds": 10**400}, [], f"The server ended. {LOOK}"),
        ({"reason": "exited", "code": -9, "seconds": float("inf")}, [], f"The server ended. {LOOK}"),
        ({"reason": "exited", "code": 0, "seconds": float("nan")}, [], f"The server ended with exit code 0. {LOOK}"),
        (
            {"reason": "failed", "message": "one\ntwo\x1b[31m red"},
            [],
            f"The server could not be started: onetwo[31m red. {LOOK}",
        ),
    ],
)
def test_the_end_is_explained(report, log, words):
    failure = explain(report, log)
    assert f"{failure.message} {failure.advice}".strip() == words
    if log:
        assert failure.text == f"{words}\nLast lines of its log:\n" + "\n".join(log)


def test_a_long_message_is_cut():
    assert len(explain({"reason": "failed", "message": "x" * 10**6}, []).message) < 1100


# --- the log


def test_a_log_is_told_without_secrets():
    lines = ["token=SECRET-1 and SECRET-1", "https://x/?token=SECRET-2", "harmless"]
    assert clean_log(lines, ["SECRET-1", "SECRET-2", ""]) == [
        "token=<secret> and <secret>",
        "https://x/?token=<secret>",
        "harmless",
    ]


def test_a_secret_at_the_cut_of_a_line_is_not_told_in_part():
    (line,) = clean_log(["x" * 490 + "SECRET-THAT-IS-LONG"], ["SECRET-THAT-IS-LONG"])
    assert "SECRET" not in line and len(line) <= 500


def test_a_log_is_bounded_and_plain():
    clean = clean_log([f"{i} " + "x" * 10_000 for i in range(1000)], [])
    assert len(clean) == 40 and clean[-1].startswith("999 ") and max(map(len, clean)) == 500
    assert clean_log("a\x1b[31mb\x07\tc\u202e\r\nd\n", []) == ["a[31mb\tc", "d"]


@pytest.mark.parametrize(
    "lines, clean", [(None, []), (7, []), ({}, []), ("", []), ([1, None, ["a"]], ["1", "None", "['a']"])]
)
def test_a_log_that_is_none(lines, clean):
    assert clean_log(lines, []) == clean
