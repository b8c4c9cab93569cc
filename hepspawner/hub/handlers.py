"""What the hub answers: claim and report to launchers; images and preview to users; the form's page and its assets."""

import asyncio
import json
import sys
import time
from dataclasses import asdict
from logging import LoggerAdapter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jupyterhub.apihandlers import APIHandler
from jupyterhub.handlers.pages import HomeHandler, SpawnHandler, SpawnPendingHandler
from jupyterhub.utils import url_path_join
from tornado import web

from ..backends.base import Room
from ..catalog.layouts import layout_of, outlive_words
from ..catalog.state import described
from ..choice import ChoiceError, Offer
from ..site.model import Image
from ..templates import asset_hash
from .images import missing_words, take_report, told
from .pages import Refused, matching, progress_event, standing
from .run import ClaimError, Run, clean_log, explain
from .runtime import Runtime
from .tickets import TicketError

STATIC = str(Path(__file__).parent / "static")
_MAX_BODY = 64 * 1024
_AT_ONCE = 50
"""Images that are described without a pause for others: a site has thousands."""


def handlers() -> list[tuple[Any, ...]]:
    """Our routes, below the hub's prefix. They come before JupyterHub's own."""
    return [
        (r"/api/hepspawner/claim", ClaimHandler),
        (r"/api/hepspawner/report", ReportHandler),
        (r"/api/hepspawner/images", ImagesHandler),
        (r"/api/hepspawner/images/([^/]+)", ImagesHandler),
        (r"/api/hepspawner/servers", ServersHandler),
        (r"/api/hepspawner/images/([^/]+)/packages", PackagesHandler),
        (r"/api/hepspawner/availability", AvailabilityHandler),
        (r"/api/hepspawner/preview", PreviewHandler),
        (r"/hepspawner/static/(.*)", StaticHandler, {"path": STATIC}),
        (r"/home", HomePage),
        (r"/spawn", FormHandler),
        (r"/spawn/([^/]+)", FormHandler),
        (r"/spawn/([^/]+)/([^/]+)", FormHandler),
        (r"/spawn-pending/([^/]+)", WaitHandler),
        (r"/spawn-pending/([^/]+)/([^/]+)", WaitHandler),
    ]


class FormHandler(SpawnHandler):
    """JupyterHub's spawn page, but options in its address fill in the form instead of starting a server.

    A link that starts a server by itself would start it for whoever is made to follow it.
    """

    hepspawner_preset: dict[str, Any] | None = None

    @property
    def log(self) -> Any:
        return _WithoutRefusals(super().log, {})

    async def prepare(self) -> None:
        await super().prepare()
        # Who must sign in first comes back by this address.
        if self.request.method == "GET" and self.current_user is not None:
            query = self.request.query_arguments
            self.hepspawner_preset = preset_of_query(query)
            # The rest of the page must not see them: JupyterHub would start the server, and carry them on to it.
            rest = {name: values for name, values in query.items() if name in ("next", "display_name")}
            self.request.query_arguments = self.request.arguments = rest
            self.request.query = urlencode(rest, doseq=True)
            self.request.uri = self.request.path + ("?" + self.request.query if rest else "")


class WaitHandler(SpawnPendingHandler):
    """JupyterHub's waiting page, which says from the first where the start is, and is kept up to date by wait.js, or
    without scripts by loading it again, where the stream of events does not get through."""

    def render_template(self, name: str, sync: bool = False, **ns: Any) -> Any:
        # pages of errors cannot wait for one
        return super().render_template(name, sync, **ns) if sync else self._with_stages(name, **ns)

    async def _with_stages(self, name: str, **ns: Any) -> str:
        html: str = await super().render_template(name, **ns)
        run = getattr(ns.get("spawner"), "run", None)
        if name != "spawn_pending.html" or run is None:
            return html
        script = url_path_join(self.hub.base_url, "hepspawner/static/wait.js")
        head = '<noscript><meta http-equiv="refresh" content="5"></noscript>'
        head += f'<script src="{script}?v={asset_hash()}"></script>'
        now = progress_event(ns["spawner"], run)
        message = f'<div id="progress-message" data-progress="{now["progress"]}">{now["html_message"]}</div>'
        html = html.replace('<p id="progress-message"></p>', message, 1)
        return html.replace("</head>", head + "</head>", 1)


class HomePage(HomeHandler):
    """JupyterHub's page of a user's servers, which also says what each runs from, and whether a newer one is there."""

    def render_template(self, name: str, sync: bool = False, **ns: Any) -> Any:
        return super().render_template(name, sync, **ns) if sync else self._with_servers(name, **ns)

    async def _with_servers(self, name: str, **ns: Any) -> str:
        html: str = await super().render_template(name, **ns)
        user = ns.get("user")
        servers = running(self.settings["hepspawner"], user) if name == "home.html" and user is not None else []
        if not servers:
            return html
        box = self.settings["hepspawner"].templates.render(
            "home.html", servers=servers, static=url_path_join(self.hub.base_url, "hepspawner/static")
        )
        head, main, rest = html.rpartition("</main>") if "</main>" in html else html.rpartition("</body>")
        return f"{head}{box}{main}{rest}"


