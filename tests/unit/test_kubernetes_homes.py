"""Whose a home is on Kubernetes: names of claims, marks on them, and who may be whom on a node's directories."""

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hepspawner.backends.base import BackendError, Tag
from hepspawner.backends.kubernetes import KubernetesConfig, names
from hepspawner.backends.kubernetes.client import ApiError
from hepspawner.backends.kubernetes.config import Identity
from hepspawner.backends.kubernetes.making import Maker
from hepspawner.backends.kubernetes.volumes import volumes
from hepspawner.site.load import SiteError, load_site

TAG = Tag("0123456789ab", "alice", "", "f" * 32)
HOME = {"pvc": {"size": "1G", "delete": True}}


def config(**more: Any) -> KubernetesConfig:
    return KubernetesConfig.model_validate({"type": "kubernetes", "namespace": "jupyter", **more})


# --- names

KUBESPAWNER = [
    # a user and a server; {username}, {servername} and {user_server} of KubeSpawner 7.1; what 6.2 makes of both
    ("alice", "", "alice", "", "alice", "alice"),
    ("Alice", "", "alice---3bc51062", "", "alice---3bc51062", "-41lice"),
    ("a--b", "", "a-b---90827a2e", "", "a-b---90827a2e", "a-2d-2db"),
    ("1st", "", "x-1st---e01ddf65", "", "x-1st---e01ddf65", "1st"),
    ("ü" * 3, "", "x---b3d28943", "", "x---b3d28943", "-c3-bc" * 3),
    ("x" * 46, "", "x" * 46, "", "x" * 46, "x" * 46),
    ("x" * 47, "", "x" * 47, "", "x" * 17 + "--x---cfcbdd85", "x" * 47),
    ("x" * 80, "", "x" * 37 + "---d929cdee", "", "x" * 17 + "--x---2e46c843", "x" * 80),
    ("alice", "gpu", "alice", "gpu", "alice--gpu", "alice--gpu"),
    ("alice", "My GPU!", "alice", "my-gpu---df2b954b", "alice--my-gpu---df2b954b", "alice---4dy-20-47-50-55-21"),
    ("x" * 30, "y" * 30, "x" * 30, "y" * 30, "x" * 17 + "--" + "y" * 17 + "---7afbb527", "x" * 30 + "--" + "y" * 30),
    (
        "firstname.lastname@cern.ch",
        "gpu",
        "firstname-lastname-cern-ch---940bb56c",
        "gpu",
        "firstname-lastname-cern-ch---940bb56c--gpu",
        "firstname-2elastname-40cern-2ech--gpu",
    ),
]


@pytest.mark.parametrize(("user", "server", "slug", "servername", "both", "escaped"), KUBESPAWNER)
def test_claims_of_kubespawner_are_found_again(
    user: str, server: str, slug: str, servername: str, both: str, escaped: str
) -> None:
    made = names.fill("{slug}|{servername}|{slug_server}|{escaped_server}", user, server)
    assert made == f"{slug}|{servername}|{both}|{escaped}"


short = st.text(st.sampled_from("ab-@"), min_size=1, max_size=6)


@given(first=st.tuples(short, short | st.just("")), second=st.tuples(short, short | st.just("")))
def test_two_servers_never_share_a_claim(first: tuple[str, str], second: tuple[str, str]) -> None:
    for template in ("home-{username}--{servername}", "home-{user_server}", "home-{slug_server}"):
        same = names.object_name(template, *first) == names.object_name(template, *second)
        assert same == (first == second), template


WRONG = [
    ({"namespace": "{username}"}, "put a word of its own before it"),
    ({"namespace": "jupyter-{servername}"}, "all users would share one"),
    ({"namespace": "a.b-{username}"}, "no dot"),
    ({"pvc_name_template": "{username}"}, "put a word of its own before it"),
    ({"pvc_name_template": "home-{username}-{servername}"}, "write {username}--{servername}"),
    ({"pvc_name_template": "home-{servername}--{username}"}, "write {username}--{servername}"),
    ({"run_as": "account", "home": {"host_path": "/homes"}}, "all users would share one"),
    ({"run_as": "account", "home": {"nfs": {"server": "s", "path": "/homes"}}}, "all users would share one"),
]


@pytest.mark.parametrize(("part", "meant"), WRONG)
def test_names_that_could_be_anothers(part: dict[str, Any], meant: str) -> None:
    with pytest.raises(ValueError, match=re.escape(meant)):
        config(**part)


def test_names_that_are_nobody_elses() -> None:
    for template in ("claim-{slug_server}", "claim-{escaped}--{servername}", "{username}-home"):
        assert config(pvc_name_template=template).pvc_name_template == template


# --- marks


class Claims:
    """An API server that has claims alone."""

    def __init__(self, *claims: dict[str, Any]):
        self.claims = {one["metadata"]["name"]: one for one in claims}

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        if name not in self.claims:
            raise ApiError("not found", 404, "NotFound")
        return self.claims[name]

    async def create(self, namespace: str, thing: dict[str, Any]) -> dict[str, Any]:
        thing["metadata"]["uid"] = "1"
        return self.claims.setdefault(thing["metadata"]["name"], thing)

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        assert self.claims.pop(name)["metadata"]["uid"] == uid


def claim(annotations: dict[str, str] | None = None, **labels: str) -> dict[str, Any]:
    metadata = {"name": "claim-alice", "uid": "1", "annotations": annotations, "labels": labels}
    return {"metadata": {name: value for name, value in metadata.items() if value is not None}}


