"""Slurm's pure parts: script, answers, words, fields. What Slurm says here was said by a real one (22.05)."""

import logging
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepspawner.backends.accounts import Account
from hepspawner.backends.base import Amount, BackendError, Phase, Tag
from hepspawner.backends.slurm import SlurmBackend, answers, cluster
from hepspawner.backends.slurm.errors import refusal
from hepspawner.backends.slurm.script import LAUNCHER, directives, script, warning
from hepspawner.backends.slurm.words import REASONS, end_of, reason_for_waiting
from hepspawner.backends.tags import as_written, read_tag, write_tag
from hepspawner.choice import ChoiceError, Offer, Who
from hepspawner.site.load import SiteError, load_site
from hepspawner.templates import Templates
from tests.unit.test_session import session

LOG = logging.getLogger("test")
TAG = Tag("c0ffee", "alice", "", "0f0f0f")
ALICE = Account("alice", 1001, "/home/alice", {})
PARTITIONS = {
    "cpu": {"title": "CPU", "cpus": {"max": 64}, "memory": {"default": "2G", "max": "256G"}},
    "gpu": {"cpus": {"max": 32}, "gpus": {"a100": 2, "t4": 1}, "runtime": {"default": "1h", "max": "4h"}},
    "staff": {"groups": ["staff"]},
}
GPUS = {"a100": {"title": "NVIDIA A100", "max": 4, "gres": "gpu:a100"}}
PART = {
    "type": "slurm",
    "cpus": {"default": 1, "max": 8},
    "memory": {"default": "1G", "max": "8G"},
    "runtime": {"default": "8h", "max": "1d"},
    "gpus": {**GPUS, "t4": {"partition": "gpu"}},
    "partitions": PARTITIONS,
}


def config(**keys):
    site = {"images": [{"name": "x", "path": "/x"}], "backends": {"farm": {**PART, **keys}}}
    return load_site(site).backends["farm"]


def backend(**keys):
    return SlurmBackend("farm", config(**keys), LOG)


def offer(who="alice", groups=(), **keys):
    site = load_site({"images": [{"name": "x", "path": "/x"}], "backends": {"farm": {**PART, **keys}}})
    one, person = SlurmBackend("farm", site.backends["farm"], LOG), Who(who, frozenset(groups))
    return Offer(site, person, {"farm": one.fields(person)})


def made(options=None, **keys):
    """A session on a Slurm backend, and its configuration."""
    chosen = offer(**keys).choose({"image": "x", **(options or {})})
    one = session({"path": "/x"}, None, backend={**PART, **keys})
    fields = {name: getattr(chosen, name) for name in ("cpus", "memory", "gpu", "gpus", "runtime", "extra")}
    return type(one)(**{**vars(one), **fields}), config(**keys)


def lines(options=None, tag=TAG, **keys):
    one, said = made(options, **keys)
    return directives(said, one, tag, ALICE)


# --- the script

