"""What an admin of a Kubernetes backend may get wrong is told when the site is read; pods of less common keys."""

import asyncio
import re
from typing import Any

import pytest
import yaml

from hepspawner.backends.base import Tag
from hepspawner.backends.kubernetes import KubernetesConfig
from hepspawner.backends.kubernetes.client import Client
from hepspawner.site.load import SiteError, load_site
from hepspawner.site.model import Mount
from tests.unit.kubernetes_pods import TAG, built, session


def config(**more: Any) -> KubernetesConfig:
    return KubernetesConfig.model_validate({"type": "kubernetes", **more})


def test_amd_gpus_a_service_account_and_a_priority(golden: Any) -> None:
    part = {"gpus": {"mi300": {"vendor": "amd", "max": 8}}, "service_account": "analysis", "priority_class": "users"}
    text = yaml.safe_dump(built(config(**part), session(gpu="mi300", gpus=2)))
    golden("kubernetes-amd.yaml", re.sub(r"launcher-[0-9a-f]+", "launcher-HASH", text))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "labels' keys": ({"labels": {"my label": "a"}}, "'my label' is no key in Kubernetes"),
    "labels' values": ({"labels": {"a": "a b"}}, "'a': 'a b' is no value in Kubernetes"),
    "labels' placeholders": ({"labels": {"a": "{user}"}}, "'a': '{user}' is no value"),
    "annotations' keys": ({"annotations": {"a/b/c": "a"}}, "'a/b/c' is no key in Kubernetes"),
    "selectors": ({"node_selector": {"gpu": "A 100"}}, "'gpu': 'A 100' is no value"),
    "selectors of GPUs": ({"gpus": {"a": {"node_selector": {"": "A"}}}}, "'' is no key"),
    "labels of claims": ({"home": {"pvc": {"size": "1G", "labels": {"a": "-"}}}}, "'a': '-' is no value"),
    "tolerations": ({"tolerations": [{"Key": "x"}]}, "'Key' is no part of a toleration; there are: key, operator"),
    "namespaces": ({"namespace": "a.b"}, "no dot"),
    "numbers": ({"run_as": {"uid": True, "gid": 5}}, "must be a whole number"),
    "mounts over the scratch": ({"mounts": ["/tmp:/tmp:ro"]}, "mounts: /tmp is in each pod already"),
    "mounts over homes": (
        {"home": {"mount": "/home/jovyan", "pvc": {"size": "1G"}}, "mounts": ["/x:/home/jovyan:ro"]},
        "mounts: /home/jovyan is in each pod already",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistakes(what: str) -> None:
    part, meant = WRONG[what]
    with pytest.raises(SiteError, match=re.escape(meant)) as caught:
        load_site({"images": [{"name": "a", "oci": "b"}], "backends": {"k8s": {"type": "kubernetes", **part}}})
    assert "backends.k8s" in str(caught.value)


PATCHES: dict[str, tuple[dict[str, Any], str]] = {
    "no metadata": ({"metadata": None}, "metadata: must be a mapping"),
    "removed metadata": ({"metadata": {"$patch": "delete"}}, "metadata: must be a mapping"),
    "metadata of another kind": ({"metadata": "x"}, "metadata: must be a mapping"),
    "no spec": ({"spec": None}, "spec: must be a mapping"),
    "a list of labels": ({"metadata": {"labels": ["a"]}}, "metadata.labels: must be a mapping of texts"),
    "numbers in labels": ({"metadata": {"labels": {"a": 1}}}, "metadata.labels: must be a mapping of texts"),
    "no label": ({"metadata": {"labels": {"my label": "a"}}}, "'my label' is no key in Kubernetes"),
    "another namespace": ({"metadata": {"namespace": "x"}}, "the backend's key namespace"),
    "what is elsewhere": ({"containers": [{"name": "server"}]}, "containers: a patch has metadata and spec alone"),
    "a name that is none": ({"spec": {"containers": [{"name": ["a"]}]}}, "spec.containers[0]: must be a mapping with"),
    "no name": ({"spec": {"volumes": [{"name": "a"}, {"emptyDir": {}}]}}, "spec.volumes[1]: must be a mapping with"),
    "no name further inside": (
        {"spec": {"containers": [{"name": "server", "env": [{"value": "1"}]}]}},
        "spec.containers[0].env[0]: must be a mapping with name",
    ),
    "a mapping": ({"spec": {"containers": {"server": {}}}}, "spec.containers: must be a list"),
    "a text": ({"spec": {"containers": "server"}}, "nothing is left of the container called server"),
    "no containers": ({"spec": {"containers": None}}, "nothing is left of the container called server"),
    "no server": (
        {"spec": {"containers": [{"name": "server", "$patch": "delete"}]}},
        "nothing is left of the container called server",
    ),
}


@pytest.mark.parametrize("what", PATCHES)
def test_patches_that_leave_no_pod(what: str) -> None:
    given, meant = PATCHES[what]
    with pytest.raises(ValueError, match=re.escape(meant)):
        config(pod_patch=given)


def test_patches_that_look_like_it() -> None:
    spec = {
        "nodeSelector": {"env": "prod"},
        "volumes": [{"$patch": "replace"}, {"name": "a", "emptyDir": {}}],
        "initContainers": [{"name": "x", "$patch": "delete"}],
        "containers": [{"name": "server", "ports": [{"containerPort": 1}]}],
        "tolerations": None,
        "topologySpreadConstraints": {"$patch": "delete"},
    }
    labels = {"volumes": "none", "who": "{user_server}", "gone": None, "$patch": "replace"}
    made = built(config(pod_patch={"metadata": {"labels": labels}, "spec": spec}), session(), TAG)
    assert made["spec"]["nodeSelector"] == {"env": "prod"} and made["metadata"]["labels"]["who"] == "alice"


def test_a_field_that_kubernetes_does_not_know_is_not_dropped_without_a_word() -> None:
    asked: dict[str, Any] = {}

    class Asked(Client):
        async def _call(self, method: str, path: str, body: Any = None, **query: Any) -> dict[str, Any]:
            asked.update(query)
            return {}

    asyncio.run(Asked(config()).create("jupyter", {"kind": "Pod"}))
    assert asked == {"fieldValidation": "Strict"}


def test_labels_are_such_whatever_people_are_called() -> None:
    long = Tag("0123456789ab", "Ü" * 200, "S" * 200, "f" * 32)
    templates = {"both": "{user_server}", "server": "a.{servername}", "user": "{username}-x"}
    patch = {"metadata": {"labels": {"patched": "{user_server}"}}}
    for tag in (TAG, long):
        made = built(config(labels=templates, pod_patch=patch), session(), tag)["metadata"]["labels"]
        for name in (*templates, "patched"):
            assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", made[name]), made


def test_what_a_site_mounts_for_all_does_not_hide_what_a_pod_has() -> None:
    targets = ["/home/alice", "/tmp", "/dev/shm", "/cvmfs", "/run/hepspawner", "/data"]
    mounts = [Mount(source="/x", target=target, read_only=True) for target in targets]
    one = config(home={"pvc": {"size": "1G"}}, cvmfs={"claim": "cvmfs"})
    paths = [
        mount["mountPath"] for mount in built(one, session(mounts=mounts))["spec"]["containers"][0]["volumeMounts"]
    ]
    assert sorted(paths) == sorted(targets)
