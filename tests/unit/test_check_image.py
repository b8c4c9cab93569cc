"""`hepspawner check --image`: what is told of images, each made here with one thing wrong."""

import json
import os
import struct

import pytest

from hepspawner.catalog.findings import hub_version
from hepspawner.catalog.inspect import rpaths
from hepspawner.cli import main

HUB, LEAST = hub_version()
MAJOR = int(HUB.split(".")[0])


class Image:
    """The root of an image with a server and one kernel, in which nothing is wrong."""

    def __init__(self, top):
        self.top = top
        for folder in ("usr", "cvmfs", "bin", "opt/env/bin", ".singularity.d/env"):
            (top / folder).mkdir(parents=True)
        for program in ("bin/sh", "bin/bash", "opt/env/bin/python3.12"):
            self.write(program, "#!\n", 0o755)
        (top / "opt/env/bin/python3").symlink_to("/opt/env/bin/python3.12")
        self.write(".singularity.d/env/10-docker2singularity.sh", 'export PATH="/opt/env/bin:$PATH"\n')
        self.write("opt/env/bin/jupyterhub-singleuser", "#!/opt/env/bin/python3\n", 0o755)
        self.site = "opt/env/lib/python3.12/site-packages"
        for name in (f"jupyterhub-{HUB}", "jupyterlab-4.5.0", "ipykernel-7.0.0"):
            (top / self.site / f"{name}.dist-info").mkdir(parents=True)
        self.kernel("python3", ["/opt/env/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"])

    def write(self, path, text, mode=0o644):
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        file.chmod(mode)

    def kernel(self, name, argv):
        self.write(f"opt/env/share/jupyter/kernels/{name}/kernel.json", json.dumps({"argv": argv}))

    def rename(self, old, new):
        os.rename(self.top / old, self.top / new)


@pytest.fixture
def image(tmp_path):
    return Image(tmp_path / "image:v1")


@pytest.fixture
def check(image, capsys):
    """Exit status and what is printed of the image."""

    def run():
        status = main(["check", "--image", str(image.top)])
        return status, capsys.readouterr().out

    return run


def test_an_image_in_which_nothing_is_wrong(check, image):
    status, out = check()
    assert (status, out.splitlines()) == (
        0,
        [
            f"{image.top}: sandbox",
            "server: /opt/env/bin/jupyterhub-singleuser; "
            f"Python 3.12, jupyterhub {HUB}, jupyterlab 4.5.0, ipykernel 7.0.0",
            "kernels: python3",
            "0 problems, 0 notes",
        ],
    )


def elf(folders):
    """A library of 64 bits with a RUNPATH."""
    text = b"\0" + folders.encode() + b"\0"
    dynamic = struct.pack("<6Q", 5, 0x1000 + 64 + 112 + 48, 29, 1, 0, 0)
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    size = 64 + 112 + len(dynamic) + len(text)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0x1000, 0, size, size, 8)
    table = struct.pack("<IIQQQQQQ", 2, 4, 64 + 112, 0x1000 + 64 + 112, 0, len(dynamic), len(dynamic), 8)
    return head + load + table + dynamic + text


def no_server(image):
    os.unlink(image.top / "opt/env/bin/jupyterhub-singleuser")


def dangling_interpreter(image):
    image.write("opt/env/bin/jupyterhub-singleuser", "#!/home/builder/env/bin/python3\n", 0o755)


def other_major(image):
    image.rename(f"{image.site}/jupyterhub-{HUB}.dist-info", f"{image.site}/jupyterhub-{MAJOR - 1}.2.1.dist-info")


def other_minor(image):
    image.rename(f"{image.site}/jupyterhub-{HUB}.dist-info", f"{image.site}/jupyterhub-{MAJOR}.99.0.dist-info")


def old_python(image):
    os.unlink(image.top / "opt/env/bin/python3")
    (image.top / "opt/env/bin/python3").symlink_to("python3.6")
    image.rename("opt/env/bin/python3.12", "opt/env/bin/python3.6")
    image.rename("opt/env/lib/python3.12", "opt/env/lib/python3.6")


def dangling_kernel(image):
    (image.top / "opt/env/share/jupyter/kernels/old").symlink_to("/afs/kernels/old")


def kernel_of_nothing(image):
    image.kernel("root", ["/opt/root/bin/jupyroot", "{connection_file}"])