def maker(claims: Claims) -> Maker:
    return Maker(config(home=HOME), lambda: claims)  # type: ignore[arg-type,return-value]


def test_only_a_claim_that_says_whose_it_is_is_mounted() -> None:
    def take(annotations: dict[str, str] | None) -> None:
        asyncio.run(maker(Claims(claim(annotations)))._home("jupyter", TAG, None))

    take({names.OWNER: "alice"})
    with pytest.raises(BackendError, match="another user's home"):
        take({names.OWNER: "Alice"})
    with pytest.raises(
        BackendError, match=r"kubectl annotate -n jupyter pvc claim-alice hub\.jupyter\.org/username=USER"
    ):
        take(None)


def test_a_home_that_kubespawner_remembered() -> None:
    """Whatever the template says; but only the user's own."""
    old = claim({names.OWNER: "alice"})
    old["metadata"]["name"] = "claim-alice-2dold"
    claims = Claims(old)
    asyncio.run(maker(claims)._home("jupyter", TAG, "claim-alice-2dold"))
    assert list(claims.claims) == ["claim-alice-2dold"]
    with pytest.raises(BackendError, match="another user's home"):
        asyncio.run(maker(claims)._home("jupyter", Tag("h", "bob", "", "s"), "claim-alice-2dold"))
    (volume,) = [one for one in volumes(config(home=HOME), [], TAG, "claim-alice-2dold")[0] if one["name"] == "home"]
    assert volume["persistentVolumeClaim"]["claimName"] == "claim-alice-2dold"


def test_a_home_is_removed_by_the_hub_that_made_it_alone() -> None:
    async def made_and_removed() -> Claims:
        claims = Claims()
        await maker(claims)._home("jupyter", TAG, None)
        other = Tag("ba9876543210", "alice", "", "")
        with pytest.raises(BackendError, match="another hub made it"):
            await maker(claims).unmake_home("jupyter", other)
        assert claims.claims and await maker(claims).unmake_home("jupyter", TAG)
        return claims

    assert not asyncio.run(made_and_removed()).claims


def test_what_is_removed_of_kubespawners_claims() -> None:
    kubespawners = Claims(claim({names.OWNER: "alice"}))
    assert asyncio.run(maker(kubespawners).unmake_home("jupyter", TAG)) and not kubespawners.claims
    assert not asyncio.run(maker(kubespawners).unmake_home("jupyter", TAG))
    for annotations in (None, {names.OWNER: "Alice"}):
        unknown = Claims(claim(annotations))
        with pytest.raises(BackendError, match="does not say that it is the home of 'alice'"):
            asyncio.run(maker(unknown).unmake_home("jupyter", TAG))
        assert unknown.claims


# --- who is whom on the directories of a node


def site(**keys: Any) -> dict[str, Any]:
    part = {"type": "kubernetes", **keys.pop("backend", {})}
    image = {"name": "a", "oci": "b", **keys.pop("image", {})}
    return {"images": [image], "backends": {"k8s": part}, **keys}


def test_an_image_does_not_say_who_it_is_where_a_node_has_homes() -> None:
    for home in ({"host_path": "/homes/{username}"}, {"nfs": {"server": "s", "path": "/homes/{username}"}}):
        with pytest.raises(SiteError, match=r"run_as: an image may say that it is root.*account, auth_state"):
            load_site(site(backend={"home": home}))
        load_site(site(backend={"home": home, "run_as": "account"}))
    load_site(site(backend={"home": {"pvc": {"size": "1G"}}}))


WRITABLE = {"source": "/data", "target": "/data"}


@pytest.mark.parametrize(
    "part", [{"mounts": [WRITABLE]}, {"backend": {"mounts": [WRITABLE]}}, {"image": {"mounts": [WRITABLE]}}]
)
def test_an_image_does_not_say_who_it_is_where_it_may_write_to_a_node(part: dict[str, Any]) -> None:
    given = site(**part)
    with pytest.raises(SiteError, match=r"backends\.k8s: run_as: .* could write /data on the node") as caught:
        load_site(given)
    assert len(caught.value.problems) == 1
    given["backends"]["k8s"]["run_as"] = {"uid": 1000, "gid": 100}
    load_site(given)


def test_mounts_that_a_pod_does_not_have_are_no_trouble() -> None:
    load_site(site(mounts=[{**WRITABLE, "optional": True}, {"source": "/sw", "target": "/sw", "read_only": True}]))
    here = {"name": "batch", "path": "/cvmfs/x", "mounts": [WRITABLE], "backends": ["here"]}
    both = site()
    both["images"].append(here)
    both["backends"]["here"] = {"type": "local"}
    load_site(both)


def test_a_login_makes_nobody_root() -> None:
    assert Identity.of_login({"uid": 7, "gid": "8", "groups": [9], "other": 1}) == Identity(uid=7, gid=8, groups=[9])
    for state in ({"uid": 0, "gid": 7}, {"uid": 7, "gid": 0}, {"uid": 7, "gid": 7, "groups": [0]}):
        with pytest.raises(ValueError, match="says that you are root"):
            Identity.of_login(state)
    for state in ({}, {"uid": 7}, {"uid": True, "gid": 7}, {"uid": "root", "gid": 7}, {"uid": -1, "gid": 7}):
        with pytest.raises(ValueError, match="gave no uid and gid"):
            Identity.of_login(state)
