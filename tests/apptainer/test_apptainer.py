"""What a session's command and environment do in the real Apptainer, as an ordinary user.

The launcher's part (docs/protocol.md: places are filled in, conditions looked at) is done here by `run`.
"""

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from hepspawner.choice import Offer, Who
from hepspawner.session import Request, build_session
from hepspawner.site.load import load_site

pytestmark = pytest.mark.needs("apptainer", "image")

# What shells, Apptainer's own options and CSV take apart.
ODD = {
    "NEWLINE": "one\ntwo\n",
    "QUOTES": "'single' \"double\" `tick`",
    "COMMAND": "$(id) ${HOME} $HOME `id`",
    "BACKSLASH": "ends with \\",
    "BACKSLASHES": "\\n \\\\ \\$x \\",
    "EMPTY": "",
    "COMMA": "a,b=c,d",
    "SPACES": "  two  ",
    "UNICODE": "Größe ☕",
    "PERCENT": "%s %(x)s {y}",
    "LONG": "x" * 100_000,
}


@pytest.fixture(scope="module")
def account(engines):
    """An ordinary user: another one where the tests run as root."""
    return pwd.getpwnam(engines["users"][0]) if os.getuid() == 0 else pwd.getpwuid(os.getuid())


@pytest.fixture
def place(account):
    """A directory of that user's, outside of /tmp."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="hepspawner-test-"))
    os.chown(folder, account.pw_uid, account.pw_gid)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def rootfs():
    """A root directory that is no more: bash, env, ls and what they need."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="hepspawner-rootfs-"))
    folder.chmod(0o755)
    programs = [shutil.which(name) for name in ("bash", "env", "ls", "cat")]
    needed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    for path in {*programs, *re.findall(r"(/\S+) \(0x", needed)}:
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    for program in programs:
        if not (folder / "bin" / Path(program).name).exists():
            (folder / "bin").mkdir(exist_ok=True)
            (folder / "bin" / Path(program).name).symlink_to(program)
    (folder / "bin/sh").symlink_to("bash")
    for name in ("etc", "tmp", "proc", "sys", "dev", "home", "var/tmp", "root", "data"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("passwd", "group", "resolv.conf", "hosts"):
        (folder / "etc" / name).touch()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=["image", "sif", "plain", "scripts without the last", "colon and comma"])
def image(request, engines, rootfs, place):
    """Images of each kind: the path of one."""
    if request.param in ("image", "sif"):
        return engines[request.param]
    if request.param == "plain":
        return str(rootfs)
    path = place / ("a:b,c \"d'e$(id)" if "colon" in request.param else "scripts")
    shutil.copytree(rootfs, path, symlinks=True)
    if request.param == "scripts without the last":
        scripts = path / ".singularity.d/env"
        scripts.mkdir(parents=True)
        (scripts / "90-environment.sh").write_text("export FROM_THE_IMAGE=yes\n")
    return str(path)


