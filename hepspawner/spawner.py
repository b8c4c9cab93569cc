"""HEPSpawner: JupyterHub's contract, and nothing else."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import replace
from typing import Any

from jupyterhub.spawner import Spawner
from jupyterhub.utils import maybe_future, wait_for_http_server
from sqlalchemy import inspect
from tornado import web
from traitlets import Any as AnyTrait
from traitlets import Dict, List, Unicode, Union, default

from .backends.base import BackendError
from .choice import Choice, ChoiceError, Offer, Who, from_form
from .hub import pages, sessions, tokens
from .hub.adoption import adopt
from .hub.locate import locate
from .hub.pages import NO_SITE, Refused
from .hub.run import Failure, Run
from .hub.runtime import Runtime, install
from .session import GRACE, summary

_NODE_TIMEOUT = 600
_QUEUE_TIMEOUT = 86400


class HEPSpawner(Spawner):
    """Runs servers from the images of a site, through its backends."""

    site = Union(
        [Unicode(), Dict()],
        config=True,
        help="The site: the path of its file, or a dict of the same shape. See docs/site.md.",
    )
    template_paths = List(Unicode(), config=True, help="Directories whose templates replace ours, one by one.")

    # JupyterHub 5 takes any JSON, and loses the server where that is no dict: it is refused with other wrong options.
    user_options = AnyTrait({}, help="What the user asked for.")

    http_timeout: int  # JupyterHub's
    run: Run | None = None
    """The attempt to run the server that is under way."""
    last_image: Mapping[str, str] = {}
    """What the server ran from, now or the last time: see `Run.image`."""
    _claim: str | None = None
    """See `Session.claim`."""
    _accepted: Mapping[str, Any] = {}
    """The last options that were allowed."""
    _chosen: tuple[Choice, Offer] | None = None
    """What `_accepted` means, and on what offer: each look at the user costs a query to JupyterHub's database."""
    _problem: Refused | None = None
    """What is wrong with the options of the start under way."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._begun = asyncio.Event()
        """Set once there is a run."""

    @default("env_keep")
    def _keep_nothing(self) -> list[str]:
        # The hub's PATH, PYTHONPATH and the like mean nothing in an image.
        return []

    @default("start_timeout")
    def _start_timeout(self) -> int:
        # The first start of an image that is not in the node's CVMFS cache takes minutes; a queue may take a day, and
        # so may a pull, which goes on as long as it is heard of.
        return _QUEUE_TIMEOUT if self.user and (self.runtime.queues or self.runtime.pulls) else _NODE_TIMEOUT

    @default("options_form")
    def _options_form(self) -> Any:
        return pages.draw_form

    @default("options_from_form")
    def _options_from_form_default(self) -> Any:
        return self._read_form

    @default("apply_user_options")
    def _apply_user_options_default(self) -> Any:
        return type(self)._apply_options

    @property
    def runtime(self) -> Runtime:
        """What is one for all spawners of the hub."""
        settings = self.user.settings
        return settings.get("hepspawner") or install(settings["app"], type(self))

    @property
    def who(self) -> Who:
        """The user, as the site's rules see him."""
        return Who(self.user.name, frozenset(group.name for group in self.user.groups), bool(self.user.admin))

    def offer(self) -> Offer:
        """What the site offers to the user. Raises Refused where there is no site."""
        offer = self.runtime.offer(self.who)
        if offer is None:
            raise Refused(503, NO_SITE)
        return offer

    # --- the choice, whatever door it comes through

    def _read_form(self, form_data: dict[str, list[Any]]) -> dict[str, Any]:
        """JupyterHub's options_from_form: what a form says, checked. Raises Refused."""
        # Sites' own page templates may send JupyterHub's token along.
        options = from_form({name: values for name, values in form_data.items() if name != "_xsrf"})
        pages.submitted.set(options)
        pages.submitted_to.set(self.name)
        return self._choose(options)[0].options()

    def _choose(self, options: Any) -> tuple[Choice, Offer]:
        offer = self.offer()
        try:
            return offer.choose(options), offer
        except ChoiceError as error:
            pages.refused.set(error.errors)
            raise Refused(400, Failure(str(error))) from None

    def _apply_options(self, options: Any) -> None:
        """JupyterHub's apply_user_options, for every way of starting a server: form, API, none.

        It logs a traceback for every error in it, so the error waits for `run_pre_spawn_hook`, which comes next.
        """
        try:
            self._chosen = self._choose(options)
            self.user_options = self._accepted = self._chosen[0].options()
            self._problem = None
        except Refused as problem:
            self.user_options, self._problem = {}, problem
        # JupyterHub stored them unseen: a choice that failed must not be the next one's preset. It commits soon.
        self.orm_spawner.user_options = dict(self._accepted)

    def run_pre_spawn_hook(self) -> Any:
        """Refuse a choice that is not allowed before any hook sees it."""
        if self._problem is not None:
            raise self._problem
        return super().run_pre_spawn_hook()

    # --- start, poll, stop

    def start(self) -> Awaitable[str]:
        """Start a server and wait until it answers. Raises Refused with what the user should know.

        This much is done before JupyterHub's commit, which follows the call: the session must be known to the hub that
        comes after this one before there is a job.
        """
        runtime = self.runtime
        runtime.failures.pop((self.user.name, self.name), None)
        if self.internal_ssl:
            raise Refused(503, Failure("HEPSpawner does not support JupyterHub's internal_ssl."))
        chosen, self._chosen = self._chosen, None
        if chosen is None or self.user_options != self._accepted:  # a hook may have changed them
            chosen = self._choose(self.user_options)
        choice, offer = chosen
        tag = runtime.tag(self.user.name, self.name, secrets.token_hex(16))
        run = Run(tag, choice.backend, summary(choice, offer.site), choice.options())
        run.choice, run.site = choice, offer.site
        run.submitting = True
        self._take_on(run)
        self.orm_spawner.state = self.get_state()
        return self._start(run, choice, offer)

    async def _start(self, run: Run, choice: Choice, offer: Offer) -> str:
        try:
            await self._locate(run, choice, offer)
            await self._submit(run, choice)
            await self._until_settled(run)
        except asyncio.CancelledError:
            reached = next((stage.title for stage in run.stages() if stage.state == "now"), "its start")
            self._fail(Failure(f"The server was not up in time, or was stopped before; it got as far as: {reached}."))
            raise
        except BackendError as error:
            run.end(Failure(f"The server could not be started: {error}."), 1)
            raise pages.failed(self, 503, run.ended or NO_SITE) from None
        if run.ended:
            raise pages.failed(self, 422, run.ended)
        return str(run.url)

    async def _until_settled(self, run: Run) -> None:
        """JupyterHub's start_timeout may allow for a day in a queue: the node has its own time from the claim on."""
        await run.settled("claimed")
        text = f"The server was not up {_NODE_TIMEOUT // 60} min after its node had begun with it."
        advice = "Start it again; if that fails too, tell the site's admins."
        while not (run.url or run.ended):
            heard = run.pulling  # a pull may take longer, as long as it goes on
            try:
                await asyncio.wait_for(run.settled(), _NODE_TIMEOUT)
            except asyncio.TimeoutError:
                if run.pulling == heard:
                    self.runtime.watch.give_up(run, Failure(text, advice))

    async def _locate(self, run: Run, choice: Choice, offer: Offer) -> None:
        ran = [(one.state or {}).get("last_image") or {} for one in self.user.orm_spawners.values()]
        found = await locate(self.runtime, choice, offer, self.cmd[0], ran)
        run.places, run.also = found.places, found.also
        if found.pinned:
            run.runs_from(found.pinned, found.places[0])
        self._store(state=self.get_state())  # a hub that comes after this one must not look where the tag led later
        if found.problem:
            run.end(Failure(found.problem), 1)
            raise Refused(400, Failure(found.problem))

    async def _submit(self, run: Run, choice: Choice) -> None:
        runtime, backend = self.runtime, self.runtime.backend(run.backend)
        expires = time.time() + self.start_timeout
        job_input = {
            "session": run.tag.session,
            "ticket": runtime.tickets.issue(run.tag.session, expires),
            "expires": int(expires),
            "hub": sessions.api_url(self, run.backend),
            "address": backend.address,
            "scratch": backend.config.scratch,
        }
        session = sessions.session_of(self, choice, {}, run)  # the environment goes by claim
        session = replace(session, claim=self._claim)
        if backend.needs_auth_state:
            session = replace(session, auth_state=await self.user.get_auth_state() or {})
        try:
            run.job = await backend.submit(session, run.tag, job_input)
        finally:
            run.submitting = False
        run.mark("submitted")

    def _take_on(self, run: Run) -> None:
        self.run = run
        self._begun.set()
        run.answer_claim = self._answer_claim
        run.base_url = self.server.base_url if self.server else ""
        run.secrets = lambda: [self.api_token] if self.api_token else []
        run.on_end = self._ended
        run.on_news = self._save_run
        self.runtime.add(run)

    def _save_run(self) -> None:
        """Save what runs, and how far it is: a hub that comes after this one, and the user's next start, must know."""
        self.last_image = (self.run.image if self.run else {}) or self.last_image
        self._store(state=self.get_state())

    def _ended(self) -> None:
        run = self.run
        if run is None or run.ended is None:
            return
        self.log.warning("%s: %s", self._log_name, run.ended.text)
        self._fail(run.ended)
        if self._poll_callback is not None:  # JupyterHub is past the start: it must not wait for the next poll
            self.runtime.spawn(self.poll_and_notify())

    def _fail(self, failure: Failure) -> None:
        """Have the form tell it when the user comes back."""
        self.runtime.failures[self.user.name, self.name] = failure

    async def delete_forever(self) -> None:
        """The user or the named server is deleted: whoever has the name next must not be told of this one's failure."""
        self.runtime.failures.pop((self.user.name, self.name), None)
        for backend in list(self.runtime.backends.values()):
            try:
                await backend.delete_forever(self.user.name, self.name)
            except BackendError as error:
                self.log.warning("%s: %s", self._log_name, error)

    async def poll(self) -> int | None:
        """None while the server runs, and where it cannot be told."""
        run = self.run
        if run is None:
            return 0
        if not run.ended and not run.submitting:
            try:
                await self._look(run)
            except BackendError as error:
                self.log.warning("%s: cannot tell whether the server runs: %s", self._log_name, error)
        return run.exit_code if run.ended else None

    async def _look(self, run: Run) -> None:
        backend = self.runtime.backend(run.backend)
        if run.job is None:
            run.job = await backend.find(run.tag)
        if run.job is None:
            run.end(Failure("The server was not started: the hub was restarted before."), 1)
            return
        run.mark("submitted")
        status = await backend.status(run.job, run.tag)
        await self.runtime.watch.conclude(run, status)

    async def stop(self, now: bool = False) -> None:
        """End the server and everything that it started."""
        run = self.run
        if run is None:
            return
        run.on_end, run.stopping = lambda: None, True
        backend = self.runtime.backend(run.backend)
        run.job = run.job or await backend.find(run.tag)
        if run.job is not None:
            # A server that was not started yet has nothing to save; its launcher may not even hear the polite request.
            started = run.url or "starting" in run.times
            await backend.cancel(run.job, run.tag, GRACE if started and not now else 0)
        run.end(Failure("The server was stopped."))

    async def get_url(self) -> str:
        """Where the server is. A hub that was restarted asks: it waits for one that was starting when the last died.

        JupyterHub would wait for an answer of one that died since, too, and meanwhile not hear of its end.
        """
        run = self.run
        if run is not None:
            if run.url is None:
                await adopt(self, run)
            if run.url:
                await run.unless_ended(wait_for_http_server(f"{run.url}{self.server.base_url}api", self.http_timeout))
            if run.ended:
                self.http_timeout = 1  # JupyterHub asks the server next: there is none to wait for
        return run.url if run and run.url else str(self.server.url)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What happens, for the waiting page."""
        yield {"progress": 5, "message": "Checking the choice"}
        await self._begun.wait()
        if self.run is not None:
            async for event in pages.progress_events(self, self.run):
                yield event

    # --- what the server is started with

    async def _answer_claim(self, host: str, port: int) -> dict[str, Any]:
        """The answer to a claim, made now: a job may have waited for hours. Raises HTTPError, told to the launcher."""
        run = self.run
        if run is None:
            raise web.HTTPError(403, "the session is over")
        if not self.api_token:  # the hub was restarted: the hooks' settings are lost, too
            await self.run_auth_state_hook(await self.user.get_auth_state())
            await self.apply_group_overrides()
            await maybe_future(self.run_pre_spawn_hook())
            await tokens.renew(self)
        if run.choice is None:
            await self.runtime.catalog.settled()  # its image may be one that a source finds
        try:
            if run.choice is None:
                run.choice, offer = self._choose(run.options)
                run.site = offer.site
            choice = run.choice
        except Refused as problem:
            if self.runtime.catalog.incomplete:
                raise web.HTTPError(503, "a list of images cannot be read yet: the image may be on it") from None
            raise web.HTTPError(409, f"the site does not allow this any more: {problem.log_message}") from None
        self._store(state=self.get_state())
        return sessions.session_of(self, choice, sessions.hub_environment(self, run.backend), run).order()

    def preview(self, options: Any) -> str:
        """What a start with these options would run. Raises ChoiceError, Refused."""
        choice = self.offer().choose(options)
        environment = sessions.masked(sessions.hub_environment(self, choice.backend))
        session = sessions.session_of(self, choice, environment, None)
        return self.runtime.backend(choice.backend).preview(session)

    # --- what survives the hub

    def _store(self, **columns: Any) -> None:
        """Save now what JupyterHub would save only after start()."""
        for name, value in columns.items():
            setattr(self.orm_spawner, name, value)
        inspect(self.orm_spawner).session.commit()

    def get_state(self) -> dict[str, Any]:
        """What is saved of a server. Never a token."""
        last: dict[str, Any] = {"last_image": self.last_image} if self.last_image else {}
        if self._claim:
            last["pvc_name"] = self._claim
        return {**super().get_state(), **last, **(self.run.state() if self.run else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a server that the last hub left."""
        super().load_state(state)
        self._accepted = self.orm_spawner.user_options or {}
        self.last_image = state.get("last_image") or {}
        self._claim = state.get("pvc_name")  # as KubeSpawner calls it: it remembers a home, whatever its template says
        if "session" in state and self.orm_spawner.server is not None:
            self._take_on(Run.restore(state, self.runtime.tag(self.user.name, self.name, state["session"])))

    def clear_state(self) -> None:
        """Forget the server; JupyterHub calls it after the end and before a start."""
        if self.run is not None and not self.api_token:
            tokens.revoke(self)  # after a restart JupyterHub does not know what it should revoke
        super().clear_state()
        run, self.run = self.run, None
        self._begun.clear()
        if run is not None:
            self.runtime.drop(run)
