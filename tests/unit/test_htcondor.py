"""HTCondor's pure parts: descriptions as golden files and before the real condor_submit, answers, words, the site."""

import json
import logging
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hepspawner.backends.base import BackendError, Phase, Tag
from hepspawner.backends.htcondor import HTCondorBackend, HTCondorConfig, answers, cluster, words
from hepspawner.backends.htcondor.errors import refusal
from hepspawner.backends.htcondor.submit import LAUNCHER, description
from hepspawner.backends.tags import as_written, write_tag
from hepspawner.choice import Offer, Who
from hepspawner.site.load import SiteError, load_site
from tests.htcondor import BIN

TAG = Tag("0123456789ab", "alice", "", "f" * 32)
NOW = 1_800_000_000.0
FARM: dict[str, Any] = {
    "type": "htcondor",
    "cpus": {"default": 2, "max": 64},
    "memory": {"default": "4G", "max": "128G"},
    "disk": {"default": "10G", "max": "100G"},
    "runtime": {"default": "8h", "max": "2d"},
    "requirements": 'Machine =!= "old.example.org"',
    "rank": "KFlops",
    "accounting_groups": {"*": ["group_guests"], "atlas": ["group_atlas.analysis"]},
    "attributes": {"MaxRuntime": "172800", "Project": '"physics"'},
    "gpus": {
        "a100": {
            "require": 'DeviceName == "A100-SXM4-40GB"',
            "capability": 8.0,
            "memory": "40G",
            "requirements": "CUDADriverVersion >= 12",
            "max": 2,
        }
    },
}


def config(**more: Any) -> HTCondorConfig:
    return HTCondorConfig.model_validate({**FARM, **more})


def session(**more: Any) -> Any:
    plain = {"user": "alice", "cpus": None, "memory": None, "gpu": None, "gpus": 0, "runtime": None, "extra": {}}
    return SimpleNamespace(**{**plain, **more})


FULL = {
    "cpus": 4,
    "memory": 2**31,
    "gpu": "a100",
    "gpus": 2,
    "runtime": 3600,
    "extra": {"disk": "10G", "accounting_group": "group_atlas.analysis"},
}
IMAGE = "/cvmfs/unpacked.cern.ch/yesw2000/ml-base:alma9-python311"
CASES = {
    "htcondor-plain": lambda: description(HTCondorConfig(type="htcondor"), session(), TAG),
    "htcondor-shared": lambda: description(HTCondorConfig(type="htcondor", shared_homes=True), session(), TAG),
    "htcondor-full": lambda: description(config(), session(**FULL), TAG),
    "htcondor-container": lambda: description(config(universe="container"), session(container_image=IMAGE), TAG),
    "htcondor-token": lambda: description(config(run_as="none", token={"domain": "x.org"}), session(**FULL), TAG),
}


@pytest.mark.parametrize("name", CASES)
def test_descriptions(golden: Any, name: str) -> None:
    golden(f"{name}.sub", CASES[name]().replace(str(LAUNCHER), "LAUNCHER"))


# --- what the real condor_submit makes of it


def ad_of(text: str, directory: Path) -> dict[str, str]:
    """The ad that condor_submit makes of a description, without asking a schedd."""
    out = directory / "ad"
    text = text.replace("/proc/self/fd/3", "/dev/null")
    env = {**os.environ, "CONDOR_CONFIG": "/dev/null", "_CONDOR_SCHEDD_HOST": "nowhere"}
    argv = [str(BIN / "condor_submit"), "-dry-run", str(out), "-"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, env=env, cwd="/", timeout=30)
    assert done.returncode == 0, done.stderr
    assert "unused by condor_submit" not in done.stderr, done.stderr
    lines = out.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ads")


@pytest.mark.needs("htcondor")
def test_condor_submit_reads_what_was_meant(folder: Path) -> None:
    ad = ad_of(CASES["htcondor-full"](), folder)
    assert (ad["RequestCpus"], ad["RequestMemory"], ad["RequestDisk"]) == ("4", "2048", "10485760")
    assert ad["RequestGPUs"] == "2" and 'DeviceName == "A100-SXM4-40GB"' in ad["RequireGPUs"]
    assert ad["AcctGroup"] == '"group_atlas.analysis"'
    assert ad["Project"] == '"physics"' and ad["MaxRuntime"] == "172800"
    assert ad["AllowedExecuteDuration"] == "3720"
    assert 'Machine =!= "old.example.org"' in ad["Requirements"] and "CUDADriverVersion >= 12" in ad["Requirements"]
    assert ad["Args"] == '"-I -S launcher.py"' and "TransferOutput" not in ad and ad["Environment"] == '""'
    assert ad["HEPSpawnerTag"] == f'"{write_tag(TAG)}"'