CASES = {
    "plain": ({}, {}),
    "gpu": ({"gpu": "a100", "gpus": 2, "cpus": 16, "memory": "8G", "runtime": "90m"}, {}),
    "all-keys": (
        {"partition": "cpu", "account": "atlas", "qos": "night"},
        {
            "accounts": ["atlas"],
            "qos": {"*": ["night"]},
            "reservation": "school",
            "constraint": "avx2&ib",
            "directives": ["--exclude=c9", "--licenses=x:1"],
            "log": "{home}/slurm-%j.log",
            "python": "/opt/my python/bin/python3",
            "cluster": "big",
            "run_as": "sudo",
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_script(name, golden):
    options, keys = CASES[name]
    one, said = made(options, **keys)
    text = script(said, Templates([], LOG), one, TAG, ALICE, {"ticket": "t", "hub": "http://hub"}, "LAUNCHER\n")
    golden(f"slurm-{name}.sh", text)
    assert f"{LAUNCHER.strip()}\n" in script(said, Templates([], LOG), one, TAG, ALICE, {})


def test_the_preview_shows_how_it_is_submitted_and_no_ticket():
    one, _ = made()
    text = backend(run_as="sudo", cluster="big", commands={"paths": {"sbatch": "/usr/bin/sbatch"}}).preview(one)
    assert text.startswith("# sudo -n -u alice -- /usr/bin/sbatch --parsable --export=NONE -M big, with this on")
    assert "#SBATCH --time=0-08:00:00" in text
    assert "#SBATCH --comment=hepspawner:" in text


def test_what_slurm_is_asked_for():
    assert {"--cpus-per-task=3", "--mem=1025M", "--time=0-00:01:30", "--signal=B:USR1@9", "--no-requeue"} <= set(
        lines({"cpus": 3, "memory": "1049000K", "runtime": "90s"})
    )
    assert "--gres=gpu:a100:2" in lines({"gpu": "a100", "gpus": 2})
    assert "--gres=gpu:1" in lines({"gpu": "t4"})  # by its partition: whatever GPUs are there
    assert "--partition=gpu" in lines({"gpu": "t4"})
    assert not [line for line in lines() if line.startswith(("--gres", "--account", "--qos", "--reservation"))]


def test_no_secret_and_no_environment_is_in_the_script():
    one, said = made()
    text = script(said, Templates([], LOG), one, TAG, ALICE, {"ticket": "t"})
    assert "0123456789abcdef-the-token" not in text
    assert "JUPYTERHUB_API_TOKEN" not in text.replace(LAUNCHER, "")


@given(st.text(max_size=255), st.text(max_size=255))
def test_names_of_users_and_servers_cannot_break_the_script(user, server):
    tag = Tag("c0ffee", user, server, "0f0f0f")
    (comment,) = [line for line in lines(tag=tag) if line.startswith("--comment=")]
    assert shlex.split(comment) == [comment]
    assert comment.isascii() and "#" not in comment and len(comment) < 1024  # of 1025 Slurm refuses the job
    assert read_tag(comment.partition("=")[2]) == as_written(tag)


@given(st.text(min_size=1, max_size=30), st.text(max_size=30))
def test_a_tag_comes_back(user, server):
    tag = Tag("c0ffee", user, server, "0f0f0f")
    assert read_tag(write_tag(tag)) == tag


@pytest.mark.parametrize("text", ["", "(null)", "hepspawner", "hepspawner:a:b:c", "other:a:b:c:d", "a:b:c:d:e:f"])
def test_other_comments_are_no_tags(text):
    assert read_tag(text) is None


def test_the_warning_leaves_time_for_short_jobs():
    assert [warning(60), warning(300), warning(3600), warning(None)] == [6, 30, 60, 60]


# --- answers

HEADER = "JOBID|STATE|EXEC_HOST|START_TIME|RESTART_COUNT|EXIT_CODE|USER|REASON|COMMENT|\n"
MARK = write_tag(TAG)


def jobs(*rows, header=HEADER):
    return answers.read_jobs(header + "".join(f"{row}|\n" for row in rows), lambda account, tag: tag)


def test_jobs_in_every_state():
    found = jobs(
        f"1|PENDING|n/a|1795246540|0|0|alice|Resources|{MARK}",
        f"2|RUNNING|c1|1795242940|0|0|alice|None|{MARK}",
        f"3|COMPLETING|c1|1795242940|0|0|alice|None|{MARK}",
        f"4|FAILED|c2|1795242940|0|768|alice|NonZeroExitCode|{MARK}",
        f"5|SUSPENDED|c2|1795242940|0|0|alice|None|{MARK}",
        f"6|PENDING|n/a|N/A|1|0|alice|BeginTime|{MARK}",
        f"7|TANGLED|c2|1795242940|0|0|alice|None|{MARK}",
        "8|RUNNING|c2|1795242940|0|0|bob|a|reason|with bars",
    )
    phases = [found[str(i)].status.phase for i in range(1, 9)]
    assert phases == [
        Phase.QUEUED,
        Phase.RUNNING,
        Phase.RUNNING,
        Phase.ENDED,
        Phase.RUNNING,
        Phase.QUEUED,
        Phase.UNKNOWN,
        Phase.RUNNING,
    ]
    assert found["1"].status.expected == 1795246540
    assert found["2"].status.host == "c1" and found["2"].tag == TAG
    assert found["3"].leaving
    assert found["4"].status.exit_code == 3
    assert "suspended" in found["5"].status.reason
    assert found["6"].status.again and found["6"].status.expected is None
    assert found["8"].tag is None


def test_slurm_24_and_26_say_exit_codes_in_another_way():
    found = jobs(
        f"1|CANCELLED|c1|1795245418|0|0:15|alice|None|{MARK}",
        f"2|FAILED|c1|1795245418|0|3:0|alice|NonZeroExitCode|{MARK}",
        "6|FAILED|c1|1795245418|0|0:53|alice|RaisedSignal:53(Real-time signal 19)|(null)",
        f"4|RUNNING|g1|1795245418|0|0:0|alice|None|{MARK}",
    )
    assert found["2"].status.exit_code == 3
    assert "cancelled" in found["1"].status.reason
    assert "could not start the job" in found["6"].status.reason
    nodes = NODES.partition("\n")[0] + "\n"
    nodes += "cpu*|idle|0/128/0/128|262144|(null)|(null)|1-00:00:00|1:00:00|up|\n"
    nodes += "gpu|mixed-|1/127/0/128|262144|gpu:a100:2|gpu:a100:1(IDX:0)|4:00:00|1:00:00|up|\n"
    assert [node.usable for node in answers.read_nodes(nodes)] == [True, True]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n",
        "1|PENDING|n/a|N/A|0|0|alice|None|x|\n",  # whole lines, but of what?
        HEADER + "1|PENDING|n/a|N/A\n",
        HEADER + f"1|RUNNING|c1|1|0|0|alice|None|{MARK}",  # cut off
        HEADER + "squeue: warning\n",
        HEADER + "x|RUNNING|c1|1|0|0|alice|None|x|\n",
        '{"jobs": []}\n',
    ],
)
def test_an_answer_that_is_not_surely_whole_is_none(text):
    with pytest.raises(BackendError):
        answers.read_jobs(text, lambda account, tag: tag)


def test_no_job_is_an_answer():
    assert jobs() == {}
    assert jobs(header="CLUSTER: big\n" + HEADER) == {}


@given(st.text(max_size=200))
def test_no_answer_makes_the_reader_stumble(text):
    for read in (
        lambda: answers.read_jobs(HEADER + text, lambda account, tag: tag),
        lambda: answers.read_nodes(text),
        lambda: answers.read_submission(text),
    ):
        try:
            read()
        except BackendError:
            pass
    answers.read_accounting(text, "jupyter-c0ffee", str)
    cluster.read_associations(text)
    answers.read_time(text)


def test_a_tag_that_its_account_may_not_carry_does_not_count():
    one = backend()
    one.hub = TAG.hub
    assert one.trusted("alice", TAG) == TAG
    assert one.trusted("bob", TAG) is None
    assert one.trusted("alice", None) is None


def test_the_accounting():
    text = (
        "1|CANCELLED by 0|0:0|c1|jupyter-c0ffee\n2|FAILED|3:0|c1|jupyter-c0ffee\n3|RUNNING|0:0|c1|jupyter-c0ffee\n"
        "4|OUT_OF_MEMORY|0:125|c1|allocation\n5|FAILED|1:0|c1|somebody-else's\n\nnonsense\n"
    )
    ends = answers.read_accounting(text, "jupyter-c0ffee", lambda uid: {0: "root"}[uid])
    assert sorted(ends) == ["1", "2", "4"]
    assert ends["1"].reason == "root cancelled the job (CANCELLED)"
    assert ends["2"].exit_code == 3
    assert "more memory" in ends["4"].reason


@pytest.mark.parametrize("text, job", [("13\n", "13"), ("13;big\n", "13"), ("some banner\n13\n", "13")])
def test_a_submission(text, job):
    assert answers.read_submission(text) == job


# --- words


@pytest.mark.parametrize(
    "raw, words, hopeless",
    [
        ("None", "the scheduler has not looked at it yet", False),
        ("Priority", "others are before it in the queue (Priority)", False),
        ("PartitionTimeLimit", "the time asked for is more than its partition allows (PartitionTimeLimit)", True),
        ("ReqNodeNotAvail, UnavailableNodes:c[1-2]", "no node that it could use is available", False),
        ("JobHeldAdmin", "an admin holds it (JobHeldAdmin)", False),
        ("AssocGrpCpuLimit", "as many cores as are allowed are in use, by your account (AssocGrpCpuLimit)", False),
        ("QOSMaxGRESPerUser", "as many GPUs as are allowed are in use", False),
        ("QOSMaxWallDurationPerJobLimit", "the time asked for is more than is allowed", True),
        ("SomethingNew", "Slurm says: SomethingNew", False),
    ],
)
def test_why_a_job_waits(raw, words, hopeless):
    said = reason_for_waiting(raw)
    assert said.text.startswith(words)
    assert said.hopeless is hopeless
    assert bool(said.advice) >= hopeless


@pytest.mark.parametrize(
    "state, code, words",
    [
        ("TIMEOUT", (0, 15), "its time was over"),
        ("OUT_OF_MEMORY", (0, 125), "more memory"),
        ("NODE_FAIL", (0, 0), "its node c1 failed"),
        ("CANCELLED", (0, 15), "cancelled, not by this hub"),
        ("FAILED", (3, 0), "ended with exit code 3"),
        ("FAILED", (0, 9), "most likely because it needed more memory"),
        ("FAILED", (15, 53), "could not start the job"),
        ("FAILED", (127, 0), "has no Python"),
        ("FAILED", (75, 0), "could not reach the hub"),
        ("FAILED", None, "the job failed"),
        ("COMPLETED", (0, 0), "the job ended"),
        ("PREEMPTED", (0, 0), "higher priority"),
    ],
)
def test_how_a_job_ended(state, code, words):
    status = end_of(state, code, "c1")
    assert status.phase is Phase.ENDED
    assert words in status.reason and f"({state})" in status.reason


def test_the_table_of_reasons_in_the_documentation_is_the_one_that_is_used():
    page = (Path(__file__).parents[2] / "docs/slurm.md").read_text()
    for raw, said in REASONS.items():
        assert f"| `{raw}` | {said.text} |" in page, raw


@pytest.mark.parametrize(
    "text, field",
    [
        (
            "sbatch: error: invalid partition specified: nosuch sbatch: error: Batch job submission failed: …",
            "partition",
        ),
        ("sbatch: error: Memory specification can not be satisfied sbatch: error: … Requested node …", "memory"),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or …)", "runtime"),
        ("sbatch: error: Invalid generic resource (gres) specification", "gpu"),
        ("… Invalid account or account/partition combination specified", "account"),
        ("… Invalid qos specification", "qos"),
        ("sbatch: error: AssocMaxSubmitJobLimit … Job violates accounting/QOS policy", ""),
    ],
)
def test_what_sbatch_refuses_is_told_by_the_field_of_the_form(text, field):
    meant = refusal(text)
    assert meant and meant.field == field


