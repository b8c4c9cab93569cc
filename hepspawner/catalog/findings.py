"""What an image's facts (see `inspect`) mean for those who start servers from it: each with consequence and remedy."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that an admin should know of an image."""

    what: str
    consequence: str
    remedy: str
    bad: bool = True
    """False where servers run all the same."""

    def __str__(self) -> str:
        head = f"{'problem' if self.bad else 'note'}: {self.what}"
        return f"{head}\n  consequence: {self.consequence}\n  remedy: {self.remedy}"


def hub_version() -> tuple[str, str]:
    """Version of the JupyterHub beside us and the least Python it runs on, empty where there is none."""
    try:
        about = metadata("jupyterhub")
    except PackageNotFoundError:
        return "", ""
    least = re.search(r">=\s*([\d.]+)", about["Requires-Python"] or "")
    return about["Version"], least[1] if least else ""


def findings(facts: Mapping[str, Any], command: str, hub: str, least_python: str) -> list[Finding]:
    """All findings. `command`: the server's; `hub`: JupyterHub's version, `least_python`: the oldest it runs on."""
    return [
        *_server(facts, command),
        *_versions(facts, hub, least_python),
        *_directories(facts),
        *_kernels(facts),
        *_libraries(facts),
    ]


def _server(facts: Mapping[str, Any], command: str) -> Iterator[Finding]:
    if facts["server"] is None:
        yield Finding(
            f"{command} is not in the image's PATH ({facts['path']})",
            "no server can be started from it",
            "install the package jupyterhub in the image, or name the right `command` in the site file",
        )
    elif facts["python"] and not facts["python_runs"]:
        yield Finding(
            f"{facts['server']} wants the interpreter {facts['python']}, which is not there",
            "the server ends at once, with 'not found'",
            "build the environment in the image at the place where it will be",
        )
    if facts["server"] and not facts["packages"]["jupyterlab"]:
        yield Finding(
            "JupyterLab is not installed",
            "the server runs, but /lab is not found",
            "install jupyterlab, or set the image's `default_url` to what it has",
            bad=False,
        )


def _versions(facts: Mapping[str, Any], hub: str, least_python: str) -> Iterator[Finding]:
    found = facts["packages"]["jupyterhub"]
    if hub and found and found.split(".")[0] != hub.split(".")[0]:
        yield Finding(  # JupyterHub's own rule: the same major version, or a warning
            f"jupyterhub in the image is {found}, the hub is {hub}",
            "JupyterHub warns of it: signing in to the server may fail, or redirect for ever",
            f"install jupyterhub {hub.split('.')[0]}.* in the image; try the image before you offer it",
            bad=False,
        )
    python = facts["python_version"]
    if least_python and python and _numbers(python) < _numbers(least_python):
        yield Finding(
            f"Python in the image is {python}; jupyterhub {hub} needs {least_python}",
            f"jupyterhub {hub.split('.')[0]} cannot be installed there; an older one may work with this hub or not",
            f"build the image with Python {least_python} or newer; the old one can stay as a kernel",
            bad=not found,
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _directories(facts: Mapping[str, Any]) -> Iterator[Finding]:
    if not facts["there"]["/cvmfs"]:
        yield Finding(
            "the image has no directory /cvmfs",
            "CVMFS is seen in it only where Apptainer may make the directory (overlay or underlay, its default)",
            "RUN mkdir /cvmfs in the image's recipe, or keep `enable underlay = yes` in apptainer.conf",
            bad=False,
        )
    if not facts["there"]["/bin/sh"]:
        yield Finding(
            "the image has no /bin/sh",
            "Apptainer cannot bring the environment in, and no server starts",
            "build it from a base with a shell",
        )
    elif not facts["there"]["/bin/bash"]:
        yield Finding(
            "the image has no /bin/bash",
            "`setup` lines cannot be used, and terminals have no shell",
            "install bash in the image, or leave `setup` out and set SHELL in `environment`",
            bad=False,
        )


def _kernels(facts: Mapping[str, Any]) -> Iterator[Finding]:
    usable = 0
    for kernel in facts["kernels"]:
        called = f"kernelspec {kernel['name']} ({kernel['file']})"
        if kernel["wrong"] == "dangling":
            yield Finding(
                f"{called} is a link to what is not in the image, or cannot be read",
                "the kernel is not in the list, or fails when it is chosen",
                "copy the kernelspec into the image, or mount what it points to (`mounts`)",
                bad=False,
            )
        elif kernel["wrong"]:
            yield Finding(
                f"{called} is malformed: JSON with a list `argv` is wanted",
                "the kernel is not in the list",
                "mend or remove the file",
                bad=False,
            )
        elif kernel["missing"]:
            yield Finding(
                f"{called} starts {kernel['missing']}, which is not in the image",
                "the kernel is in the list, and dies when it is chosen",
                "install it, remove the kernelspec, or mount what it needs (`mounts`)",
                bad=False,
            )
        else:
            usable += 1
            yield from _bare(facts, kernel, called)
    if not usable:
        yield Finding(
            "there is no kernel that could run",
            "notebooks cannot be run",
            "install ipykernel, or set `jupyter_path` to where the kernels are",
        )


def _bare(facts: Mapping[str, Any], kernel: Mapping[str, Any], called: str) -> Iterator[Finding]:
    # What jupyter_client replaces by the server's own interpreter.
    own = {"python", f"python{facts['python_version'].split('.')[0]}", f"python{facts['python_version']}"}
    if kernel["argv"][0] in own:
        yield Finding(
            f"{called} begins with a bare {kernel['argv'][0]}",
            f"Jupyter starts the server's own interpreter instead ({facts['python']}), whatever PATH says",
            "write the full path, or /usr/bin/env before it",
            bad=False,
        )


def _libraries(facts: Mapping[str, Any]) -> Iterator[Finding]:
    for folder, (file, there) in facts["rpaths"].items():
        if there:
            yield Finding(
                f"{file} looks for libraries in {folder} (RPATH)",
                "it works in this container only, not where the environment is used from another place",
                "build it with $ORIGIN, or use it as an image, never as a `prefix` elsewhere",
                bad=False,
            )
        else:
            yield Finding(
                f"{file} looks for libraries in {folder} (RPATH), which is not in the image",
                "it cannot be loaded, unless the libraries are found elsewhere",
                "rebuild it for the place where it is, with $ORIGIN, or set LD_LIBRARY_PATH in `environment`",
            )