nasty = st.text(st.sampled_from("ab\\\"'$(){}[]%\n\r\t =&|;,@+#`~:\0é\u2028"), max_size=30) | st.text(max_size=60)


@pytest.mark.needs("htcondor")
@settings(max_examples=80)
@given(user=nasty, server=nasty)
def test_no_name_of_a_user_or_a_server_can_add_or_change_an_attribute(folder: Path, user: str, server: str) -> None:
    tag = Tag(TAG.hub, user, server, TAG.session)
    plain, ad = ad_of(CASES["htcondor-full"](), folder), ad_of(description(config(), session(**FULL), tag), folder)
    assert ad.pop("HEPSpawnerTag") == f'"{write_tag(tag)}"'
    del plain["HEPSpawnerTag"]
    for changing in ("QDate", "EnteredCurrentStatus"):
        del plain[changing], ad[changing]
    assert ad == plain


@pytest.mark.needs("htcondor")
@settings(max_examples=80)
@given(path=nasty)
def test_the_path_of_an_image_is_nothing_else(folder: Path, path: str) -> None:
    image = f"/home/alice/{path}"
    contained = config(universe="container")
    try:
        text = description(contained, session(container_image=image), TAG)
    except ValueError:
        return
    plain, ad = ad_of(CASES["htcondor-container"](), folder), ad_of(text, folder)
    assert ad.pop("ContainerImage") == f'"{image}"' and plain.pop("ContainerImage") == f'"{IMAGE}"'
    for changing in ("QDate", "EnteredCurrentStatus"):
        del plain[changing], ad[changing]
    assert ad == plain