def kernel_by_env(image):
    image.kernel("other", ["/usr/bin/env", "-S", "A=1", "python2.7", "-m", "x"])
    image.write("usr/bin/env", "#!\n", 0o755)


def broken_kernel(image):
    image.write("opt/env/share/jupyter/kernels/bad/kernel.json", b"\xff\0{")


def no_kernel(image):
    image.rename("opt/env/share", "opt/env/nothing")


def bare_kernel(image):
    image.kernel("bare", ["python3", "-m", "ipykernel_launcher"])


def no_cvmfs(image):
    os.rmdir(image.top / "cvmfs")


def no_bash(image):
    os.unlink(image.top / "bin/bash")


def no_shell(image):
    os.unlink(image.top / "bin/sh")


def rpath_that_is_missing(image):
    image.write(f"{image.site}/fast/_fast.so", elf("$ORIGIN/../lib:/opt/conda/lib"))


def rpath_that_is_there(image):
    image.write(f"{image.site}/fast/_fast.so", elf("/opt/env/lib"))


@pytest.mark.parametrize(
    "spoil, status, what, remedy",
    [
        (no_server, 1, "jupyterhub-singleuser is not in the image's PATH (/opt/env/bin:/usr/", "package jupyterhub"),
        (dangling_interpreter, 1, "wants the interpreter /home/builder/env/bin/python3, which is not", "at the place"),
        (other_major, 0, f"jupyterhub in the image is {MAJOR - 1}.2.1, the hub is {HUB}", f"jupyterhub {MAJOR}.*"),
        (other_minor, 0, "0 problems, 0 notes", ""),
        (old_python, 0, f"Python in the image is 3.6; jupyterhub {HUB} needs {LEAST}", f"Python {LEAST} or newer"),
        (dangling_kernel, 0, "kernels/old/kernel.json) is a link to what is not in the image", "copy the kernelspec"),
        (kernel_of_nothing, 0, "starts /opt/root/bin/jupyroot, which is not in the image", "remove the kernelspec"),
        (kernel_by_env, 0, "starts python2.7, which is not in the image", "install it"),
        (broken_kernel, 0, "kernels/bad/kernel.json) is malformed", "mend or remove"),
        (no_kernel, 1, "problem: there is no kernel that could run", "install ipykernel"),
        (bare_kernel, 0, "begins with a bare python3", "/usr/bin/env before it"),
        (no_cvmfs, 0, "note: the image has no directory /cvmfs", "mkdir /cvmfs"),
        (no_bash, 0, "note: the image has no /bin/bash", "leave `setup` out"),
        (no_shell, 1, "problem: the image has no /bin/sh", "a base with a shell"),
        (rpath_that_is_missing, 1, "_fast.so looks for libraries in /opt/conda/lib (RPATH), which", "rebuild it"),
        (rpath_that_is_there, 0, "_fast.so looks for libraries in /opt/env/lib (RPATH)\n", "with $ORIGIN"),
    ],
)  # fmt: skip
def test_each_finding_comes_with_its_remedy(check, image, spoil, status, what, remedy):
    spoil(image)
    code, out = check()
    assert code == status and what in out, out
    assert remedy in out.partition("remedy: ")[2]
    assert out.count("consequence: ") == out.count("remedy: ") == out.count("problem: ") + out.count("note: ")


@pytest.mark.parametrize(
    "path, text",
    [
        ("nothing", "does not exist"),
        ("file", "is not an image"),
        ("prefix", "is a prefix"),
        ("loop", "does not exist"),
    ],
)
def test_what_is_no_image(tmp_path, capsys, path, text):
    (tmp_path / "file").write_text("x")
    (tmp_path / "prefix/bin").mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    assert main(["check", "--image", str(tmp_path / path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"problem: {tmp_path}/{path} ") and text in out and out.count("\n") == 1


def test_links_that_lead_in_circles_or_out_of_the_image(check, image):
    (image.top / "opt/env/share/jupyter/kernels/round").symlink_to("round")
    (image.top / "opt/env/share/jupyter/kernels/out").symlink_to("../../../../../../../../../etc")
    status, out = check()
    assert status == 0 and "round" in out and "/etc" not in out


@pytest.mark.parametrize("cut", [0, 10, 40, 63, 100, 176, 190, 225])
def test_a_library_that_was_cut_off_is_no_library(cut):
    whole = elf("/opt/conda/lib")
    assert rpaths(whole) == ["/opt/conda/lib"]
    assert rpaths(whole[:cut]) == []
