"""What every test may use: the engines that tests/rigs/setup.sh set up.

A test that cannot run without some of them says so, `@pytest.mark.needs("apptainer", "image")`. Where one is missing,
the test is left out and the end of the run names the engine, why it is missing and how many tests that cost.
With HEPSPAWNER_ENGINES=all a missing engine is a failure.

A test that needs an engine, and so waits for real daemons, has a second try when it fails, for those have moods on a
busy machine; the end of the run shows what went wrong in the first one.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

RIGS = Path(
    os.environ.get("HEPSPAWNER_RIGS")
    or (
        "/opt/hepspawner-rigs"
        if os.getuid() == 0
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hepspawner-rigs"
    )
)


def read_engines() -> tuple[dict[str, Any], dict[str, str]]:
    """What there is, and why the rest is missing."""
    try:
        engines = json.loads((RIGS / "engines.json").read_text())
    except (OSError, ValueError) as e:
        return {}, {"engines.json": f"{e}: run tests/rigs/setup.sh"}
    reasons = engines.pop("missing", {})
    return engines, {name: reasons.get(name, "no reason given") for name, value in engines.items() if not value}


ENGINES, MISSING = read_engines()
LEFT_OUT: dict[str, int] = {}


@pytest.fixture(scope="session")
def engines() -> dict[str, Any]:
    """What is in engines.json: paths by name, and users. Only for tests that say what they need."""
    return ENGINES


def wanted(item: pytest.Item) -> list[str]:
    return list(dict.fromkeys(name for mark in item.iter_markers("needs") for name in mark.args))


def lacking(item: pytest.Item) -> list[str]:
    return [name for name in wanted(item) if not ENGINES.get(name)]


@pytest.hookimpl(trylast=True)  # after -k, -m and --deselect
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = []
    for item in items:
        if wanted(item):
            item.add_marker(pytest.mark.flaky(reruns=1))
        names = lacking(item)
        for name in names:
            LEFT_OUT[name] = LEFT_OUT.get(name, 0) + 1
        if names:
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile` the tests of a file stay in one worker, as they share what it starts; and so do all that
    need Kubernetes, of which there is one on a machine."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "kubernetes" if "kubernetes" in nodeid else str(super()._split_scope(nodeid))

    return Scheduling(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_testnodedown(node: Any) -> None:
    """What a worker left out."""
    for name, count in getattr(node, "workeroutput", {}).get("left_out", {}).items():
        LEFT_OUT[name] = max(LEFT_OUT.get(name, 0), count)  # each worker collects everything


def all_demanded() -> bool:
    return os.environ.get("HEPSPAWNER_ENGINES") == "all"


def not_tested() -> dict[str, str]:
    """Why, by name: the engines that cost tests, and where all are demanded, every one that is missing."""
    names = [*LEFT_OUT, *(MISSING if all_demanded() else [])]
    unknown = MISSING.get("engines.json", "nothing in engines.json has this name")
    return {name: MISSING.get(name, unknown) for name in sorted(set(names))}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = LEFT_OUT
        return
    fine = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    if all_demanded() and not_tested() and exitstatus in fine:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif LEFT_OUT and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"SECOND TRY: {report.nodeid}", sep="=", yellow=True, bold=True)
        terminalreporter.write_line(report.longreprtext)
        for title, text in report.sections:  # such as the hub's log
            terminalreporter.section(title, sep="-")
            terminalreporter.write_line(text)
    if not not_tested():
        return
    failure = all_demanded()
    terminalreporter.section(
        "NOT TESTED: engines that are missing", sep="=", red=failure, yellow=not failure, bold=True
    )
    for name, reason in not_tested().items():
        count = LEFT_OUT.get(name, 0)
        tests = "1 test" if count == 1 else f"{count} tests"
        terminalreporter.write_line(f"NOT TESTED: {name} ({tests} left out): {reason}", red=failure, yellow=not failure)
    if failure:
        terminalreporter.write_line("HEPSPAWNER_ENGINES=all: this is a failure", red=True, bold=True)
