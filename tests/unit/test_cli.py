"""The command line: what it prints, and its exit status."""

import asyncio
import json
import os
import socket
import sys
import time

import pytest

from hepspawner import __version__, demo
from hepspawner.cli import main
from hepspawner.site.load import load_site

SITE = """
images:
  - {{name: base, title: ATLAS base, group: ATLAS, path: {place}/base}}
  - {{name: sif, path: [{place}/gone, {place}/image.sif], gpu: none}}
  - {{name: gone, path: {place}/gone}}
  - {{name: secret, path: {place}/base, groups: [insiders]}}
  - {{name: host, prefix: {place}/prefix}}
custom_images: {{allow: ["/home/{{username}}/*"]}}
backends:
  farm:
    type: local
    title: The farm
    cpus: {{default: 1, max: 8}}
    memory: {{default: 2G, max: 16G}}
"""


@pytest.fixture
def site(tmp_path, write_site):
    """A site file with images that are there and one that is not."""
    (tmp_path / "base/usr").mkdir(parents=True)
    (tmp_path / "prefix/bin").mkdir(parents=True)
    (tmp_path / "image.sif").write_bytes(b"\0" * 32 + b"SIF_MAGIC\0")
    return write_site(SITE.format(place=tmp_path))


@pytest.fixture
def run(capsys):
    """Runs the command; returns exit status, output and errors."""

    def command(*argv):
        status = main(list(map(str, argv)))
        return (status, *capsys.readouterr())

    return command


# --- check


def test_check_of_a_good_site(run, site, tmp_path):
    assert run("check", site) == (
        0,
        f"note: image gone: {tmp_path}/gone does not exist on this machine\n{site}: good: 5 images, backends farm\n",
        "",
    )


def test_check_says_what_a_batch_system_lacks_on_this_machine(run, write_site, tmp_path):
    (tmp_path / "squeue").write_text("#!/bin/sh\n")
    (tmp_path / "squeue").chmod(0o755)
    path = write_site(
        "images: [{name: x, oci: x/y}, {name: z, prefix: /}]\nbackends:\n  farm:\n    type: slurm\n    run_as: none\n"
        f"    commands:\n      paths: {{sbatch: /no/sbatch, squeue: {tmp_path}/squeue, scancel: /no/y, sinfo: /no/x}}\n"
    )
    status, out, _ = run("check", path)
    assert status == 0
    notes = [line for line in out.splitlines() if "farm" in line and line.startswith("note")]
    assert notes == [
        f"note: backend farm: there is no {name} on this machine" for name in ("/no/sbatch", "/no/y", "/no/x")
    ]


def test_check_of_a_broken_site(run, write_site):
    path = write_site("imges: []\nbackends: {here: {type: locl}}\n")
    assert run("check", path) == (
        1,
        "",
        f"{path}:1: images: is missing\n"
        f"{path}:1: imges: is no key here; did you mean images?\n"
        f"{path}:2: backends.here.type: 'locl': is no type of backend that is installed; "
        "there are: htcondor, kubernetes, local, slurm; did you mean local?\n",
    )


def test_check_of_a_site_that_is_not_there(run):
    assert run("check", "/nowhere.yaml") == (1, "", "/nowhere.yaml: cannot be read: No such file or directory\n")


def test_check_of_templates(run, site, tmp_path):
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "form.html").write_text("\n{% if x %}")
    status, out, err = run("check", site, "--templates", templates)
    assert status == 1 and "templates have errors" in out
    assert err.startswith(f"{templates}/form.html:2: ")
    (templates / "form.html").write_text("{{ x }}")
    assert run("check", site, "--templates", templates)[0] == 0
    assert run("check", site, "--templates", "/nowhere")[2] == "/nowhere: is not a directory\n"


# --- images


def test_images_of_a_user(run, site, tmp_path):
    status, out, err = run("images", site, "--user", "alice")
    assert (status, err) == (0, "")
    today = time.strftime("%Y-%m-%d", time.localtime((tmp_path / "image.sif").stat().st_mtime))
    assert [line.split() for line in out.splitlines()] == [
        ["base", "sandbox", "-", today, "gpu", "optional", "farm", f"{tmp_path}/base"],
        ["sif", "sif", "-", today, "gpu", "none", "farm", f"{tmp_path}/image.sif"],
        ["gone", "missing", "-", "-", "gpu", "optional", "farm", f"{tmp_path}/gone"],
        ["host", "prefix", "-", "-", "gpu", "optional", "farm", f"{tmp_path}/prefix"],
    ]


def test_images_of_a_user_in_a_group(run, site):
    _, out, _ = run("images", site, "--user", "bob", "--groups", "others,insiders", "--json")
    rows = json.loads(out)
    assert [row["name"] for row in rows] == ["base", "sif", "gone", "secret", "host"]
    assert rows[0]["title"] == "ATLAS base" and rows[0]["group"] == "ATLAS" and rows[0]["state"] == "sandbox"


def test_no_images_for_a_user(run, write_site):
    path = write_site("images: [{name: a, path: /a, groups: [g]}]\nbackends: {here: {type: local}}\n")
    assert run("images", path, "--user", "alice") == (0, "", "no image for user alice with groups none\n")
    assert run("images", path, "--user", "alice", "--json") == (0, "[]\n", "")


# --- preview


