"""For the tests that need a real hub: which versions, and what is told of a hub when a test fails."""

from typing import Any

import pytest

from tests.realhub import RealHub

VERSIONS = [pytest.param(name, marks=pytest.mark.needs(name), id=name) for name in ("hub6", "hub5")]
on_both = pytest.mark.parametrize("hub", VERSIONS, indirect=True)
"""For tests of what may depend on JupyterHub's version; the others run with the newest alone."""


class Hubs:
    """The hubs of a test session, one for each version, started when they are first needed."""

    def __init__(self) -> None:
        self._hubs: dict[Any, RealHub] = {}

    def get(self, key: Any, make: Any) -> RealHub:
        """A hub that runs; `make()` makes it the first time."""
        if key not in self._hubs:
            self._hubs[key] = make()  # known before it is started: what a failed start leaves is ended, too
        hub = self._hubs[key]
        if hub.process is None or hub.process.poll() is not None:
            hub.start()
        hub.mark_log()
        return hub

    def close(self) -> None:
        """End them all."""
        for hub in self._hubs.values():
            hub.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """Imported by the conftest.py of such tests: a failure shows what the test's hubs logged."""
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, RealHub):
                # what the test itself asked while it waited tells nothing
                lines = [line for line in value.new_log().splitlines() if not ("200 GET" in line and "(tests@" in line)]
                report.sections.append((f"log of {name} during this test", "\n".join(lines)[-20000:]))
    return report
