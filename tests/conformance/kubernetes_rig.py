"""A real Kubernetes as an engine of the suite."""

from typing import Any

from tests.conformance.rig import LocalRig, command_lines, prefix_of
from tests.kubernetes import HOST, Kubernetes, host_mounts

HOST_IMAGE = "rig.local/host:1"
NAMESPACE = "conformance"


class KubernetesRig(LocalRig):
    """A cluster of one node, this machine. Its image has nothing of its own: pods mount what they run."""

    name = "kubernetes"
    hub_address = HOST

    def __init__(self, engines: dict[str, Any]):
        super().__init__(engines)
        self.cluster = Kubernetes().start()
        self.kubeconfig = self.cluster.namespace(NAMESPACE)

    def part(self) -> dict[str, Any]:
        environments = {prefix_of(self.engines[name]) for name in ("hub6", "hub5") if self.engines[name]}
        return {
            "type": "kubernetes",
            "title": "The engine",
            "poll_interval": "1s",
            "probe": "hub",
            "kubeconfig": str(self.kubeconfig),
            "namespace": NAMESPACE,
            "run_as": "account",
            "home": {"host_path": "/home/{username}"},
            "mounts": host_mounts(["/usr", str(self.directory), *sorted(environments)]),
        }

    def part_of_anybody(self) -> dict[str, Any]:
        part = {key: value for key, value in self.part().items() if key != "home"}
        # An ordinary account runs the hub: the file is the rig's, for nobody else.
        return {**part, "run_as": {"uid": 65534, "gid": 65534}}

    def images(self) -> list[dict[str, Any]]:
        tiny = str(self.directory / "prefix/bin/tiny")
        images: list[dict[str, Any]] = [
            {"name": "tiny", "oci": HOST_IMAGE, "command": [tiny, "serve"]},
            {"name": "waiting", "oci": HOST_IMAGE, "command": [tiny, "wait", str(self.gate)]},
            {"name": "crashing", "oci": HOST_IMAGE, "command": [tiny, "crash"]},
            {"name": "gone", "path": "/no/such/image", "oci": HOST_IMAGE},
            {"name": "bare", "oci": HOST_IMAGE},
        ]
        for version in ("hub6", "hub5"):
            if self.engines[version]:
                server = f"{prefix_of(self.engines[version])}/bin/jupyterhub-singleuser"
                images.append({"name": f"lab-{version}", "oci": HOST_IMAGE, "command": [server]})
        return images

    def hold(self) -> None:
        self.cluster.cordon()

    def release(self) -> None:
        self.cluster.cordon(False)

    def jobs(self, mark: str) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.cluster.pods(mark, NAMESPACE) if not _over(pod)]

    def kill_job(self, mark: str) -> None:
        for name in self.jobs(mark):
            self.cluster.kubectl("delete", "pod", "-n", NAMESPACE, name, "--grace-period=1", "--wait=false")

    def public_texts(self, session: str) -> dict[str, str]:
        texts = command_lines()
        for kind in ("pods", "events", "services", "configmaps", "persistentvolumeclaims"):
            texts[kind] = self.cluster.kubectl("get", kind, "-n", NAMESPACE, "-o", "yaml")
        for name in self.jobs(session):
            texts[f"describe {name}"] = self.cluster.kubectl("describe", "pod", "-n", NAMESPACE, name)
            texts[f"logs {name}"] = self.cluster.kubectl("logs", "-n", NAMESPACE, name, check=False)
        return texts

    def close(self) -> None:
        super().close()
        self.cluster.stop()


def _over(pod: dict[str, Any]) -> bool:
    """Whether nothing of a pod runs any more, and nothing of it will."""
    states = [one["state"] for one in pod["status"].get("containerStatuses", [])]
    ended = bool(states) and all("terminated" in one for one in states)
    return ended or ("deletionTimestamp" in pod["metadata"] and not any("running" in one for one in states))
