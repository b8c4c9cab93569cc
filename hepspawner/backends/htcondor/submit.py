"""From a session to a submit description. Pure: of what users say, nothing but words of known letters stands in it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...units import parse_size
from ..base import Tag
from ..tags import write_tag
from .config import HTCondorConfig

if TYPE_CHECKING:
    from ...session import Session

LAUNCHER = Path(__file__).parents[2] / "node" / "launcher.py"
SUBMIT = Path(__file__).with_name("submit.sh")
SUBMIT_SHARED = Path(__file__).with_name("submit_shared.sh")
FETCH = Path(__file__).with_name("fetch.sh")
HUB, TAG = "HEPSpawnerHub", "HEPSpawnerTag"
_PYTHON = "/usr/bin/python3"
_WORD = re.compile(r"[A-Za-z0-9_.:@~%-]*")
_MARGIN = 120
"""Seconds after the end of its time at which HTCondor ends a job that did not end by itself."""
_VACATE = 30
"""Seconds that a job has to end politely."""
_KEPT = 600
"""Seconds for which the schedd keeps a job that ended by itself, and what it wrote."""
_HELD = 3600


def description(config: HTCondorConfig, session: "Session", tag: Tag) -> str:
    """The description for condor_submit's standard input. It holds no secret: everybody may read what comes of it.

    Raises ValueError for what could be read as anything else.
    """
    lines = {
        **_universe(config, session),
        "transfer_executable": "false",
        **(_SHARED if config.shared_homes else _sent()),
        "output": "log",
        "error": "log",
        "notification": "never",
        "getenv": "false",
        "want_graceful_removal": "true",
        "job_max_vacate_time": str(_VACATE),
        "leave_in_queue": f"JobStatus == 4 && time() - EnteredCurrentStatus < {_KEPT}",
        # What is held by HTCondor itself the hub removes; where the hub is no more, the pool does.
        "periodic_remove": "JobStatus == 5 && HoldReasonCode =!= 1 && HoldReasonCode =!= 16 && "
        f"time() - EnteredCurrentStatus > {_HELD}",
        "batch_name": "jupyterhub",
        **_resources(config, session, tag.user),
        f"My.{HUB}": _text(tag.hub),
        f"My.{TAG}": _text(write_tag(tag)),
    }
    given = {name: value for name, value in lines.items() if value}
    given |= {f"My.{name}": value for name, value in config.attributes.items()}
    return "".join(f"{name} = {value}\n" for name, value in given.items()) + "queue\n"


# See submit_shared.sh.
_SHARED = {"input": "input", "should_transfer_files": "no"}


def _sent() -> dict[str, str]:
    return {
        # See submit.sh and fetch.sh.
        "input": "/proc/self/fd/3",
        "initialdir": "/proc/self/cwd",
        "transfer_input_files": _path(str(LAUNCHER)),
        "should_transfer_files": "yes",
        "when_to_transfer_output": "on_exit",
        # Its log, and of a vanilla job what it leaves in its sandbox, which is nothing but a core dump.
        "max_transfer_output_mb": "100",
    }


def _universe(config: HTCondorConfig, session: "Session") -> dict[str, str]:
    run = f"-I -S {LAUNCHER.name}"
    image = session.container_image if config.universe == "container" else None
    if image is None:
        # No transfer_output_files: then the starter waits a second before it asks the shadow to begin, which is as long
        # as that takes to notice that all files are sent. If it asks too early, it asks again after five (HTCondor 25).
        return {"universe": "vanilla", "executable": _line(config.python or _PYTHON), "arguments": run}
    return {
        "universe": "container",
        "container_image": _image(image),
        "transfer_container": "false",
        # Its sandbox may be the home, whatever is in that.
        "transfer_output_files": '""',
        # The image's own, wherever that is.
        "executable": "/usr/bin/env",
        "arguments": f"python3 {run}",
    }


def _resources(config: HTCondorConfig, session: "Session", user: str) -> dict[str, str]:
    gpu = config.gpus[session.gpu] if session.gpu else None
    disk, group = session.extra.get("disk"), session.extra.get("accounting_group")
    all_of = [part for part in (config.requirements, gpu and gpu.requirements) if part]
    own = {
        "request_cpus": session.cpus,
        "request_memory": session.memory and -(-session.memory // 2**20),  # in MiB
        "request_disk": disk and -(-parse_size(disk) // 2**10),  # in KiB
        "request_gpus": session.gpus if gpu else None,
        "require_gpus": gpu and gpu.require,
        "gpus_minimum_capability": gpu and gpu.capability,
        "gpus_minimum_memory": gpu and gpu.memory and -(-gpu.memory // 2**20),
        "requirements": " && ".join(f"({part})" for part in all_of),
        "rank": config.rank,
        "accounting_group": group and _word(str(group)),
        # Else it would be the account that the hub runs as.
        "accounting_group_user": group and config.token and _word(user),
        "allowed_execute_duration": session.runtime and session.runtime + _MARGIN,
    }
    return {name: str(value) for name, value in own.items() if value}


def _word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError(f"{value!r} cannot stand in a submit description")
    return value


def _text(value: str) -> str:
    """A ClassAd string. Its letters are such that none of HTCondor's several ways of quoting matters."""
    return f'"{_word(value)}"'


def _line(value: str) -> str:
    """The rest of a line, in which nothing is put in for ``$``, and that the next line does not continue. (For ``$$``
    something would be put in only when a machine is found, whatever is written here.)"""
    if not value.isprintable() or value.endswith("\\") or "$$" in value:
        raise ValueError(f"{value!r} cannot stand in a submit description")
    return value.replace("$", "$(DOLLAR)")


def _image(value: str) -> str:
    """The path of an image. HTCondor makes a ClassAd string of it without a look at what is in it."""
    if "\\" in value or not value.startswith("/"):
        raise ValueError(f"{value!r} cannot stand in a submit description")
    return _path(value)


def _path(value: str) -> str:
    """A path where HTCondor reads a list of them."""
    if "," in value or '"' in value or value != value.strip():
        raise ValueError(f"{value!r} cannot stand in a submit description")
    return _line(value)
