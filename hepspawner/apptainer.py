"""A session's command and environment through Apptainer. Pure: nothing is run here.

What Apptainer does with all this was tried on 1.4; the comments say which of its habits a line answers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from .site.model import Mount

IMAGE = "@IMAGE@"
"""For this the launcher puts in the image's real path: a link that is moved later is nothing to the server."""
SCRATCH_TARGET = "/tmp"
"""Where the session's scratch directory is seen in the container."""

_FLAGS = {"nvidia": "--nv", "amd": "--rocm"}
# Apptainer refuses APPTAINERENV_HOME: the home is set by --home, and mounted by itself.
_NOT_PASSED = {"HOME"}


def command(
    reference: str | None,
    argv: Sequence[str],
    *,
    mounts: Sequence[Mount],
    vendor: str | None,
    apptainer: str = "apptainer",
) -> list[Any]:
    """The command that runs `argv` in an image: a reference (docker://…), else what the launcher found at its places.

    `vendor` is whose GPU was asked for, None where none was. Items that are mappings stand for mounts that are taken
    only where the node has the source (see docs/protocol.md). ``@SCRATCH@`` is put in by the launcher.
    """
    words: list[Any] = [apptainer, "exec", "--cleanenv"]
    # The host's /tmp is shared by all users of the node, and the working directory may be anywhere.
    words += ["--no-mount", "tmp,cwd", *_mount("@SCRATCH@", SCRATCH_TARGET)]
    if reference is None:
        words.append(_where_scripts_lack_the_last(IMAGE))
    for mount in mounts:
        option = _mount(mount.source, mount.target, mount.read_only)
        words += [{"when": mount.source, "argv": option, "note": True}] if mount.optional else option
    if vendor:
        words.append(_FLAGS[vendor])
    return [*words, reference or IMAGE, *argv]


FILES = {"99-base.sh": ""}
"""Files that the launcher puts into the scratch directory."""


def _where_scripts_lack_the_last(image: str) -> dict[str, Any]:
    # A sandbox with scripts in /.singularity.d/env but without 99-base.sh silently loses every APPTAINERENV_ variable:
    # Apptainer brings them in right after that one. An empty one in its place mends it.
    scripts = f"{image}/.singularity.d/env"
    option = _mount(f"@SCRATCH@/{next(iter(FILES))}", "/.singularity.d/env/99-base.sh")
    return {"when": scripts, "unless": f"{scripts}/99-base.sh", "argv": option}


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of the apptainer process that gives the server exactly these variables.

    Those that are named ``APPTAINER_…`` are for Apptainer itself.

    They travel in the environment, not in options: a command line can be read by everybody on the node, and ``--env``
    splits values at commas.
    """
    own = {name: value for name, value in variables.items() if name.startswith("APPTAINER_")}
    passed = {f"APPTAINERENV_{name}": value for name, value in variables.items() if name not in {*own, *_NOT_PASSED}}
    # Without it a shell in the container evaluates the values: $(…) runs, and a trailing backslash loses variables.
    return {"HOME": "@HOME@", "PATH": HOST_PATH, **own, "APPTAINER_NO_EVAL": "1", **passed}


PULLING = {"APPTAINER_CACHEDIR": "@HOME@/.apptainer/cache", "APPTAINER_TMPDIR": "@SCRATCH@"}
"""For an image that Apptainer pulls: it is kept in the user's home, and unpacked where nothing is left behind."""

PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""What the node says of proxies, which a pull needs."""


def inherited(names: Sequence[str]) -> dict[str, str]:
    """For variables that the node sets: the node's name → the name that brings it into the container."""
    return {name: f"APPTAINERENV_{name}" for name in names}


HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _mount(source: str, target: str, read_only: bool = False) -> list[str]:
    # --mount takes paths with a colon, as images' tags have on CVMFS; --bind would split there.
    fields = ["type=bind", f"source={source}", f"destination={target}"] + (["ro"] if read_only else [])
    return ["--mount", ",".join(map(_csv, fields))]


def _csv(text: str) -> str:
    # Apptainer reads the value as a line of CSV.
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"') else text
