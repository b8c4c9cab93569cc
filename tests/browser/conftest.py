"""One Chromium for these tests, a real hub for each module, and pages that reach nothing but this machine."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests import hubs
from tests.browser.site import make_site
from tests.browser.visit import Form, Visits, enter
from tests.conformance.rig import LocalRig
from tests.realhub import RealHub

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def chromium(engines: dict[str, Any]) -> Iterator[Browser]:
    """The browser. As long as Playwright runs, no test of another module could have an event loop."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=engines["chromium"], args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def rig(engines: dict[str, Any]) -> Iterator[LocalRig]:
    """The machine itself, with images of a tiny server."""
    one = LocalRig(engines)
    yield one
    one.close()


@pytest.fixture(scope="module")
def site(rig: LocalRig) -> dict[str, Any]:
    """The site of a module's tests."""
    return make_site(rig)


@pytest.fixture(scope="module")
def running_hub(site: dict[str, Any], engines: dict[str, Any]) -> Iterator[RealHub]:
    """A hub of JupyterHub 6 for a module."""
    one = RealHub(engines["hub6"], site).start()
    yield one
    one.stop()


@pytest.fixture
def hub(running_hub: RealHub, rig: LocalRig, site: dict[str, Any]) -> Iterator[RealHub]:
    """The module's hub; after each test no server runs and nobody is known any more."""
    running_hub.mark_log()
    yield running_hub
    rig.release()
    rig.open_gate()
    running_hub.stop_servers()
    for model in running_hub.api("GET", "/users").json():
        if not model["admin"]:
            assert running_hub.api("DELETE", f"/users/{model['name']}").ok
    if running_hub.site != site:
        running_hub.change_site(site)


@pytest.fixture
def visits(chromium: Browser, hub: RealHub) -> Iterator[Visits]:
    """Pages. None of them may reach another machine, and no script may fail."""
    all_of_them = Visits(chromium)
    yield all_of_them
    all_of_them.close()
    assert all_of_them.elsewhere() == []
    assert all_of_them.troubles == []


@pytest.fixture
def page(visits: Visits) -> Page:
    """The page of somebody who was never here."""
    return visits.new()


@pytest.fixture
def owner(rig: LocalRig) -> str:
    """Somebody who has an account, and may have servers."""
    return rig.users[0]


@pytest.fixture
def form_of(page: Page, hub: RealHub) -> Callable[[str], Form]:
    """The form of somebody, who is signed in."""

    def make(user: str) -> Form:
        enter(page, hub, user)
        return Form(page, hub, user)

    return make


@pytest.fixture
def form(form_of: Callable[[str], Form]) -> Form:
    """The form of somebody new: opened, for tests that start nothing."""
    return form_of(f"somebody{next(_numbers)}").open()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    report = yield from hubs.pytest_runtest_makereport(item, call)
    visits = getattr(item, "funcargs", {}).get("visits")
    if report.failed and report.when == "call" and visits is not None:
        report.sections.append(("pages of this test", f"pictures, texts and traces: {visits.save()}"))
    return report
