"""What users and admins have of a Slurm cluster when nothing is wrong: partitions, GPUs, accounts, what is free."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.slurm_rig import SlurmRig
from tests.hubs import pytest_runtest_makereport  # noqa: F401
from tests.realhub import RealHub, eventually
from tests.slurm import Slurm, counting_commands

pytestmark = pytest.mark.needs("hub6", "slurm", "slurmdbd")

GPUS = {"a100": {"title": "NVIDIA A100", "max": 4, "gres": "gpu:a100"}}


class Cluster(SlurmRig):
    """A cluster with accounting, whose commands are counted."""

    def __init__(self, engines: dict[str, Any]):
        super().__init__(engines, DBD=1)
        self.commands = counting_commands(self.directory / "commands")

    def part(self) -> dict[str, Any]:
        paths = {name: str(self.commands.directory / name) for name in ("squeue", "sinfo", "sbatch", "sacctmgr")}
        part = super().part()
        return {**part, "commands": {**part["commands"], "paths": paths}, "gpus": GPUS, "accounts": "sacctmgr"}


@pytest.fixture(scope="module")
def rig(engines: dict[str, Any]) -> Iterator[Cluster]:
    one = Cluster(engines)
    one.slurm.add_account("atlas", "alice")
    yield one
    one.close()


@pytest.fixture(scope="module")
def hub(rig: Cluster, engines: dict[str, Any]) -> Iterator[RealHub]:
    site = {"images": rig.images(), "backends": {"engine": rig.part(), "other": {**rig.part(), "groups": ["nobody"]}}}
    one = RealHub(engines["hub6"], site)
    one.start()
    eventually(lambda: one.user_token("alice") and rooms(one), "the cluster is known")
    yield one
    one.stop()


def rooms(hub: RealHub, user: str = "alice") -> dict[str, Any]:
    """What is free, by partition."""
    answer = hub.api("GET", "/hepspawner/availability", token=hub.user_token(user))
    assert answer.status_code == 200, answer.text
    backends = answer.json()["backends"]
    assert "other" not in backends  # it is not for this user
    return {room["name"]: room for room in backends.get("engine", {}).get("rooms", [])}


def preview(hub: RealHub, **options: Any) -> Any:
    answer = hub.api("POST", "/hepspawner/preview", {"options": options}, token=hub.user_token("alice"))
    return answer.json()


def test_what_the_site_does_not_say_is_asked_of_slurm(hub: RealHub) -> None:
    assert "#SBATCH --partition=cpu" in preview(hub, image="tiny")["text"]  # Slurm's default
    errors = preview(hub, image="tiny", partition="gpu", cpus=1000, runtime="5h")["errors"]
    assert "1 to 128" in errors["cpus"]
    assert "4h" in errors["runtime"]
    assert "2-00:00:00" not in preview(hub, image="tiny", partition="cpu")["text"]


def test_the_gpu_that_was_asked_for_is_the_servers(hub: RealHub, rig: Cluster) -> None:
    answer = hub.start_server("alice", {"image": "tiny", "gpu": "a100", "gpus": 2})
    assert answer.status_code == 201, answer.text
    environment = hub.server_get("alice", "facts").json()["environment"]
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert environment["SLURM_JOB_PARTITION"] == "gpu"
    (job,) = rig.jobs(hub.id)
    assert environment["SLURM_JOB_ID"] == job
    deadline = int(environment["HEPSPAWNER_DEADLINE"])
    assert 3400 < deadline - time.time() < 3600  # the partition's DefaultTime, less the warning
    assert "--nv" in preview(hub, image="sandbox", gpu="a100")["text"]
    hub.stop_server("alice")
    hub.gone("alice")


def test_without_a_gpu_there_is_none(hub: RealHub) -> None:
    assert hub.start_server("alice", {"image": "tiny", "partition": "gpu"}).status_code == 201
    assert not hub.server_get("alice", "facts").json()["environment"].get("CUDA_VISIBLE_DEVICES")
    hub.stop_server("alice")
    hub.gone("alice")


def test_what_is_free(hub: RealHub, rig: Cluster) -> None:
    known = rooms(hub)
    assert list(known) == ["cpu", "gpu"]
    assert known["cpu"]["cores"] == {"free": 256, "total": 256}
    assert known["gpu"]["gpus"]["a100"]["total"] == 2
    assert known["cpu"]["gpus"] == {}


def test_accounts_are_those_that_slurm_knows_of_the_user(hub: RealHub, rig: Cluster) -> None:
    assert "atlas" in preview(hub, image="tiny", account="nonsense")["errors"]["account"]
    assert hub.start_server("alice", {"image": "tiny", "account": "atlas"}).status_code == 201
    account = rig.slurm.command("squeue", "-h", "-o", "%a", "-u", "alice")
    assert account.strip() == "atlas"
    hub.stop_server("alice")
    hub.gone("alice")
    answer = hub.start_server("bob", {"image": "tiny", "account": "atlas"})
    assert answer.status_code == 400 and "physics" in answer.json()["message"]


def test_the_form_and_what_is_free_wait_for_no_command(hub: RealHub, rig: Cluster) -> None:
    for name in ("sinfo", "squeue", "sacctmgr"):
        rig.commands.break_(name, "exec sleep 20")
    try:
        began = time.monotonic()
        person = hub.browser("alice")
        for _ in range(20):
            assert person.form().status_code == 200
            assert rooms(hub)
        assert time.monotonic() - began < 15
    finally:
        rig.commands.mend()


def test_many_forms_are_no_more_commands(hub: RealHub, rig: Cluster) -> None:
    person = hub.browser("bob")
    rig.commands.clear()
    for _ in range(20):
        person.form()
        rooms(hub, "bob")
    assert len(rig.commands.calls("sinfo", "sacctmgr")) <= 4


def test_another_cluster_by_its_name(rig: Cluster, engines: dict[str, Any]) -> None:
    site = {"images": rig.images(), "backends": {"engine": {**rig.part(), "cluster": rig.slurm.name}}}
    hub = RealHub(engines["hub6"], site)
    try:
        hub.start()
        rig.commands.clear()
        assert hub.start_server("alice", {"image": "tiny"}).status_code == 201
        assert [call for _, _, call in rig.commands.calls("sbatch")] == [
            f"--parsable --export=NONE -M {rig.slurm.name}"
        ]
        hub.restart()
        hub.ready("alice")
        hub.stop_server("alice")
        hub.gone("alice")
        assert not rig.jobs(hub.id)
    finally:
        hub.stop()


def test_two_clusters_side_by_side(rig: Cluster, engines: dict[str, Any]) -> None:
    with Slurm(KILLWAIT=2) as second:
        part = {**rig.part(), "commands": {"environment": second.env}, "accounts": []}
        site = {"images": rig.images(), "backends": {"engine": rig.part(), "second": part}}
        hub = RealHub(engines["hub6"], site)
        try:
            hub.start()
            for server, backend in (("", "engine"), ("b", "second")):
                assert hub.start_server("alice", {"image": "tiny", "backend": backend}, server).status_code == 201
            assert len(rig.jobs(hub.id)) == len(second.jobs()) == 1
            hub.restart()
            for server in ("", "b"):
                hub.ready("alice", server)
                hub.stop_server("alice", server)
                hub.gone("alice", server)
            assert not rig.jobs(hub.id) and not second.jobs()
        finally:
            hub.stop()


def test_an_admins_own_script_is_used(rig: Cluster, engines: dict[str, Any]) -> None:
    hub = RealHub(engines["hub6"], {"images": rig.images(), "backends": {"engine": rig.part()}})
    templates = Path(hub.directory) / "templates"
    templates.mkdir()
    block = "{% block before %}export CUDA_VISIBLE_DEVICES=17{% endblock %}"
    (templates / "slurm.sh").write_text('{% extends "templates/slurm.sh" %}' + block)
    with hub.config_file.open("a") as file:
        file.write(f"c.HEPSpawner.template_paths = [{str(templates)!r}]\n")
    try:
        hub.start()
        eventually(lambda: "#SBATCH --partition" in preview(hub, image="tiny")["text"], "the cluster is known")
        assert "export CUDA_VISIBLE_DEVICES=17\nexec" in preview(hub, image="tiny")["text"]
        assert hub.start_server("alice", {"image": "tiny", "gpu": "a100"}).status_code == 201
        assert hub.server_get("alice", "facts").json()["environment"]["CUDA_VISIBLE_DEVICES"] == "17"
    finally:
        hub.stop()
