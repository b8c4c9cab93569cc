"""What people do in a browser: pages that are watched, and the form as they see it."""

import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.realhub import RealHub

PATIENCE = 15_000
"""Milliseconds that a page waits for what has to happen."""
expect.set_options(timeout=PATIENCE)


class Visits:
    """The pages of one test, each with cookies of its own, and all that they asked for."""

    def __init__(self, chromium: Browser):
        self.chromium = chromium
        self.contexts: list[BrowserContext] = []
        self.addresses: list[str] = []
        self.troubles: list[str] = []
        """Errors in scripts, and dialogs that somebody's script opened."""

    def new(self, **options: Any) -> Page:
        """A page of somebody who was never here; `options` as of Playwright's contexts."""
        options.setdefault("viewport", {"width": 1280, "height": 900})
        context = self.chromium.new_context(**options)
        context.tracing.start(snapshots=True)
        context.set_default_timeout(PATIENCE)
        self.contexts.append(context)
        context.on("request", lambda request: self.addresses.append(request.url))
        context.on("weberror", lambda error: self.troubles.append(f"{error.page and error.page.url}: {error.error}"))
        context.on("dialog", self._dialog)
        page = context.new_page()
        page.on("websocket", lambda socket: self.addresses.append(socket.url))
        return page

    def _dialog(self, dialog: Any) -> None:
        if dialog.type != "beforeunload":
            self.troubles.append(f"a dialog: {dialog.message}")
        dialog.accept()

    def elsewhere(self) -> list[str]:
        """What was asked of others than this machine."""
        return [url for url in self.addresses if urlsplit(url).hostname not in ("127.0.0.1", None)]

    def save(self) -> Path:
        """Pictures, texts and traces of all pages, to be looked at after a failure; where they are."""
        place = Path(tempfile.mkdtemp(prefix="hepspawner-browser-"))
        for number, context in enumerate(self.contexts):
            for page in context.pages:
                page.screenshot(path=place / f"page{number}.png", full_page=True)
                (place / f"page{number}.html").write_text(f"<!-- {page.url} -->\n{page.content()}")
            context.tracing.stop(path=place / f"trace{number}.zip")
        (place / "log.txt").write_text("\n".join([*self.troubles, *self.addresses]))
        return place

    def close(self) -> None:
        """End them all."""
        for context in self.contexts:
            context.close()


def sign_in(page: Page, user: str) -> None:
    """Fill in JupyterHub's sign-in page, which is shown."""
    page.get_by_label("Username").fill(user)
    page.get_by_label("Password").fill("any")
    page.get_by_role("button", name="Sign in").click()


def enter(page: Page, hub: RealHub, user: str) -> None:
    """Have somebody signed in, without looking at the page for that."""
    cookies = hub.browser(user).http.cookies
    given = [{"name": one.name, "value": one.value or "", "domain": "127.0.0.1", "path": one.path} for one in cookies]
    page.context.add_cookies(given)  # type: ignore[arg-type]


class Form:
    """The form of a server on a page."""

    def __init__(self, page: Page, hub: RealHub, user: str):
        self.page, self.hub, self.user = page, hub, user

    def open(self, server: str = "", **options: str) -> "Form":
        """Go there; `options` stand in the address."""
        query = "&".join(f"opt-{name}={quote(value, safe='')}" for name, value in options.items())
        self.page.goto(self.url(server) + (f"?{query}" if query else ""))
        expect(self.start).to_be_visible()
        return self

    def url(self, server: str = "") -> str:
        """The address of the form of a server."""
        return f"{self.hub.url}/hub/spawn/{self.user}{'/' + server if server else ''}"

    @property
    def start(self) -> Locator:
        return self.page.get_by_role("button", name="Start", exact=True)

    @property
    def again(self) -> Locator:
        return self.page.get_by_role("button", name="Start again")

    @property
    def partition(self) -> Locator:
        return self.page.get_by_label("Partition")

    @property
    def gpu(self) -> Locator:
        """The switch."""
        return self.page.get_by_role("switch", name="GPU")

    @property
    def kind(self) -> Locator:
        return self.page.get_by_label("Kind of GPU")

    @property
    def count(self) -> Locator:
        return self.page.get_by_label("Number of GPUs")

    @property
    def notes(self) -> Locator:
        return self.page.locator("#hep-notes")

    @property
    def summary(self) -> Locator:
        return self.page.locator("#hep-summary")

    @property
    def search(self) -> Locator:
        return self.page.get_by_role("searchbox", name="Search images")

    @property
    def cards(self) -> Locator:
        """The images in sight."""
        return self.page.locator("#hep-list li").filter(visible=True)

    def image(self, title: str) -> Locator:
        """The radio button of an image."""
        return self.page.get_by_role("radio", name=title, exact=True)

    def pick(self, title: str) -> None:
        """Click on an image's card, at its far end."""
        self.cards.filter(has=self.image(title)).click(position={"x": 200, "y": 8})
        expect(self.image(title)).to_be_checked()

    def backend(self, title: str) -> Locator:
        """The radio button of a backend."""
        return self.page.get_by_role("radio", name=title)

    def field(self, label: str) -> Locator:
        """A field by its label."""
        return self.page.get_by_role("textbox", name=label, exact=True)

    def slider(self, name: str) -> Locator:
        """The slider beside a field."""
        return self.page.locator(f".hep-row:has([name={name}]) [type=range]")


def server_url(hub: RealHub, user: str, server: str = "") -> str:
    """Where a server is, as a pattern for `wait_for_url`."""
    return f"{hub.url}/user/{user}/{server + '/' if server else ''}**"


def waiting_url(hub: RealHub, user: str, server: str = "") -> str:
    """Where one waits for it."""
    return f"{hub.url}/hub/spawn-pending/{user}{'/' + server if server else ''}**"
