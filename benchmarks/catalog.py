"""The catalog: 2000 images of a wish list over a tree of DUCC's layout; and with everything hung, the form.

Run as it is it measures on a local file system, without a peer: nothing else has a catalog. The figures of a hub that
hangs need root or fusermount3.
"""

import asyncio
import gc
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from hepspawner.catalog import repository
from hepspawner.catalog.catalog import Catalog
from hepspawner.catalog.packages import Index
from hepspawner.choice import Offer, Who
from hepspawner.hub import form
from hepspawner.hub.handlers import ImagesHandler
from hepspawner.hub.pages import standing
from hepspawner.site.load import load_site
from hepspawner.templates import Templates
from tests.cvmfs import Repository
from tests.rigs.cvmfs import trees

NUMBER = 2000
LIMITS = {
    "first": 2.0, "refresh": 0.5, "calls": NUMBER, "block": 10.0, "compose": 10.0, "describe": 10.0, "memory": 50.0,
    "form": 100.0,
}  # fmt: skip

_COUNTING = """
import os, runpy, sys
calls = 0
for name in ("stat", "lstat", "readlink", "access", "scandir", "listdir", "open"):
    def counting(*args, real=getattr(os, name), **more):
        global calls
        calls += str(args[0]).startswith({place!r})
        return real(*args, **more)
    setattr(os, name, counting)
end = os._exit
def told(code):
    with open({place!r} + "/calls", "w") as file:
        file.write(str(calls))
    end(code)
os._exit = told
runpy.run_path({child!r}, run_name="__main__")
"""


def site_of(root: Path) -> Any:
    """A site with one wish list."""
    listed = {"from": "wishlist", "file": f"{root}/recipe.yaml", "repository": str(root), "title": "{name} {tag}"}
    return load_site({"images": [listed, {"name": "host", "prefix": "/usr"}], "backends": {"b": {"type": "local"}}})


class Blocks:
    """How long single callbacks hold the loop, in milliseconds."""

    def __init__(self) -> None:
        self.worst, self.whose = 0.0, ""
        kind: Any = asyncio.events.Handle
        plain = kind._run

        def timed(handle: Any) -> None:
            start = time.thread_time()
            plain(handle)
            spent = 1000 * (time.thread_time() - start)
            if spent > self.worst:
                self.worst, self.whose = spent, repr(handle)[:300]

        kind._run = timed


async def measure(root: Path) -> dict[str, float]:
    """Seconds of the first state of all, and of a refresh; its calls of the file system; the longest block."""
    blocks, tasks = Blocks(), []

    def spawn(work: Any) -> Any:
        tasks.append(asyncio.ensure_future(work))
        return tasks[-1]

    catalog = Catalog(logging.getLogger(), spawn)
    gc.collect()
    start = time.perf_counter()
    catalog.follow(site_of(root))
    await catalog.stock()
    first = time.perf_counter() - start
    backends = list(catalog.site.backends.values()) if catalog.site else []
    before = blocks.worst, blocks.whose
    present = sum(catalog.state(image, backends).kind == "sandbox" for image in catalog.images)
    assert present == NUMBER, present
    await asyncio.sleep(0)
    blocks.worst, blocks.whose = before  # that was ours
    (one,) = (one for one in catalog._repositories.values() if len(one.seen) >= NUMBER)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        await one.look()
        times.append(time.perf_counter() - start)
    counting = root / "counting.py"
    counting.write_text(_COUNTING.format(place=str(root), child=repository.probe._CHILD[1]))
    repository.probe._CHILD[1] = str(counting)
    await one.look()
    found = blocks.worst, blocks.whose
    composing = []
    for _ in range(5):
        start = time.thread_time()
        catalog._compose()  # as where a source lists other images
        composing.append(1000 * (time.thread_time() - start))
    await asyncio.sleep(0)
    blocks.worst = 0.0
    await described(catalog)
    describing = blocks.worst
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(f"  (longest block: {found[1]})", file=sys.stderr)
    calls = int((root / "calls").read_text())
    return {
        "first": first, "refresh": statistics.median(times), "calls": calls, "block": found[0],
        "compose": max(composing), "describe": describing,
    }  # fmt: skip


