"""A server that was not up yet when the last hub died.

JupyterHub calls what it does then a check. Its pages tell nothing of one, its API cannot stop it, and it sees to the
routes when every check is over, which for a job in a queue may be tomorrow. So this makes it a start like any other.
"""

import asyncio
from typing import TYPE_CHECKING

from . import pages
from .run import Run

if TYPE_CHECKING:
    from ..spawner import HEPSpawner


async def adopt(spawner: "HEPSpawner", run: Run) -> None:
    """Waits until the run is up or over. Called in JupyterHub's check of the server."""
    spawner._spawn_pending = True
    start = spawner._spawn_future = asyncio.ensure_future(_as_a_start(spawner, run))
    start.add_done_callback(lambda done: done.cancelled() or done.exception())
    await run.settled()
    if not spawner._check_pending:
        # It was stopped. JupyterHub would go on with a server that is no more, and would not be pleased by an error.
        await asyncio.Event().wait()


async def _as_a_start(spawner: "HEPSpawner", run: Run) -> None:
    """What JupyterHub's pages wait for, and what its API cancels to stop a start."""
    try:
        await run.settled()
        while spawner._check_pending:  # noqa: ASYNC110 (JupyterHub tells nobody when it is done with it)
            await asyncio.sleep(0.05)
        if run.ended:
            raise pages.failed(spawner, 422, run.ended)
        await spawner.user.settings["app"].proxy.add_user(spawner.user, spawner.name)
        spawner._spawn_future = None
    except asyncio.CancelledError:
        spawner._check_pending = False
        spawner._spawn_future = None
        raise
    finally:
        spawner._spawn_pending = False