@pytest.mark.parametrize(
    "text",
    [
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "Segmentation fault",
        "",
    ],
)
def test_where_a_job_may_have_been_made_all_the_same_nothing_is_refused(text):
    assert refusal(text) is None


# --- fields


def values(one, name):
    return next(field for field in one.fields("farm") if field.name == name)


def test_ranges_follow_the_partition():
    one = offer()
    assert [value for value, _ in values(one, "partition").values] == ["cpu", "gpu"]
    assert one.choose({"partition": "cpu", "cpus": 64}).cpus == 64
    with pytest.raises(ChoiceError, match=r"cpus: 64 is not allowed on farm, partition gpu; allowed: 1 to 32"):
        one.choose({"partition": "gpu", "cpus": 64})
    assert one.choose({"partition": "gpu"}).runtime == 3600
    assert one.choose({"partition": "cpu"}).runtime == 8 * 3600


def test_the_partition_follows_what_was_asked_for():
    one = offer()
    assert one.choose({}).extra["partition"] == "cpu"
    assert one.choose({"gpu": "a100"}).extra["partition"] == "gpu"
    assert one.choose({"gpus": 1}).extra["partition"] == "gpu"
    assert one.choose({"runtime": "1d"}).extra["partition"] == "cpu"
    wide = {"a": {"cpus": {"max": 4}}, "b": {"cpus": {"max": 40}}}
    assert offer(partitions=wide, gpus={}).choose({"cpus": 20}).extra["partition"] == "b"
    with pytest.raises(ChoiceError, match="gpu: there is none in partition cpu; choose one of: gpu"):
        one.choose({"partition": "cpu", "gpu": "a100"})
    with pytest.raises(ChoiceError, match=r"gpus: 3 is not allowed on farm, partition gpu; allowed: 0 to 2"):
        one.choose({"gpu": "a100", "gpus": 3})


