"""A real Kubernetes for tests and benchmarks: one node, which is this machine, made by `tests/rigs/kubernetes`.

There is one cluster per machine: a process that needs it waits until no other one does, and all in it share one. Pods
are on a bridge, on which the host is `HOST`. Only for root.
"""

import base64
import fcntl
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, ClassVar

import yaml

from tests.conftest import RIGS
from tests.machine import alive, eventually

RIG = Path(__file__).parent / "rigs/kubernetes"
HOME = RIGS / "kubernetes"
HOST = "10.252.0.1"
"""The hub's address, as pods see it."""
NODE = "node1"
MANIFESTS = Path(__file__).parents[1] / "examples/kubernetes"
DAEMONS = 7
NOTHING = subprocess.DEVNULL
LOCK = Path(tempfile.gettempdir()) / "hepspawner-kubernetes.lock"


class Kubernetes:
    """The cluster, with an empty namespace for each name that is asked for."""

    _users: ClassVar[set["Kubernetes"]] = set()
    """Of this process."""
    _lock: ClassVar[IO[str] | None] = None

    def __init__(self) -> None:
        self.admin = HOME / "pki/admin.kubeconfig"
        self.directory = Path(tempfile.mkdtemp(prefix="kubernetes-"))
        self.directory.chmod(0o755)

    def start(self, node: bool = True) -> "Kubernetes":
        """Returns when the API server answers, and the node takes pods. What runs already is left alone."""
        if not self._users:
            Kubernetes._lock = LOCK.open("w")
            fcntl.flock(Kubernetes._lock, fcntl.LOCK_EX)
        self._users.add(self)
        self._script("./up.sh", *(["node"] if node else []))
        return self

    def stop(self) -> None:
        """End everything, in whatever state it is, and forget all objects; somebody else in this process may go on."""
        subprocess.run(["rm", "-rf", str(self.directory)], check=True)
        self._users.discard(self)
        if self._users:
            return
        for daemon in self.daemons():
            self.signal(daemon, signal.SIGCONT)
        self._script("./down.sh", "--wipe")
        if Kubernetes._lock is not None:
            Kubernetes._lock.close()
            Kubernetes._lock = None

    @staticmethod
    def in_use() -> bool:
        """Whether another process has it."""
        with LOCK.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def __enter__(self) -> "Kubernetes":
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _script(self, *argv: str) -> None:
        with tempfile.TemporaryFile("w+") as out:  # a pipe would stay open as long as the daemons
            env = {**os.environ, "RIG": str(HOME)}
            rc = subprocess.call(argv, stdin=NOTHING, stdout=out, stderr=out, env=env, cwd=RIG, timeout=240)
            out.seek(0)
            assert rc == 0, f"{' '.join(argv)}: {out.read()[-2000:]}"

    # --- daemons: etcd, apiserver, controller-manager, scheduler, containerd, kubelet, svc

    def daemons(self) -> dict[str, int]:
        """Those that run, with their pids."""
        pids = {file.stem: int(file.read_text().split()[0]) for file in (HOME / "run").glob("*.pid")}
        return {name: pid for name, pid in pids.items() if alive(pid)}

    def signal(self, daemon: str, number: int) -> None:
        """Send a signal to a daemon."""
        os.kill(self.daemons()[daemon], number)

    def kill(self, daemon: str) -> None:
        """SIGKILL, and wait until it is gone. `start` brings it back."""
        self.signal(daemon, signal.SIGKILL)
        eventually(lambda: daemon not in self.daemons(), f"{daemon} is gone")

    # --- objects

    def kubectl(self, *argv: str, stdin: str = "", check: bool = True) -> str:
        """A command of the cluster's admin; what it prints."""
        command = [str(HOME / "bin/kubectl"), "--kubeconfig", str(self.admin), *argv]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 or not check, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout + ("" if check else done.stderr)

    def apply(self, *things: dict[str, Any]) -> None:
        """Make objects, or change them."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(things))

    def get(self, kind: str, namespace: str, *more: str) -> list[dict[str, Any]]:
        """The objects of a kind."""
        found = json.loads(self.kubectl("get", kind, "-n", namespace, "-o", "json", *more))
        return list(found.get("items", []))

    def pods(self, mark: str, namespace: str = "") -> list[dict[str, Any]]:
        """The pods that a text is in the tag of: a session's or a hub's."""
        where = ["-n", namespace] if namespace else ["--all-namespaces"]
        found = json.loads(self.kubectl("get", "pods", *where, "-o", "json"))["items"]
        tagged = [(pod["metadata"].get("annotations") or {}).get("hepspawner.io/tag", "") for pod in found]
        return [pod for pod, tag in zip(found, tagged, strict=True) if mark in tag]

    def namespace(self, name: str, manifest: str = "rbac.yaml") -> Path:
        """A namespace with a hub's service account, with the rights of a manifest of the project and no other; its
        kubeconfig."""
        rights = yaml.safe_load_all((MANIFESTS / manifest).read_text())
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.apply(*(_in_namespace(one, name) for one in rights))
        return self.kubeconfig(name)

    def kubeconfig(self, namespace: str, account: str = "hub") -> Path:
        """The configuration of a service account."""
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 86400}}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        token = json.loads(self.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(asked)))["status"]["token"]
        config = yaml.safe_load(self.admin.read_text())
        config["users"] = [{"name": "hub", "user": {"token": token}}]
        config["contexts"][0]["context"] |= {"user": "hub", "namespace": namespace}
        target = self.directory / f"{namespace}.kubeconfig"
        target.write_text(yaml.safe_dump(config))
        target.chmod(0o644)  # hubs of other accounts read it, too
        return target

    def authority(self) -> bytes:
        """The certificate of the API server's authority."""
        cluster = yaml.safe_load(self.admin.read_text())["clusters"][0]["cluster"]
        return base64.b64decode(cluster["certificate-authority-data"])

    def add_to_node(self, resource: str, count: int) -> None:
        """Have the node count something that it has to give, such as GPUs: there is no device."""
        path = f"/api/v1/nodes/{NODE}"
        node = json.loads(self.kubectl("get", "--raw", path))
        del node["metadata"]["resourceVersion"]  # the kubelet writes there, too
        for part in ("capacity", "allocatable"):
            node["status"][part][resource] = str(count)
        self.kubectl("replace", "--raw", f"{path}/status", "-f", "-", stdin=json.dumps(node))

    def compact(self) -> None:
        """Have the store forget what was before now."""
        command = ["etcdctl", "--endpoints", "http://127.0.0.1:579"]
        env = {**os.environ, "ETCDCTL_API": "3"}
        told = subprocess.run([*command, "get", "/", "-w", "json"], capture_output=True, check=True, env=env).stdout
        subprocess.run(
            [*command, "compact", str(json.loads(told)["header"]["revision"])], check=True, env=env, stdout=NOTHING
        )

    def cordon(self, closed: bool = True) -> None:
        """From now on the node takes no new pods, or it does again."""
        self.kubectl("cordon" if closed else "uncordon", NODE)


def _in_namespace(thing: dict[str, Any], namespace: str) -> dict[str, Any]:
    """An object of a manifest, moved to another namespace."""
    moved = dict(thing)
    if "namespace" in thing["metadata"]:
        moved["metadata"] = {**thing["metadata"], "namespace": namespace}
    if "subjects" in thing:
        moved["subjects"] = [{**one, "namespace": namespace} for one in thing["subjects"]]
    return moved


def host_mounts(paths: Iterable[str]) -> list[dict[str, Any]]:
    """Mounts of directories of this machine, for the image that has nothing of its own."""
    return [{"source": path, "read_only": path == "/usr"} for path in paths]