async def described(catalog: Catalog) -> None:
    """Have all images described as the API does it, by its handler."""
    assert catalog.site is not None
    offer = Offer(catalog.site, Who("ada"))
    runtime = SimpleNamespace(
        state=lambda image, offer: catalog.state(image, offer.backends_of(image).values()),
        packages=SimpleNamespace(index=Index()),
    )
    told: list[str] = []
    asked = SimpleNamespace(
        runtime=runtime, spawner=lambda: SimpleNamespace(offer=lambda: offer), write=told.append,
        get_query_argument=lambda name, default: default,
    )  # fmt: skip
    asked._model = partial(ImagesHandler._model, asked)
    await ImagesHandler.get(asked)  # type: ignore
    assert len(json.loads("".join(told))["images"]) == len(offer.images)


async def memory(root: Path) -> float:
    """Megabytes that a catalog holds."""
    tasks: list[Any] = []
    tracemalloc.start()
    site = site_of(root)
    before = tracemalloc.get_traced_memory()[0]
    catalog = Catalog(logging.getLogger(), lambda work: tasks.append(asyncio.ensure_future(work)) or tasks[-1])
    catalog.follow(site)
    await catalog.stock()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return held / 1e6


async def hung_form() -> float:
    """Milliseconds of a form, median of 20, with 2000 images all of whose repository hangs."""
    tasks: list[Any] = []
    repository.SILENCE = 2.0
    with Repository() as cvmfs:
        cvmfs.is_sick("hang")
        images = [{"name": f"image-{i}", "path": f"{cvmfs.root}/ghcr.io/a/image:{i}"} for i in range(NUMBER)]
        site = load_site({"images": images, "backends": {"b": {"type": "local"}}})
        catalog = Catalog(logging.getLogger(), lambda work: tasks.append(asyncio.ensure_future(work)) or tasks[-1])
        catalog.follow(site)
        templates = Templates([], logging.getLogger())
        times = []
        for i in range(21):
            if i == 10:
                await catalog.stock()  # from here on it is known that nothing answers
            start = time.perf_counter()
            offer = Offer(catalog.site or site, Who("ada"))
            known = {n: catalog.state(one, offer.backends_of(one).values()) for n, one in offer.images.items()}
            states = {n: standing(state, Index()) for n, state in known.items()}
            context = form.form_context(
                offer, options={}, errors={}, notes={}, last="", failure=None, states=states,
                warnings=catalog.problems, urls={"static": "/s", "preview": "/p", "spawn": "/x"}, query_prefix="opt-",
            )  # fmt: skip
            form.render_form(templates, context)
            times.append(1000 * (time.perf_counter() - start))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return statistics.median(times[1:])  # the first compiles the template


def main() -> int:
    """Measure, print a table, and say by the exit status whether all is as promised."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        references = [f"ghcr.io/group{i % 100}/image{i % 400}:alma9-python3{i % 13}-{i}" for i in range(NUMBER)]
        for reference in references:
            trees.ducc(root, reference)
        trees.wishlist(root, references)
        found = asyncio.run(measure(root))
        repository.probe._CHILD[1] = str(Path(repository.probe._examine.__file__ or ""))
        found["memory"] = asyncio.run(memory(root))
    words = {
        "first": "first state of all, s",
        "refresh": "refresh, median of 5, s",
        "calls": "calls of the file system in a refresh",
        "block": "longest block of the loop, ms of CPU",
        "compose": "the catalog put together anew, slowest of 5, ms",
        "describe": "longest block while all are described, ms",
        "memory": "memory of the catalog, MB",
        "form": "form with everything hung, median of 20, ms",
    }
    try:
        found["form"] = asyncio.run(hung_form())
    except (OSError, RuntimeError) as error:
        print(f"no FUSE here: {error}")
    print(f"catalog of {NUMBER} images from a wish list, layout of DUCC ({os.cpu_count()} cores)")
    bad = False
    for name, value in found.items():
        over = value > LIMITS[name]
        bad |= over
        print(f"  {words[name]:45} {value:9.2f}   at most {LIMITS[name]:g}{'  NOT AS PROMISED' if over else ''}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