def test_an_image_that_needs_a_gpu():
    def of(who, groups=()):
        site = {"images": [{"name": "cuda", "path": "/x", "gpu": "required"}, {"name": "x", "path": "/x"}]}
        partitions = {"cpu": {}, "gpu": {"groups": ["gpu"], "gpus": {"a100": 2}, "cpus": {"max": 32}}}
        loaded = load_site({**site, "backends": {"farm": {**PART, "gpus": GPUS, "partitions": partitions}}})
        person = Who(who, frozenset(groups))
        fields = {"farm": SlurmBackend("farm", loaded.backends["farm"], LOG).fields(person)}
        return Offer(loaded, person, fields)

    assert list(of("alice").images) == ["x"]  # there is no GPU for her
    one = of("bob", ["gpu"])
    assert one.choose({"image": "cuda"}).extra["partition"] == "gpu"
    with pytest.raises(ChoiceError, match=r"^cpus: 64 is not allowed on farm, partition gpu; allowed: 1 to 32$"):
        one.choose({"image": "cuda", "cpus": 64})
    assert one.preset({"image": "cuda", "partition": "cpu"})[0] == {"image": "cuda"}


def test_partitions_accounts_and_qos_are_for_who_may_use_them():
    assert "staff" in dict(values(offer(groups=["staff"]), "partition").values)
    with pytest.raises(ChoiceError, match=r"partition: 'staff' is not allowed on farm; allowed: cpu, gpu"):
        offer().choose({"partition": "staff"})
    by_group = {"accounts": {"*": ["common"], "atlas": ["atlas", "common"]}}
    assert [value for value, _ in values(offer(**by_group), "account").values] == ["common"]
    assert offer(groups=["atlas"], **by_group).choose({"account": "atlas"}).extra["account"] == "atlas"
    assert offer(**by_group).choose({}).extra["account"] == "common"


