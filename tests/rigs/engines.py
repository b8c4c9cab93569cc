"""engines.py RIGS IMAGE USERS [PREFIX…]: tries each engine, as an ordinary user (PREFIX) where there is one, and writes
RIGS/engines.json: what works, and for what does not, why."""

import json
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.cvmfs import SERVER, Repository
from tests.htcondor import Condor
from tests.kubernetes import Kubernetes
from tests.slurm import Slurm, find

Check = list[str] | Callable[[], str | None] | None


def try_out(argv: list[str]) -> str | None:
    """None where the command works, else why it does not, in words."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
    except subprocess.TimeoutExpired:
        return f"{argv[-1]} does not end"
    except OSError as e:
        return str(e)
    if done.returncode == 0:
        return None
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def attempt(work: Callable[[], object]) -> str | None:
    """None where it can be done, else why not."""
    try:
        work()
    except Exception as e:
        return (str(e) or repr(e)).strip().splitlines()[0]
    return None


def use_slurm(**knobs: Any) -> None:
    """A cluster starts, and a user may submit jobs to it."""
    with Slurm(**knobs) as cluster:
        cluster.submit("true", "--hold")


def use_htcondor() -> None:
    """A pool starts, and a user may submit jobs to it."""
    with Condor() as pool:
        pool.sleeper("hold = true")


def use_kubernetes() -> None:
    """A cluster starts, and runs a pod."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "hello", "namespace": "default"},
        "spec": {"containers": [{"name": "hello", "image": "rig.local/busybox:1", "command": ["sleep", "3600"]}]},
    }
    if Kubernetes.in_use():  # by tests, just now
        return
    with Kubernetes() as cluster:
        cluster.apply(pod)
        cluster.kubectl("wait", "--for=condition=Ready", "pod/hello", "--timeout=60s")


def use_fuse() -> None:
    """A file system of our own comes up, and goes."""
    with Repository() as repository:
        (repository.source / "file").touch()
        (repository.root / "file").stat()


def main(rigs: Path, image: Path, users: list[str], prefix: list[str]) -> None:
    engines: dict[str, str | list[str] | None] = {}
    missing: dict[str, str] = {}

    def engine(name: str, path: Path | str | None, part: str, check: Check = None) -> None:
        failed = rigs / "log" / f"{part}.failed"
        reason = None
        if path is None or not Path(path).exists():
            reason = failed.read_text().strip() if failed.exists() else f"tests/rigs/setup.sh {part} has not been run"
        elif isinstance(check, list):
            reason = try_out(prefix + check)
        elif check:
            reason = check()
        engines[name] = None if reason is not None else str(path)
        if reason is not None:
            missing[name] = reason or "unknown"

    known = {entry.pw_name for entry in pwd.getpwall()}
    no_users = None
    if not (prefix and known.issuperset(users)):
        no_users = "accounts are missing" if prefix else "only root can act as other users"
    slurmctld, slurmdbd = find("slurmctld"), find("slurmdbd") if find("mariadbd") else None
    # meanwhile, for it mostly waits; one that does accounting shows that the other works, too
    pool = ThreadPoolExecutor(2)
    accounting = pool.submit(lambda: no_users or attempt(lambda: use_slurm(DBD=1))) if slurmctld and slurmdbd else None

    kubernetes = rigs / "kubernetes" / "complete"
    running = pool.submit(lambda: no_users or attempt(use_kubernetes)) if kubernetes.exists() else None

    for hub in ("hub6", "hub5"):
        python = rigs / f"venv-{hub}" / "bin" / "python"
        engine(hub, python, f"venv-{hub}", [str(python), "-c", "import jupyterhub, hepspawner"])
    apptainer = rigs / "apptainer" / "usr" / "bin" / "apptainer"
    sif = image.with_name(image.name + ".sif")
    run = [str(apptainer), "exec"]
    server = ["jupyterhub-singleuser", "--version"]
    # without Apptainer an image is no engine, and the other way round
    works = [*run, str(image), "true"] if image.exists() else [str(apptainer), "--version"]
    engine("apptainer", apptainer, "apptainer", works)
    engine("image", image / "list-of-pkgs-inside.txt", "image", [*run, str(image), *server])
    engine("sif", sif, "image", [*run, str(sif), "true"])
    if engines["image"]:
        engines["image"] = str(image)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    engine("chromium", chromium, "packages", [chromium or "", "--version"])

    if accounting:
        engine("slurmdbd", slurmdbd, "slurm", accounting.result)
    else:
        engine("slurmdbd", None, "slurm")
    engine("slurm", slurmctld, "slurm", lambda: no_users or (None if engines["slurmdbd"] else attempt(use_slurm)))
    engine("fuse", SERVER, "packages", lambda: attempt(use_fuse))
    engine("htcondor", rigs / "htcondor" / "complete", "htcondor", lambda: no_users or attempt(use_htcondor))
    engine("kubernetes", kubernetes, "kubernetes", running.result if running else None)
    engines["users"] = [] if no_users else users
    if no_users:
        missing["users"] = no_users

    target = rigs / "engines.json"
    new = target.with_suffix(".new")
    new.write_text(json.dumps({**engines, "missing": missing}, indent=1) + "\n")
    new.replace(target)
    for name, reason in missing.items():
        print(f"hepspawner: NO {name}: {reason}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3].split(), sys.argv[4:])