class _WithoutRefusals(LoggerAdapter[Any]):
    """JupyterHub logs each form that is refused with a traceback: a user's mistake is nothing wrong with the hub."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        error = sys.exc_info()[1]
        if kwargs.get("exc_info") and (error is None or isinstance(error, Refused)):
            return f"{msg}: {error.log_message}" if error else msg, {**kwargs, "exc_info": None}
        return msg, kwargs


def preset_of_query(query: dict[str, list[bytes]]) -> dict[str, Any]:
    """The options in an address: those with the prefix ``opt-``, or, as in JupyterHub 5, all where none has it."""
    texts = {name: values[-1].decode("utf-8", "replace") for name, values in query.items()}
    prefixed = {name[4:]: value for name, value in texts.items() if name.startswith("opt-")}
    return prefixed or {name: value for name, value in texts.items() if name not in _NOT_OPTIONS}


_NOT_OPTIONS = ("next", "display_name", "_xsrf")


class StaticHandler(web.StaticFileHandler):
    """The form's assets. Their addresses carry a hash, so browsers may keep them."""

    def get_cache_time(self, path: str, modified: Any, mime_type: str) -> int:
        return 86400 * 30 if "v" in self.request.arguments else 0


class HepHandler(APIHandler):
    """Base of our API."""

    @property
    def runtime(self) -> Runtime:
        runtime: Runtime = self.settings["hepspawner"]
        return runtime

    def body(self) -> dict[str, Any]:
        """The request's JSON object. What is not one is refused without being logged: it may hold a ticket."""
        if len(self.request.body) > _MAX_BODY:
            raise web.HTTPError(413, f"a body of more than {_MAX_BODY} bytes")
        try:
            data = json.loads(self.request.body)
        except (ValueError, RecursionError):
            data = None
        if not isinstance(data, dict):
            raise web.HTTPError(400, "the body must be a JSON object")
        return data


class LauncherHandler(HepHandler):
    """Base of what launchers call: no user is signed in, the ticket or the key says who it is."""

    def prepare(self) -> None:
        """Nobody to sign in, and no cookie to check."""

    def check_xsrf_cookie(self) -> None:
        """A launcher has no cookies."""

    def refuse(self, status: int, why: Exception | str) -> web.HTTPError:
        self.log.warning("hepspawner: refused %s from %s: %s", self.request.path, self.request.remote_ip, why)
        return web.HTTPError(status, str(why))


class ClaimHandler(LauncherHandler):
    """A launcher hands in its ticket, and gets what the server is started with."""

    async def post(self) -> None:
        data = self.body()
        try:
            run = self.runtime.runs.get(self.runtime.tickets.redeem(data.get("ticket")))
            if run is None or run.answer_claim is None:
                raise ClaimError("the session is over")
            host, port = address(data)
            run.claim(data.get("claimant"))
        except (TicketError, ClaimError) as error:
            raise self.refuse(403, error) from None
        answer = await run.answer_claim(host, port)
        answer["key"] = self.runtime.tickets.report_key(run.tag.session)
        self.write(json.dumps(answer))