NODES = (
    "PARTITION|STATE|CPUS(A/I/O/T)|MEMORY|GRES|GRES_USED|TIMELIMIT|DEFAULTTIME|AVAIL|\n"
    "cpu|mixed|1/127/0/128|262144|(null)|gpu:0|1-00:00:00|1:00:00|up|\n"
    "cpu|drained|0/0/128/128|262144|(null)|gpu:0|1-00:00:00|1:00:00|up|\n"
    "gpu*|mixed|2/62/0/64|131072|gpu:a100:2(S:0-1)|gpu:a100:1(IDX:0)|infinite|n/a|up|\n"
    "gpu*|idle*|0/64/0/64|131072|gpu:a100:2|gpu:a100:0(IDX:N/A)|infinite|n/a|up|\n"
)


def facts():
    return cluster.learn(answers.read_nodes(NODES))


def test_slurm_says_what_the_site_does_not():
    said = config(partitions=None, cpus=None, memory=None, runtime=None)
    fields = {field.name: field for field in cluster.fields(said, facts(), Who("alice"), [], [])}
    assert [value for value, _ in fields["partition"].values] == ["gpu", "cpu"]  # Slurm's default first, none hidden
    assert fields["cpus"].cases["cpu"].max == 128 and fields["cpus"].cases["gpu"].max == 64
    assert fields["memory"].cases["cpu"].default == 2 * 2**30
    assert (fields["runtime"].cases["cpu"].default, fields["runtime"].cases["cpu"].max) == (3600, 86400)
    assert "gpu" not in fields["runtime"].cases  # no limit, and nobody said a default
    assert fields["gpu"].cases["gpu"].most == {"a100": 2, "t4": 1}
    assert "cpu" not in fields["gpu"].cases