@pytest.fixture
def run(engines, account, place):
    """Runs an image's command as the launcher would; returns its output."""

    def run_session(path, command, *, host=None, choice=None, expect=0, mounts=(), **image):
        site = load_site(
            {
                "images": [{"name": "i", "path": path, "command": command, **image}],
                "backends": {
                    "here": {
                        "type": "local",
                        "apptainer": engines["apptainer"],
                        "gpus": {"x": {}, "y": {"vendor": "amd"}},
                    }
                },
                "mounts": list(mounts),
            }
        )
        session = build_session(
            Request(
                site=site,
                backend=site.backends["here"],
                choice=Offer(site, Who("someone")).choose(choice or {}),
                user="someone",
                server="",
                base_url="/user/someone/",
                hub_environment={"JUPYTERHUB_API_TOKEN": "the-token"},
            )
        )
        scratch = place / "scratch"
        scratch.mkdir(exist_ok=True)
        os.chown(scratch, account.pw_uid, account.pw_gid)
        for name, text in session.files.items():
            (scratch / name).write_text(text)
        places = {"SCRATCH": str(scratch), "HOME": account.pw_dir, "PORT": "40123", "DEADLINE": ""}
        places |= {"IMAGE": os.path.realpath(path), "DIGEST": ""}

        def fill(text):
            return re.sub("@(PORT|SCRATCH|HOME|DEADLINE|IMAGE|DIGEST)@", lambda match: places[match[1]], text)

        words = []
        for item in session.argv:
            if isinstance(item, str):
                words.append(item)
            elif os.path.exists(fill(item["when"])) and not os.path.exists(fill(item.get("unless", "/nowhere"))):
                words += item["argv"]
        inherit = {theirs: host[ours] for ours, theirs in session.inherit.items() if ours in (host or {})}
        done = subprocess.run(
            [fill(word) for word in words],
            env={**{name: fill(value) for name, value in session.environment.items()}, **inherit},
            cwd=account.pw_dir,
            capture_output=True,
            timeout=120,
            **({"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.getuid() == 0 else {}),
        )
        assert done.returncode == expect, done.stderr.decode()
        return done.stdout.decode()

    return run_session


def variables(text):
    return dict(entry.split("=", 1) for entry in text.split("\0") if entry)


def test_the_servers_environment_is_ours_and_the_images_alone(run, image, account):
    seen = variables(run(image, ["env", "-0"], environment=ODD))
    assert {name: seen.get(name) for name in ODD} == ODD
    assert seen["JUPYTERHUB_API_TOKEN"] == "the-token"
    assert seen["JUPYTERHUB_SERVICE_URL"] == "http://127.0.0.1:40123/user/someone/"
    assert seen["HOME"] == account.pw_dir
    assert seen["USER"] == "someone"
    # nothing else but what a shell, the image and Apptainer set themselves
    ours = {"USER", "LOGNAME", "SHELL", "HOME", "HEPSPAWNER_SESSION", "JUPYTER_RUNTIME_DIR", *ODD}
    ours |= {"HEPSPAWNER_IMAGE", "HEPSPAWNER_IMAGE_PATH", "HEPSPAWNER_IMAGE_DIGEST"}
    theirs = {"PATH", "LD_LIBRARY_PATH", "PWD", "SHLVL", "_", "PS1", "PROMPT_COMMAND", "LANG", "FROM_THE_IMAGE"}
    rest = {name for name in seen if not re.match("APPTAINER|SINGULARITY|JUPYTERHUB_", name)}
    assert rest - ours - theirs == set()


def test_the_path_is_the_images(run, engines):
    assert variables(run(engines["image"], ["env", "-0"]))["PATH"].startswith("/opt/conda/bin:")
    assert variables(run(engines["sif"], ["env", "-0"]))["PATH"].startswith("/opt/conda/bin:")
    assert variables(run(engines["image"], ["env", "-0"], environment={"PATH": "/mine:/bin:/usr/bin"}))[
        "PATH"
    ].startswith("/mine:")


def test_scripts_of_the_image_still_count(run, rootfs, place):
    path = place / "scripts"
    shutil.copytree(rootfs, path, symlinks=True)
    (path / ".singularity.d/env").mkdir(parents=True)
    (path / ".singularity.d/env/90-environment.sh").write_text("export FROM_THE_IMAGE=yes A=image\n")
    seen = variables(run(str(path), ["env", "-0"], environment={"A": "site"}))
    assert (seen["FROM_THE_IMAGE"], seen["A"]) == ("yes", "site")


def test_the_scratch_directory_is_tmp(run, rootfs, place, account):
    foreign = Path(tempfile.mkdtemp(dir="/tmp", prefix="hepspawner-of-somebody-else-"))
    try:
        listed = run(str(rootfs), ["bash", "-c", "ls -A /tmp; echo done > /tmp/made"])
    finally:
        foreign.rmdir()
    assert listed.split() == ["99-base.sh"]
    made = place / "scratch/made"
    assert made.read_text() == "done\n" and made.stat().st_uid == account.pw_uid


def test_the_home_is_the_users_and_nobody_elses(run, rootfs, account):
    text = run(str(rootfs), ["bash", "-c", "cd && pwd && ls -A /home"])
    assert text.splitlines()[0] == account.pw_dir
    if account.pw_dir.startswith("/home/"):
        assert text.splitlines()[1:] == [account.pw_name]


def test_the_working_directory_is_not_mounted_by_itself(run, rootfs, place):
    (place / "file").touch()
    assert str(place) not in run(str(rootfs), ["cat", "/proc/mounts"]).replace(f"{place}/scratch", "")


@pytest.mark.parametrize(
    "name", ["plain", "with:colon", "with, comma", 'with "quotes"', "ends with blank ", "a,b:c d\"e'f$(id)"]
)
def test_mounts_of_any_name(run, rootfs, place, name):
    source = place / name
    source.mkdir()
    (source / "file").write_text("found\n")
    mount = {"source": str(source), "target": "/data"}
    assert run(str(rootfs), ["cat", "/data/file"], mounts=[mount]) == "found\n"


def test_a_target_of_any_name(run, rootfs, place):
    (place / "source").mkdir()
    (place / "source/file").write_text("found\n")
    target = '/data:1, "x"'
    (rootfs / target[1:]).mkdir(exist_ok=True)
    assert (
        run(str(rootfs), ["cat", f"{target}/file"], mounts=[{"source": str(place / "source"), "target": target}])
        == "found\n"
    )


def test_mounts_that_may_be_written_and_that_may_not(run, rootfs, place, account):
    source = place / "source"
    source.mkdir()
    os.chown(source, account.pw_uid, account.pw_gid)
    mount = {"source": str(source), "target": "/data"}
    write = ["bash", "-c", "echo x > /data/made"]
    run(str(rootfs), write, mounts=[mount])
    assert (source / "made").read_text() == "x\n"
    (source / "made").unlink()
    run(str(rootfs), write, mounts=[{**mount, "read_only": True}], expect=1)
    assert not (source / "made").exists()


def test_an_optional_mount_that_is_missing_is_left_out(run, rootfs):
    assert run(str(rootfs), ["bash", "-c", "echo runs"], mounts=[{"source": "/nowhere", "optional": True}]) == "runs\n"


@pytest.mark.parametrize("kind", ["x", "y"])
def test_asking_for_a_gpu_does_no_harm_where_the_driver_is_missing(run, rootfs, kind):
    seen = variables(run(str(rootfs), ["env", "-0"], choice={"gpu": kind}, host={"CUDA_VISIBLE_DEVICES": "3,5"}))
    assert seen["CUDA_VISIBLE_DEVICES"] == "3,5"


def test_gpus_of_the_node_are_not_seen_unasked(run, rootfs):
    assert "CUDA_VISIBLE_DEVICES" not in variables(run(str(rootfs), ["env", "-0"], host={"CUDA_VISIBLE_DEVICES": "3"}))


def test_setup_lines_run_before_the_server_and_reach_it(run, image):
    text = run(image, ["bash", "-c", 'echo "$A|$1|$#"', "me", "a 'b' $(id)"], setup="A='set up'\nexport A\n# done")
    assert text == "set up|a 'b' $(id)|1\n"


def test_a_failing_setup_line_is_like_one_in_a_shell(run, rootfs):
    assert run(str(rootfs), ["bash", "-c", "echo runs"], setup="false; nonsense") == "runs\n"
    run(str(rootfs), ["bash", "-c", "echo runs"], setup="exit 7", expect=7)


def test_jupyterhubs_server_is_found_in_the_image(run, engines):
    for path in (engines["image"], engines["sif"]):
        assert re.fullmatch(r"\d+\.\d+\.\d+\s*", run(path, ["jupyterhub-singleuser", "--version"]))