def test_preview(run, site, tmp_path):
    status, out, err = run("preview", site, "--user", "alice", "--options", '{"image": "base", "cpus": 4}')
    assert (status, err) == (0, "")
    assert out.startswith("# ATLAS base on The farm with 4 cores, 2G\n# launcher, as the user, on this machine\n")
    assert " @IMAGE@ jupyterhub-singleuser\n" in out and f"\n{tmp_path}/base\n" in out
    assert "APPTAINERENV_JUPYTERHUB_API_TOKEN=<secret: handed over by claim>\n" in out
    assert "APPTAINERENV_JUPYTERHUB_SERVICE_URL=http://127.0.0.1:@PORT@/user/alice/\n" in out


def test_preview_where_htcondor_runs_the_images(run, tmp_path, write_site):
    (tmp_path / "base/usr").mkdir(parents=True)
    backend = "backends: {pool: {type: htcondor, universe: container}}"
    path = write_site(f"images: [{{name: base, path: {tmp_path}/base}}]\n{backend}\n")
    status, out, err = run("preview", path, "--user", "alice")
    assert status == 0, err
    assert f"universe = container\ncontainer_image = {tmp_path}/base\n" in out
    assert "\njupyterhub-singleuser\n" in out and "apptainer" not in out


def test_preview_of_a_named_server_of_an_odd_user(run, site):
    _, out, _ = run("preview", site, "--user", "a b@cern.ch", "--server", "my work/1")
    assert "JUPYTERHUB_SERVICE_PREFIX=/user/a%20b@cern.ch/my%20work%2F1/\n" in out


def test_preview_of_the_defaults_and_of_an_own_image(run, site):
    assert run("preview", site, "--user", "alice")[1].startswith("# ATLAS base on The farm with 1 core, 2G\n")
    _, out, _ = run("preview", site, "--user", "alice", "--options", '{"custom_image": "/home/alice/x.sif"}')
    assert out.startswith("# /home/alice/x.sif on The farm with 1 core, 2G\n")


@pytest.mark.parametrize(
    "options, errors",
    [
        (
            '{"image": "bas", "cpus": 99}',
            "image: 'bas' is not available to you; did you mean base?\n",
        ),
        (
            '{"cpus": 99, "memory": "1T"}',
            "cpus: 99 is not allowed on The farm; allowed: 1 to 8\n"
            "memory: '1T' is not allowed on The farm; allowed: 128M to 16G\n",
        ),
        ('{"image": "secret"}', "image: 'secret' is not available to you; allowed: base, sif, gone, host\n"),
        ("[1]", "user_options: must be a mapping of names to values\n"),
        ("{", "--options: is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)\n"),
        ("[" * 100_000, "--options: is not JSON: it is nested too deeply\n"),
        ("9" * 5000, None),
    ],
)
def test_preview_of_what_is_not_allowed(run, site, options, errors):
    status, out, err = run("preview", site, "--user", "alice", "--options", options)
    assert (status, out) == (1, "")
    assert err == errors or (errors is None and err.count("\n") == 1)


NONE = "there is no image that you may use here; ask the site's admins"


def test_preview_of_an_image_that_this_backend_cannot_run(run, write_site):
    path = write_site("images: [{name: a, oci: docker.io/x/y}]\nbackends: {here: {type: local}}\n")
    assert run("preview", path, "--user", "alice") == (1, "", f"image: {NONE}\n")


# --- the rest


def test_the_version_and_the_help(capsys):
    for argv, text in ((["--version"], __version__), (["--help"], "preview"), (["check", "--help"], "the site file")):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 0 and text in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["chekc"], ["check"], ["preview", "x", "--option"]])
def test_wrong_usage(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2 and "usage: hepspawner" in capsys.readouterr().err


async def test_a_reader_that_goes_away_is_no_crash(site):
    read, write = os.pipe()
    os.close(read)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hepspawner.cli", "images", site, stdout=write, stderr=asyncio.subprocess.PIPE
    )
    os.close(write)
    _, err = await asyncio.wait_for(child.communicate(), 30)
    assert b"Traceback" not in err


# --- the demo


def test_the_demos_site_is_good_whatever_the_images_are_called(tmp_path, monkeypatch):
    for name in ("ml-base:v1", "größe ☕", "a b", "a-b", "-x", "x" * 200, "new\nline"):
        (tmp_path / name / "usr").mkdir(parents=True)
    for name in ("image.sif", "größe.sif", "x" * 200 + ".sif"):
        (tmp_path / name).touch()
    (tmp_path / "no image").mkdir()
    monkeypatch.setattr(demo.shutil, "which", lambda name: f"/opt/{name}")
    site = load_site(demo.demo_site(str(tmp_path)))
    paths = {os.path.basename(place) for image in site.images for place in image.places}
    assert {"ml-base:v1", "größe ☕", "a-b", "-x", "image.sif", "größe.sif"} <= paths
    assert "no image" not in paths
    assert site.backends["local"].apptainer == "/opt/apptainer"


def test_the_demo_without_apptainer_still_offers_the_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo.shutil, "which", lambda name: None)
    site = load_site(demo.demo_site(str(tmp_path)))
    assert [image.prefix for image in site.images] == [sys.prefix]
    assert "apptainer is not on PATH" in capsys.readouterr().err


def test_the_demo_refuses_root_and_a_port_that_is_taken(monkeypatch, run, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "not as root" in run("demo")[2]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run("demo", "--port", port) == (
            1,
            "",
            f"hepspawner demo: port {port} is taken; choose another with PORT=\n",
        )
