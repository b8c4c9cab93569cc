"""Kubernetes' pure parts: pods as golden files, names, patches, what pods and events say, the site."""

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hepspawner.backends.base import Phase, Tag
from hepspawner.backends.kubernetes import KubernetesConfig, names, words
from hepspawner.backends.kubernetes.patch import merged
from hepspawner.backends.kubernetes.pod import claim, launcher_name, secret, service
from hepspawner.backends.kubernetes.reading import Seen, read_event, read_pod
from hepspawner.site.load import SiteError, load_site
from hepspawner.site.model import Image, Mount
from tests.unit.kubernetes_pods import TAG, built, session

FARM: dict[str, Any] = {
    "type": "kubernetes",
    "namespace": "jupyter",
    "labels": {"group": "physics", "user": "{username}"},
    "annotations": {"who": "{user_server}"},
    "images_pull_secrets": ["registry"],
    "image_pull_policy": "IfNotPresent",
    "cpus": {"default": 2, "max": 64},
    "memory": {"default": "4G", "max": "128G"},
    "gpus": {
        "a100": {
            "max": 2,
            "node_selector": {"nvidia.com/gpu.product": "A100"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
        },
        "slice": {"resource": "nvidia.com/mig-1g.5gb"},
        "mi300": {"vendor": "amd"},
    },
    "node_selector": {"pool": "jupyter"},
    "tolerations": [{"key": "jupyter", "operator": "Exists"}],
    "priority_class": "users",
    "run_as": {"uid": 1000, "gid": 100, "groups": [100, 2000]},
    "requests": {"cpus": 0.25, "memory": 0.5},
    "shm": "1G",
    "scratch_size": "20G",
    "home": {"mount": "/home/{username}", "pvc": {"size": "10G", "storage_class": "fast"}},
    "cvmfs": {"claim": "cvmfs"},
    "connect": "service",
    "pod_patch": [
        {
            "patch": {
                "spec": {"hostIPC": True, "containers": [{"name": "server", "env": [{"name": "A", "value": "1"}]}]}
            }
        },
        {"gpus": ["a100"], "patch": {"spec": {"runtimeClassName": "nvidia"}}},
        {"groups": ["insiders"], "patch": {"metadata": {"labels": {"inside": "{username}"}}}},
        {"images": ["other"], "patch": {"spec": {"hostNetwork": True}}},
    ],
}


def config(**more: Any) -> KubernetesConfig:
    return KubernetesConfig.model_validate({**FARM, **more})


FULL = {"cpus": 4, "memory": 2**31, "gpu": "a100", "gpus": 2, "groups": ("insiders",)}
MOUNTS = [
    Mount(source="/data", target="/data", read_only=True),
    Mount(source="/cvmfs", target="/cvmfs", read_only=True, optional=True),
]


CASES = {
    "kubernetes-plain": lambda: built(KubernetesConfig(type="kubernetes"), session()),
    "kubernetes-full": lambda: built(config(), session(mounts=MOUNTS, **FULL)),
    "kubernetes-cpu": lambda: built(
        config(home={"host_path": "/homes/{username}"}, cvmfs={"host_path": "/cvmfs"}, pod_patch=[]),
        session(cpus=1, memory=2**30),
    ),
    "kubernetes-nfs": lambda: built(
        config(home={"nfs": {"server": "nfs", "path": "/homes/{username}"}}, pod_patch=[]),
        session(gpu="slice", gpus=1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_pods(golden: Any, name: str) -> None:
    golden(f"{name}.yaml", re.sub(r"launcher-[0-9a-f]+", "launcher-HASH", yaml.safe_dump(CASES[name]())))


def test_what_belongs_to_a_pod(golden: Any) -> None:
    owner = {"name": names.pod_name(TAG), "uid": "1234"}
    home = config().home
    assert home and home.pvc
    things = [service(config(), TAG, owner), secret(TAG, owner, {"ticket": "T"}), claim(config(), home.pvc, TAG)]
    golden("kubernetes-others.yaml", yaml.safe_dump_all(things))


def test_the_ticket_is_in_the_secret_alone() -> None:
    owner = {"name": "x", "uid": "1"}
    assert "T1CKET" in str(secret(TAG, owner, {"ticket": "T1CKET"}))
    assert len(launcher_name()) < 63


# --- names

nasty = st.text(max_size=255) | st.text(st.sampled_from("ab-.@ZÜ/\\$ "), max_size=60)
DNS = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


@given(user=nasty, server=nasty)
def test_names_are_valid_whatever_people_are_called(user: str, server: str) -> None:
    tag = Tag("0123456789ab", user, server, "0123456789abcdef" * 2)
    claim_of = names.object_name("claim-{username}", user)
    for name in (names.pod_name(tag), claim_of, names.object_name("{user_server}", user, server, 63)):
        assert DNS.fullmatch(name) and len(name) <= (63 if name != claim_of else 253), name
    for template in ("claim-{slug_server}", "claim-{escaped_server}", "home-{username}--{servername}"):
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*[a-z0-9]", names.object_name(template, user, server))
    made = built(KubernetesConfig(type="kubernetes", labels={"user": "x-{user_server}"}), session(), tag)
    for value in made["metadata"]["labels"].values():
        assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", value) and len(value) <= 63


@given(first=nasty, second=nasty)
def test_two_users_never_share_a_claim(first: str, second: str) -> None:
    same = names.object_name("claim-{username}", first) == names.object_name("claim-{username}", second)
    assert same == (first == second)


def test_a_user_name_that_is_no_directory_gets_no_other_ones_home() -> None:
    for user in ("..", "a/b", ".", "", "a\nb", ".ssh"):
        with pytest.raises(ValueError, match="cannot be the name of a directory"):
            built(config(home={"host_path": "/homes/{username}"}), session(), Tag("h", user, "", "s"))


# --- patches


def test_patches_merge_strategically() -> None:
    old = {"spec": {"volumes": [{"name": "a", "x": 1}, {"name": "b"}], "tolerations": [{"key": "t"}], "n": 1}}
    new = {"spec": {"volumes": [{"name": "a", "y": 2}, {"name": "b", "$patch": "delete"}, {"name": "c"}], "n": None}}
    assert merged(old, new) == {
        "spec": {"volumes": [{"name": "a", "x": 1, "y": 2}, {"name": "c"}], "tolerations": [{"key": "t"}]}
    }
    assert merged(old, {"spec": {"tolerations": []}})["spec"]["tolerations"] == []
    assert merged(old, {"spec": {"volumes": [{"$patch": "replace"}, {"name": "z"}]}})["spec"]["volumes"] == [
        {"name": "z"}
    ]
    assert merged(old, {"spec": {"$patch": "replace", "m": 2}}) == {"spec": {"m": 2}}
    assert old["spec"]["n"] == 1


def test_no_patch_changes_what_a_pod_is_found_by() -> None:
    patch = {"metadata": {"name": "mine", "labels": {names.HUB: "x", names.SESSION: None}, "annotations": None}}
    plain, made = built(config(pod_patch=[]), session()), built(config(pod_patch=patch), session())
    assert made["metadata"]["name"] == plain["metadata"]["name"]
    assert {**plain["metadata"]["labels"], **made["metadata"]["labels"]} == made["metadata"]["labels"]
    assert made["metadata"]["annotations"][names.TAG] == plain["metadata"]["annotations"][names.TAG]


# --- what pods and events say


def raw_pod(status: dict[str, Any], node: str = "node1", **metadata: Any) -> dict[str, Any]:
    given = {"name": "p", "namespace": "n", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z", **metadata}
    return {"metadata": given, "spec": {"nodeName": node}, "status": {"phase": "Pending", **status}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"containerStatuses": [{"name": "server", "state": {"waiting": {"reason": reason, "message": message}}}]}


def ended(reason: str, code: int, message: str = "") -> dict[str, Any]:
    state = {"terminated": {"reason": reason, "exitCode": code, "message": message}}
    return {"phase": "Failed", "containerStatuses": [{"name": "server", "state": state}]}


def unscheduled(message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return {"conditions": [condition]}


def status(raw: dict[str, Any], late: bool = False, *events: tuple[str, str]) -> Any:
    one = read_pod(raw)
    happened = {
        reason: read_event({"involvedObject": {"kind": "Pod"}, "reason": reason, "message": text})
        for reason, text in events
    }
    return words.status_of(Seen(one, happened), one.created + (700 if late else 1), 600)  # type: ignore[arg-type]


HOPELESS = [
    (waiting("ImagePullBackOff", "Back-off"), "its image cannot be pulled"),
    (waiting("ErrImageNeverPull"), "its image is not on the node"),
    (waiting("CreateContainerConfigError", 'secret "x" not found'), 'secret "x" not found'),
    (waiting("CrashLoopBackOff"), "ends again and again"),
]


@pytest.mark.parametrize("said, meant", HOPELESS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_will_never_start(said: dict[str, Any], meant: str) -> None:
    found = status(raw_pod(said))
    assert found.phase is Phase.QUEUED and found.hopeless and meant in found.reason and found.advice


SCHEDULER = {
    "0/3 nodes are available: 1 Insufficient memory, 2 Insufficient nvidia.com/gpu.": (
        "none of 3 nodes has room: 1 have too little free memory, 2 have no nvidia.com/gpu free"
    ),
    "0/1 nodes are available: 1 node(s) had taint {rig: true}, that the pod didn't tolerate.": "1 are kept for others",
    "0/2 nodes are available: 2 node(s) were unschedulable.": "2 are closed by an admin",
    "0/2 nodes are available: 2 node(s) didn't match node selector.": "2 are not of the kind that was asked for",
    "0/1 nodes are available: 1 pod has unbound immediate PersistentVolumeClaims.": "its volume is not made yet",
    "0/2 nodes are available: 2 Insufficient habana.ai/gaudi.": "2 have no habana.ai/gaudi free",
    # since 1.24, and since 1.29
    "0/3 nodes are available: 1 Insufficient memory, 2 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are "
    "available: 3 No preemption victims found for incoming pod.": "2 have no nvidia.com/gpu free",
    "0/2 nodes are available: 1 Insufficient amd.com/gpu, 1 node(s) had untolerated taint {a.b/c: d}. no new claims "
    "to deallocate, preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.": (
        "none of 2 nodes has room: 1 have no amd.com/gpu free, 1 are kept for others ("
    ),
    "something new": "Kubernetes says: something new",
}


@pytest.mark.parametrize("said", SCHEDULER)
def test_why_no_node_has_room(said: str) -> None:
    soon, late = (status(raw_pod(unscheduled(said), node=""), late) for late in (False, True))
    assert SCHEDULER[said] in soon.reason and said in soon.reason
    assert (soon.hopeless, late.hopeless) == (False, True) and late.advice


def test_steps_on_the_node() -> None:
    begins = raw_pod(waiting("ContainerCreating"))
    assert "being pulled on node node1" in status(begins, False, ("Pulling", "")).reason
    assert "volumes were attached" in status(begins, False, ("SuccessfulAttachVolume", "")).reason
    assert "container is being started" in status(begins).reason
    slow = status(begins, False, ("FailedMount", "timed out"))
    assert "a volume cannot be mounted" in slow.reason and not slow.hopeless
    assert status(begins, True, ("FailedMount", "timed out")).hopeless
    assert status(begins, False, ("FailedMount", "hostPath type check failed: /x is not a directory")).hopeless


def test_a_volume_that_could_be_mounted_after_all_is_no_trouble_any_more() -> None:
    def event(reason: str, at: str, message: str = "") -> Any:
        about = {"kind": "Pod", "name": "p", "namespace": "n"}
        return read_event({"involvedObject": about, "reason": reason, "message": message, "lastTimestamp": at})

    lacks = event("FailedMount", "2026-01-01T00:00:07Z", 'MountVolume.SetUp failed: secret "p" not found')
    soon = event("FailedMount", "2026-01-01T00:00:01Z", lacks.message)
    other = event("FailedMount", "2026-01-01T00:00:07Z", 'secret "q" not found')
    pulling = event("Pulling", "2026-01-01T00:00:08Z")
    one = read_pod(raw_pod(waiting("ContainerCreating")))
    happened = {"still": [lacks], "soon": [soon], "other": [other], "then": [lacks, pulling]}
    seen = {name: Seen(one, {event.reason: event for event in events}) for name, events in happened.items()}
    assert [name for name in seen if words.is_half_made(seen[name])] == ["still"]
    assert "being pulled" in words.status_of(seen["then"], one.created + 9, 600).reason


ENDS = [
    (ended("OOMKilled", 137), "needed more memory", 137),
    (ended("Error", 75), "could not reach the hub in time", 75),
    (ended("Error", 3), "ended with exit code 3", 3),
    (ended("StartError", 128, 'exec: "python3": not found'), "python3", 128),
    ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, "evicted it (low on memory)", None),
    ({"phase": "Failed", "reason": "OutOfcpu", "message": "no"}, "has no room for it after all", None),
]


@pytest.mark.parametrize("said, meant, code", ENDS, ids=lambda value: value if isinstance(value, str) else "")
def test_how_pods_end(said: dict[str, Any], meant: str, code: int | None) -> None:
    found = status(raw_pod(said))
    assert found.phase is Phase.ENDED and meant in found.reason and found.exit_code == code


def test_when_nothing_of_a_pod_that_was_deleted_runs() -> None:
    def over(server: dict[str, Any], *init: dict[str, Any]) -> bool:
        said = {"containerStatuses": server["containerStatuses"]}
        said["initContainerStatuses"] = [{**one["containerStatuses"][0], "name": "init"} for one in init]
        return read_pod(raw_pod(said, deletionTimestamp="2026-01-01T00:01:00Z")).over

    assert over(ended("Error", 1)) and over(waiting("ImagePullBackOff"))
    assert over(waiting("PodInitializing"), waiting("ErrImageNeverPull"))
    assert not over(waiting("ContainerCreating"))
    assert not over(waiting("PodInitializing"), ended("Completed", 0))
    assert not read_pod(raw_pod(waiting("ImagePullBackOff"))).over


def test_the_last_words_of_a_container_that_failed() -> None:
    assert words.last_words(read_pod(raw_pod(ended("Error", 1, "one\ntwo")))) == ["one", "two"]
    assert words.last_words(read_pod(raw_pod(ended("Completed", 0, "fine")))) == []


@given(
    st.recursive(
        st.none() | st.text(max_size=9) | st.integers(),
        lambda one: (
            st.lists(one)
            | st.dictionaries(st.sampled_from(["type", "reason", "message", "state", "waiting", "name"]), one)
        ),
        max_leaves=8,
    )
)
def test_whatever_a_scheduler_says_can_be_shown(said: Any) -> None:
    assert words.waiting_of(str(said))


# --- the catalog


def test_one_catalog_for_all_backends() -> None:
    unpacked = "/cvmfs/unpacked.cern.ch/registry.hub.docker.com/yesw2000/ml-base:alma9"
    gitlab = "/cvmfs/unpacked.cern.ch/gitlab-registry.cern.ch/atlas/lab:1"
    assert Image(name="a", path=unpacked).reference == "docker.io/yesw2000/ml-base:alma9"
    assert Image(name="a", path=gitlab).reference == "gitlab-registry.cern.ch/atlas/lab:1"
    assert Image(name="a", path=["/x", unpacked], oci="quay.io/a:b").reference == "quay.io/a:b"
    for path in ("/cvmfs/atlas/x", "/cvmfs/unpacked.cern.ch/logDir", "/cvmfs/unpacked.cern.ch/.flat/8e/8e1e32f4"):
        assert Image(name="a", path=path).reference is None and not config().runs(Image(name="a", path=path))
    assert config().runs(Image(name="a", oci="b")) and not config().runs(Image(name="a", prefix="/x"))
    # a path that is allowed does not allow what a registry would have of that name
    own = {"docker://ghcr.io/a/b:c": True, "oras://ghcr.io/a/b:c": False, unpacked: False}
    assert {image: config().runs(image) for image in own} == own


WRONG = {
    "namespace": ("Jupyter", "small letters"),
    "pvc_name_template": ("claim", "all users would share one"),
    "labels": ({"a": 1}, "in quotes"),
    "home": ({"pvc": {"size": "1G"}, "host_path": "/x"}, "exactly one of"),
    "cvmfs": ({}, "exactly one of"),
    "port": (70000, "65535"),
    "run_as": ("root", "image"),
    "pod_patch": ([{"patch": {}, "gpus": ["h100"]}], "h100 is none of the backend's gpus"),
}


@pytest.mark.parametrize("key", WRONG)
def test_mistakes_in_the_site_file(key: str) -> None:
    value, meant = WRONG[key]
    with pytest.raises(SiteError, match=re.escape(meant)):
        load_site({"images": [{"name": "a", "oci": "b"}], "backends": {"k8s": {**FARM, key: value}}})