def test_what_the_site_says_counts_before_what_slurm_says():
    fields = {field.name: field for field in cluster.fields(config(), facts(), Who("alice"), [], [])}
    assert fields["cpus"].cases["cpu"].max == 64
    assert fields["memory"].cases["gpu"].max == 8 * 2**30


def test_what_is_free():
    said = config()
    waiting = [("cpu", "N/A"), ("cpu,gpu", "gres/gpu:a100:1"), ("gpu", "gres:gpu:a100:2"), ("gpu", "gres:gpu:v100:1")]
    mine = cluster.partitions_of(said, facts(), Who("alice"))
    cpu, gpu = cluster.rooms(said, answers.read_nodes(NODES), waiting, mine)
    assert (cpu.title, cpu.cores, cpu.waiting, dict(cpu.gpus)) == ("CPU", Amount(127, 256), 2, {})
    assert gpu.cores == Amount(62, 128)  # g2 does not answer
    assert gpu.gpus["a100"] == Amount(1, 4)
    assert gpu.gpus_waiting["a100"] == 2
    assert gpu.waiting == 3


@pytest.mark.parametrize(
    "text, seconds",
    [("1-00:00:00", 86400), ("00:30:00", 1800), ("30:00", 1800), ("4:00:00", 14400), ("UNLIMITED", None), ("", None)],
)
def test_times(text, seconds):
    assert answers.read_time(text) == seconds


def test_associations():
    text = "|root||normal|\nalice|atlas|night,normal|night\nalice|physics|normal|\nbob|physics|normal|\n"
    found = cluster.read_associations(text)
    assert found["alice"] == (["atlas", "physics"], ["night", "normal"])
    assert found["bob"] == (["physics"], ["normal"])


# --- the site file

MISTAKES = [
    ({"partitions": {"a b": {}}}, "partitions"),
    ({"partitions": {"gpu": {"gpus": {"h100": 1}}}}, "h100 is none of the backend's gpus: a100, t4"),
    ({"partitions": {"cpu": {}}}, "gpus t4: gpu is none of the partitions: cpu"),
    ({"partitions": {}}, "partitions"),
    ({"directives": ["exclude=c9"]}, "is no option of sbatch"),
    ({"constraint": 'a" #b'}, "constraint"),
    ({"run_as": "root"}, "run_as"),
    ({"commands": {"paths": {"sbtch": "/x"}}}, "'sbtch' is no command of this backend"),
    ({"commands": {"timeouts": {"sbatch": 10}}}, "has no unit"),
    ({"log": "relative.log"}, "must begin with / or {home}/"),
    ({"log": "{home}/{job}.log"}, "{job} is not known"),
    ({"partition": "x"}, "did you mean partitions?"),
    ({"accounts": "atlas"}, "backends.farm.accounts: 'atlas': must be a list of names, lists of names by group, or"),
    ({"qos": {"atlas": "normal"}}, "backends.farm.qos: must be a list of names, lists of names by group, or sacctmgr"),
    ({"gpus": {"a100": {"gres": "gpu a100"}}}, "may hold letters, digits and"),
]


@pytest.mark.parametrize("keys, words", MISTAKES)
def test_a_mistake_in_the_site_file_is_told(keys, words):
    with pytest.raises(SiteError) as error:
        config(**keys)
    assert words in str(error.value)