class ReportHandler(LauncherHandler):
    """A launcher tells that its server starts, answers, or ended."""

    async def post(self) -> None:
        data = self.body()
        try:
            session = self.runtime.tickets.check_key(data.get("session"), data.get("key"))
            run = self.runtime.runs.get(session)
            if run is None or run.ended:
                raise web.HTTPError(410, "the session is over")
            self._take(run, data)
        except (TicketError, ClaimError) as error:
            raise self.refuse(403, error) from None
        self.write("{}")

    def _take(self, run: Run, data: dict[str, Any]) -> None:
        event = data.get("event")
        if event in ("starting", "ready", "exit"):
            found = take_report(self.runtime, run, data)
        if event == "starting":
            notes = data.get("notes")
            run.notes = clean_log(notes, run.secrets())[:10]
            run.mark("starting")
        elif event == "pulling":
            run.pulls("; ".join(clean_log([data.get("text")], run.secrets())))
        elif event == "ready":
            host, port = address(data)
            run.ready(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        elif event == "exit":
            code = data.get("code")
            failure = explain(data, clean_log(data.get("log"), run.secrets()))
            if data.get("reason") == "missing":
                failure = missing_words(run, failure, found)
            code = code if isinstance(code, int) and 0 <= code < 256 else 1
            if data.get("reason") in ("stopped", "exited") and code > 128 and not run.stopping:
                self.runtime.spawn(self.runtime.watch.ended_by_others(run, failure, code))
            else:
                run.end(failure, code)
        else:
            raise ClaimError("malformed report")


def address(data: dict[str, Any]) -> tuple[str, int]:
    """Host and port of a claim or report. Raises ClaimError."""
    host, port = data.get("host"), data.get("port")
    plain = (
        isinstance(host, str)
        and 0 < len(host) < 256
        and host.isascii()
        and all(c.isalnum() or c in "-.:_" for c in host)
    )
    if not plain or isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ClaimError("malformed address")
    return str(host), port


class UserHandler(HepHandler):
    """Base of what users call."""

    def spawner(self, server: str = "") -> Any:
        """The spawner of the signed-in user's server."""
        user = self.current_user
        if user is None:
            raise web.HTTPError(403, "Missing or invalid credentials.")
        # Not by needs_scope, which wants the scope for all users.
        if not hasattr(user, "spawners") or not self.has_scope(f"read:users:name!user={user.name}"):
            raise web.HTTPError(403, "only for users")
        return user.spawners[server] if server in user.orm_spawners else user.spawner

    def image(self, offer: Offer, name: str) -> Image:
        """An image that the user may use, by its name."""
        image = offer.images.get(name)
        if image is None:
            raise web.HTTPError(404, f"there is no image {name[:100]!r} that you may use")
        return image


class ImagesHandler(UserHandler):
    """The images that the signed-in user may use, or one of them; with `search`, the names of those that match."""

    async def get(self, name: str | None = None) -> None:
        offer = self.spawner().offer()
        query = self.get_query_argument("search", None)
        if name is not None:
            self.write(json.dumps(self._model(offer, self.image(offer, name))))
        elif query is not None:
            found = matching(self.runtime.packages.index, offer, query, self.runtime.catalog.roots())
            self.write(json.dumps({"images": found}))
        else:
            self.write('{"images": [')
            for i, image in enumerate(offer.images.values()):
                self.write((", " if i else "") + json.dumps(self._model(offer, image)))
                if i % _AT_ONCE == _AT_ONCE - 1:
                    await asyncio.sleep(0)
            self.write("]}")

    def _model(self, offer: Offer, image: Image) -> dict[str, Any]:
        state = self.runtime.state(image, offer)
        layout = layout_of(state.path, state.real)
        return {
            "name": image.name,
            "title": image.label,
            "description": image.description,
            "group": image.group,
            "tags": image.tags,
            "gpu": image.gpu,
            "places": image.places,
            "oci": image.oci,
            "backends": list(offer.backends_of(image)),
            **described(state),
            "grace": layout.grace,
            "warning": outlive_words(layout, None),
            "about": standing(state, self.runtime.packages.index).about,
        }


class PackagesHandler(UserHandler):
    """All packages of an image that the signed-in user may use."""

    def get(self, name: str) -> None:
        offer = self.spawner().offer()
        root = self.runtime.catalog.roots().get(self.image(offer, name).name, "")
        packages = self.runtime.packages.index.packages(root)
        self.write(json.dumps({"packages": [{"name": package, "version": version} for package, version in packages]}))


class ServersHandler(UserHandler):
    """What the signed-in user's running servers run from."""

    def get(self) -> None:
        self.write(json.dumps({"servers": running(self.runtime, self.spawner().user)}))


def running(runtime: Runtime, user: Any) -> list[dict[str, Any]]:
    """What a user's running servers run from, as far as that is known."""
    return [
        {"server": name, **told(runtime, spawner.run.image)}
        for name, spawner in user.spawners.items()
        if getattr(spawner, "run", None) is not None and spawner.run.image and not spawner.run.ended
    ]


class AvailabilityHandler(UserHandler):
    """What is free for the signed-in user, on each backend that can tell, and how old that is."""

    def get(self) -> None:
        spawner = self.spawner()
        offer = spawner.offer()
        backends = {}
        for name in offer.backends:
            backend = self.runtime.backend(name)
            known = backend.availability(offer.who)
            if known is not None:
                backends[name] = {
                    "title": backend.title,
                    "at": known.at,
                    "age": round(max(time.time() - known.at, 0), 1),
                    "problem": known.problem,
                    "rooms": [_room(room) for room in known.rooms],
                }
        self.write(json.dumps({"backends": backends}))


def _room(room: Room) -> dict[str, Any]:
    return {
        "name": room.name,
        "title": room.title,
        "up": room.up,
        "cores": room.cores and asdict(room.cores),
        "waiting": room.waiting,
        "gpus": {
            kind: {**asdict(amount), "waiting": room.gpus_waiting.get(kind)} for kind, amount in room.gpus.items()
        },
    }


class PreviewHandler(UserHandler):
    """What a start would run, without starting it."""

    async def post(self) -> None:
        data = self.body()
        server = data.get("server")
        spawner = self.spawner(server if isinstance(server, str) else "")
        try:
            text = spawner.preview(data.get("options"))
        except ChoiceError as error:
            self.set_status(400)
            self.write(json.dumps({"status": 400, "message": str(error), "errors": error.errors}))
            return
        self.write(json.dumps({"text": text}))