@pytest.mark.parametrize("path", ["/home/alice/$$(Cpus)", "/home/alice/$$([ Machine ])", "/home/alice/a$$"])
def test_a_path_is_not_completed_when_a_machine_is_found(path: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        description(config(universe="container"), session(container_image=path), TAG)


def test_a_prefix_is_no_container() -> None:
    text = description(config(universe="container"), session(container_image=None), TAG)
    assert text == description(config(), session(), TAG)


@given(group=nasty, python=nasty)
def test_whatever_else_stands_there_is_one_line_or_is_refused(group: str, python: str) -> None:
    odd = session(extra={"accounting_group": group})
    unchecked = HTCondorConfig.model_construct(**{**config().__dict__, "python": python, "attributes": {}})
    try:
        text = description(unchecked, odd, TAG)
    except ValueError:
        return
    plain = description(config(python="/x", attributes={}), session(extra={"accounting_group": "g"}), TAG)
    assert [line.partition(" = ")[0] for line in text.split("\n") if "accounting_group" not in line] == [
        line.partition(" = ")[0] for line in plain.split("\n") if "accounting_group" not in line
    ]
    assert "$" not in text.replace("$(DOLLAR)", "")


# --- the site


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"memory": {"default": "lots", "max": "2G"}}, "memory"),
        ({"requirements": "a\nqueue 1000"}, "requirements"),
        ({"requirements": ""}, "requirements"),
        ({"universe": "docker"}, "universe"),
        ({"event_log": "EventLog"}, "event_log"),
        ({"rank": "Memory \\"}, "rank"),
        ({"rank": "$(HOME)"}, "holds no"),
        ({"attributes": {"x y": "1"}}, "attribute"),
        ({"attributes": {"HEPSpawnerTag": '"mine"'}}, "attribute"),
        ({"accounting_groups": ["a b"]}, "accounting_groups"),
        ({"schedd": "-debug"}, "schedd"),
        ({"pool": "a b"}, "pool"),
        ({"gpus": {"a": {"capability": -1}}}, "capability"),
        ({"token": {"domain": "x.org"}}, "run_as: none"),
        ({"commands": {"paths": {"squeue": "/bin/true"}}}, "squeue"),
        ({"reqirements": "true"}, "reqirements"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_wrong_site_is_refused_with_the_key_named(wrong: dict[str, Any], said: str) -> None:
    site = {"images": [{"name": "a", "path": "/a"}], "backends": {"farm": {**FARM, **wrong}}}
    with pytest.raises(SiteError) as caught:
        load_site(site)
    assert said.replace("holds no", "hold no") in str(caught.value)


def test_a_choice_of_disk_and_group_is_read_again_as_it_was_written() -> None:
    site = load_site({"images": [{"name": "a", "path": "/a"}], "backends": {"farm": FARM}})
    who = Who("alice", frozenset({"atlas"}))
    fields = cluster.fields(site.backends["farm"], cluster.Largest(), who)  # type: ignore[arg-type]
    offer = Offer(site, who, {"farm": fields})
    choice = offer.choose({"disk": "20G", "accounting_group": "group_atlas.analysis"})
    assert choice.extra == {"disk": "20G", "accounting_group": "group_atlas.analysis"}
    assert offer.choose(choice.options()) == choice
    assert Who("bob").names(site.backends["farm"].accounting_groups) == ["group_guests"]  # type: ignore[attr-defined]


def test_what_the_site_does_not_limit_is_limited_by_the_largest_machine() -> None:
    fields = {
        one.name: one
        for one in cluster.fields(HTCondorConfig(type="htcondor"), cluster.Largest(64, 2**37), Who("alice"))
    }
    assert (fields["cpus"].default, fields["cpus"].max) == (1, 64)
    assert (fields["memory"].default, fields["memory"].max) == (2**31, 2**37)


def test_the_preview_shows_the_description_without_a_ticket() -> None:
    backend = HTCondorBackend("farm", config(), logging.getLogger("test"))
    request = session(environment={"JUPYTERHUB_USER": "alice"}, **FULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hepspawner.backends.htcondor.backend.describe", lambda one: "…")
        text = backend.preview(request)
    assert text.startswith("# runuser -u alice -- /bin/sh ") and "condor_submit -spool -terse" in text
    assert "request_gpus = 2" in text and "ticket" not in text


# --- answers


def job(**more: Any) -> dict[str, Any]:
    return {
        "ClusterId": 7,
        "JobStatus": 1,
        "Owner": "alice",
        "HEPSpawnerTag": write_tag(TAG),
        "ServerTime": NOW,
        **more,
    }


def status_of(**more: Any) -> Any:
    return answers.jobs_of([job(**more)], lambda account, tag: tag, NOW, {})["7"].status


@pytest.mark.parametrize(
    "text", ["[", '[{"ClusterId": 7}]', '[{"ClusterId": "7", "JobStatus": 1}]', "{}", "7", "error", "[7]", "[{}]"]
)
def test_an_answer_that_is_not_whole_is_none(text: str) -> None:
    with pytest.raises(BackendError):
        answers.read_ads(text)


@given(cut=st.integers(1, 400))
def test_an_answer_that_was_cut_off_is_never_taken_for_a_shorter_list(cut: int) -> None:
    text = json.dumps([job(), job(ClusterId=8)])
    if cut < len(text):
        with pytest.raises(BackendError):
            answers.read_ads(text[:cut])


def test_nothing_at_all_is_no_jobs() -> None:
    assert answers.read_ads("") == answers.read_ads("[ \n ]\n") == []


@given(ad=st.dictionaries(st.sampled_from(sorted(answers.PRESENT.split(","))), st.none() | st.text() | st.integers()))
def test_odd_attributes_do_no_harm(ad: dict[str, Any]) -> None:
    text = json.dumps([{**ad, "ClusterId": 7, "JobStatus": number} for number in range(9)])
    jobs = answers.jobs_of(answers.read_ads(text), lambda account, tag: tag, NOW, {})
    assert jobs["7"].status.phase is Phase.UNKNOWN  # the last was of a state that there is not


def test_a_job_of_another_account_carries_no_tag() -> None:
    jobs = answers.jobs_of([job(Owner="bob")], lambda account, tag: tag if account == "alice" else None, NOW, {})
    assert jobs["7"].tag is None


def test_phases() -> None:
    assert status_of().phase is Phase.QUEUED
    began = {"JobCurrentStartDate": 5, "JobCurrentStartExecutingDate": 5}
    running = status_of(JobStatus=2, RemoteHost="slot1_1@node3@worker.example.org", **began)
    assert (running.phase, running.host) == (Phase.RUNNING, "node3@worker.example.org")
    sent = status_of(JobStatus=2, RemoteHost="slot1@worker", JobCurrentStartDate=9, JobCurrentStartExecutingDate=5)
    assert (sent.phase, sent.reason) == (Phase.QUEUED, "node worker prepares it")
    assert status_of(JobStatus=7).reason.startswith("it is suspended")
    removed = answers.jobs_of([job(JobStatus=3)], lambda account, tag: tag, NOW, {})["7"]
    assert removed.leaving and removed.status.phase is Phase.RUNNING
    assert status_of(JobStatus=4, ExitCode=0) == status_of(JobStatus=4, ExitCode=0, ExitBySignal=False)


@pytest.mark.parametrize(
    ("ad", "phase", "said"),
    [
        ({}, Phase.QUEUED, "has not looked at it yet"),
        ({"LastRejMatchTime": 5, "LastRejMatchReason": "no match found "}, Phase.QUEUED, "room free"),
        ({"LastRejMatchTime": 5, "LastRejMatchReason": "insufficient priority"}, Phase.QUEUED, "others are before it"),
        ({"LastRejMatchTime": 5, "LastMatchTime": 9}, Phase.QUEUED, "a node was found"),
        ({"NumShadowStarts": 3}, Phase.QUEUED, "3 nodes in turn could not start it"),
        ({"NumShadowStarts": 1, "NumJobStarts": 1}, Phase.QUEUED, "sent back to the queue"),
        ({"JobStatus": 5, "HoldReasonCode": 16, "EnteredCurrentStatus": NOW - 5}, Phase.QUEUED, "being sent"),
        ({"JobStatus": 5, "HoldReasonCode": 16, "EnteredCurrentStatus": NOW - 999}, Phase.ENDED, "did not arrive"),
        (
            {"JobStatus": 5, "HoldReasonCode": 1, "HoldReason": "via condor_hold (by user eve)"},
            Phase.QUEUED,
            "eve hold",
        ),
        ({"JobStatus": 5, "HoldReasonCode": 1, "NumJobStarts": 1}, Phase.ENDED, "which ended it"),
        ({"JobStatus": 5, "HoldReasonCode": 6, "HoldReason": "Failed to execute"}, Phase.ENDED, "could not run"),
        (
            {"JobStatus": 5, "HoldReasonCode": 21, "HoldReason": "memory usage exceeded request_memory"},
            Phase.ENDED,
            "more memory",
        ),
        ({"JobStatus": 5, "HoldReasonCode": 47}, Phase.ENDED, "its time was over"),
        ({"JobStatus": 5, "HoldReasonCode": 999, "HoldReason": "Odd"}, Phase.ENDED, "HTCondor says: Odd"),
    ],
)
def test_why_it_waits_or_is_held(ad: dict[str, Any], phase: Phase, said: str) -> None:
    status = status_of(**ad)
    assert status.phase is phase and said in status.reason, status


@pytest.mark.parametrize(
    ("ad", "said", "code"),
    [
        ({"JobStatus": 3, "RemoveReason": "via condor_rm (by user bob)"}, "bob removed the job", None),
        ({"JobStatus": 3, "RemoveReason": "PeriodicRemove evaluated to TRUE"}, "the pool's rules", None),
        ({"JobStatus": 3}, "the job was removed", None),
        ({"JobStatus": 3, "HoldReason": "x", "HoldReasonCode": 34}, "needed more than", None),
        ({"JobStatus": 4, "ExitCode": 0}, "the job ended", 0),
        ({"JobStatus": 4, "ExitCode": 75}, "could not reach the hub", 75),
        ({"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9}, "killed by signal 9", 137),
        ({"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 11}, "killed by signal 11", 139),
    ],
)
def test_how_it_ended(ad: dict[str, Any], said: str, code: int | None) -> None:
    status = words.end_of(ad)
    assert status.phase is Phase.ENDED and said in status.reason and status.exit_code == code, status


def test_how_many_wait_is_told_where_there_is_no_position() -> None:
    submitters = ("alice@x.org 1", "bob@x.org 3", "group_atlas.alice@x.org 2", "bob@x.org 4", "odd undefined")
    slots, idle = cluster.read_pool("".join(f"Submitter {one} 0 0 undefined\n" for one in submitters), [])
    assert not slots and idle == {"alice@x.org": 1, "bob@x.org": 7, "group_atlas.alice@x.org": 2, "odd": 0}
    waits = lambda idle, **more: words.waiting(job(**more), "", idle).reason  # noqa: E731
    assert waits(idle).endswith("at it yet; 10 jobs wait in the pool, 3 of them yours")
    assert waits({"bob@x.org": 7}).endswith("; 7 jobs wait in the pool")
    assert waits({"alice@x.org": 1}) == waits({}) == waits(None)
    assert "wait in the pool" not in waits(idle, LastMatchTime=9)
    assert "wait in the pool" not in words.waiting(job(), "Cpus >= 100", idle).reason


def test_the_history_is_believed_for_the_job_that_was_meant_only() -> None:
    text = json.dumps([job(JobStatus=4, ExitCode=3), job(JobStatus=4, ExitCode=0)])
    assert answers.read_ends(text, lambda one: as_written(TAG))["7"].exit_code == 3
    assert not answers.read_ends(text, lambda one: Tag("another", "", "", ""))


@pytest.mark.parametrize("text", ["", "22", "22.0 - 22.1\n", "22.0 - 22.0 x", "1 job(s) submitted to cluster 2."])
def test_a_submission_that_cannot_be_read(text: str) -> None:
    with pytest.raises(BackendError):
        answers.read_submission(text)


def test_submissions() -> None:
    assert answers.read_submission("22.0 - 22.0\n") == "22"
    meant = refusal("ERROR: Can't find address of local schedd")
    assert meant and "not there" in meant.text
    meant = refusal("ERROR: Failed to connect to local queue manager AUTHENTICATE:1003:Failed to authenticate with any")
    assert meant and "may not submit" in meant.text
    assert refusal("SECMAN:2007:This service is running, but did not respond") is None
    late = "ERROR: Failed to spool job files.\nSECMAN:2003:TCP connection failed\nFailed to connect to <127.0.0.1:9618>"
    assert refusal(late) is None  # the job is there
