"""What the spawn form costs with 2000 images in 100 families: rendering, size, and each keystroke of a search for
packages in a real browser.

    python benchmarks/form.py

The browser is Chromium: CHROMIUM=path, or /usr/bin/chromium.
"""

import gc
import gzip
import hashlib
import json
import logging
import multiprocessing
import os
import random
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from hepspawner.catalog.catalog import Catalog
from hepspawner.catalog.examine import Fact
from hepspawner.catalog.packages import Index
from hepspawner.choice import Offer, Who
from hepspawner.hub import form
from hepspawner.hub.pages import matching, standing
from hepspawner.site.load import load_site
from hepspawner.site.model import Site
from hepspawner.templates import Templates

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
QUERY = "torch 2.5"
PASSES = 7
_ROOT = "/cvmfs/unpacked.cern.ch/registry.hub.docker.com"
_GROUPS = ("ATLAS", "CMS", "LHCb", "ALICE", "Belle II", "DUNE", "sPHENIX", "EIC", "Key4hep", "Machine learning")
_OWNERS = ("yesw2000", "cmssw", "rootproject", "atlasml", "scailfin", "belle2", "eicweb", "key4hep")
_KINDS = ("ml-base", "ml-torch", "root", "analysis", "coffea", "pyhf", "madgraph", "delphes", "geant4", "fastjet")
_SYSTEMS = ("alma8", "alma9", "el9", "centos7", "ubuntu22.04", "ubuntu24.04")
_SOFTWARE = ("NumPy", "scikit-learn", "XGBoost", "uproot", "awkward", "PyTorch", "ROOT", "Geant4", "Delphes", "RooFit")
_PACKAGES = ("torch", "torchvision", "numpy", "root", "root_base", "uproot", "awkward", "python")

# Ten keystrokes a second, which is fast typing, so that what is drawn between them is not counted. The first figure of
# each is script and layout of the search in the page, the second what passes until the hub's answer on packages is
# drawn, too.
_TYPING = """async (texts) => {
  const query = document.getElementById("hep-query"), times = [], ask = window.fetch;
  let answered, asked = "";
  window.fetch = async (...given) => {
    const answer = await ask(...given), json = await answer.json();
    setTimeout(() => { document.body.getBoundingClientRect(); answered(); });
    return { ok: true, json: async () => json };
  };
  for (const text of texts) {
    await new Promise((done) => setTimeout(done, 100));
    const asks = text.trim().length > 2 && text.trim() !== asked;
    const answer = asks ? new Promise((done) => (answered = done)) : null;
    if (asks) asked = text.trim();
    const start = performance.now();
    query.value = text;
    query.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    const local = performance.now() - start;
    await answer;
    times.push([local, performance.now() - start]);
  }
  return times;
}"""


def fake_images(number: int, families: int, seed: int = 1) -> list[dict[str, Any]]:
    """Images as a wish list brings them: tags of repositories, each repository with a description of 60 characters."""
    dice = random.Random(seed)
    images = []
    for i in range(families):
        kind, owner = dice.choice(_KINDS), dice.choice(_OWNERS)
        shared = {
            "description": f"{', '.join(dice.sample(_SOFTWARE, 5))}: for analyses and teaching, small"[:60],
            "group": _GROUPS[i * len(_GROUPS) // families],
            "gpu": dice.choices(("optional", "none", "required"), (8, 1, 1))[0],
        }
        tags = [f"{system}-python3{minor}" for system in _SYSTEMS for minor in range(8, 14)]
        for tag in dice.sample(tags, number // families):
            name = f"{kind}-{i}:{tag}"
            images.append({"name": name, "path": f"{_ROOT}/{owner}/{name}", **shared})
    return images


def fake_offer(number: int, families: int) -> Offer:
    """What a site of two backends, one with GPUs, offers to a user."""
    common = {"type": "local", "cpus": {"default": 1, "max": 8}, "memory": {"default": "2G", "max": "16G"}}
    backends = {
        "htc": {**common, "title": "SDCC HTC", "runtime": {"default": "8h", "max": "4d"}},
        "ic": {**common, "title": "IC cluster", "gpus": {"a100": {"title": "NVIDIA A100", "max": 4}}},
    }
    return Offer(load_site({"images": fake_images(number, families), "backends": backends}), Who("ada"))


def fake_catalog(site: Site) -> Catalog:
    """A catalog that has seen all images, each in its place in DUCC's layout."""
    catalog = Catalog(logging.getLogger(), lambda work: work.close())  # type: ignore
    catalog.follow(site)
    for repository in catalog._repositories.values():
        for path, seen in repository.seen.items():
            digest = hashlib.sha256(path.encode()).hexdigest()
            real = f"/cvmfs/unpacked.cern.ch/.flat/{digest[:2]}/{digest}"
            seen.take(Fact("sandbox", real, digest, time.time() - 1e6, 3_000_000_000), time.time())
    return catalog


def fake_index(catalog: Catalog, packages: int = 300, seed: int = 1) -> Index:
    """Packages of all images: 300 each of 2000, images of a repository with few differences."""
    dice = random.Random(seed)
    names = [*_PACKAGES, *(f"{dice.choice('abcdefghijklmnop')}ackage-{i}" for i in range(2000))]
    versions = {name: [f"{dice.randint(0, 6)}.{dice.randint(0, 30)}.{i}" for i in range(6)] for name in names}
    versions["torch"] = ["2.4.1", "2.5.0", "2.5.1", "2.6.0"]
    index = Index()
    for root in catalog.directories():
        chosen = [*_PACKAGES, *dice.sample(names[len(_PACKAGES) :], packages - len(_PACKAGES))]
        index.add(root, [(name, dice.choice(versions[name])) for name in chosen])
    return index


def searched(index: Index, catalog: Catalog, query: str) -> dict[str, Any]:
    """What the hub answers to a search."""
    return {"images": matching(index, Offer(catalog.site or Site(), Who("ada")), query, catalog.roots())}


def render(catalog: Catalog, index: Index, templates: Templates, static: str) -> str:
    """The form, as a user sees it at first."""
    offer = Offer(catalog.site or Site(), Who("ada"))
    known = {name: catalog.state(one, offer.backends_of(one).values()) for name, one in offer.images.items()}
    context = form.form_context(
        offer, options={}, errors={}, notes={}, last="", failure=None, warnings=[], query_prefix="opt-",
        states={name: standing(state, index) for name, state in known.items()},
        urls={"static": static, "preview": "/preview", "spawn": "/spawn", "images": "/images"},
    )  # fmt: skip
    return form.render_form(templates, context)


def measure_server(catalog: Catalog, index: Index) -> tuple[float, str]:
    """Median milliseconds of 20 renderings, and the HTML."""
    templates = Templates([], logging.getLogger())
    times, html = [], ""
    for _ in range(21):
        start = time.perf_counter()
        html = render(catalog, index, templates, "/static")
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:]), html  # the first compiles the template


def measure_search(index: Index, catalog: Catalog) -> list[float]:
    """Milliseconds of the hub's answer to each keystroke, as JSON."""
    times = []
    for query in typed():
        start = time.perf_counter()
        json.dumps(searched(index, catalog, query))
        times.append(1000 * (time.perf_counter() - start))
    return times


def measure_memory(catalog: Catalog) -> float:
    """Megabytes that the packages take."""
    tracemalloc.start()
    index = fake_index(catalog)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / 1e6 if len(index) else 0


def typed() -> list[str]:
    """What stands in the field after each keystroke of typing the query and deleting it again."""
    forth = [QUERY[:i] for i in range(1, len(QUERY) + 1)]
    return [*forth, *reversed(forth[:-1]), ""]


@contextmanager
def serving(html: str, index: Index, catalog: Catalog) -> Iterator[int]:
    """The page, its assets and the search, as the hub serves them, in a process of its own; on which port."""
    static = Path(form.__file__).parent / "static"
    page = f"<!doctype html><html lang=en><meta charset=utf-8><body><form id=spawn_form method=post>{html}</form>"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # as Tornado has it

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            if url.path == "/":
                kind, body = "text/html", page.encode()
            elif "search" in query:
                kind, body = "application/json", json.dumps(searched(index, catalog, query["search"][0])).encode()
            elif url.path.startswith("/static/"):
                kind = "text/css" if url.path.endswith("css") else "text/javascript"
                body = (static / Path(url.path).name).read_bytes()
            else:
                kind, body = "application/json", b"{}"
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *given: Any) -> None:
            """Nothing to say."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever)
    process.start()
    yield server.server_port
    process.terminate()
    process.join()


def measure_browser(port: int) -> tuple[list[list[list[float]]], int]:
    """Milliseconds of each keystroke in several fresh pages, and how many images the whole query finds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS
        )
        passes = []
        for _ in range(PASSES):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"http://127.0.0.1:{port}/")
            page.wait_for_function("!document.getElementById('hep-search').hidden")
            page.focus("#hep-query")
            passes.append(page.evaluate(_TYPING, typed()))
            page.close()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        with page.expect_response(lambda response: "search=" in response.url):
            page.fill("#hep-query", QUERY)
        page.locator(".hep-match").first.wait_for()
        found = int(page.locator("#hep-found").inner_text().split()[0])
        browser.close()
    return passes, found


def main() -> None:
    """Measure, and print a table."""
    number, families = 2000, 100
    catalog = fake_catalog(fake_offer(number, families).site)
    index = fake_index(catalog)
    milliseconds, html = measure_server(catalog, index)
    answers = measure_search(index, catalog)
    with serving(html, index, catalog) as port:
        passes, found = measure_browser(port)
    size, small = len(html.encode()), len(gzip.compress(html.encode()))
    print(f"spawn form with {number} images in {families} families, 300 packages each")
    print(f"  rendering, median of 20     {milliseconds:7.1f} ms")
    print(f"  size                        {size / 1000:7.1f} kB")
    print(f"  size, gzip                  {small / 1000:7.1f} kB")
    print(f"  packages, in memory         {measure_memory(catalog):7.1f} MB")
    print(f"  hub's answer to a search    {statistics.median(answers):7.1f} ms   (worst {max(answers):.1f} ms)")
    for i, what in enumerate(("in the page", "with packages")):
        times = [statistics.median(one[i] for one in keystroke) for keystroke in zip(*passes, strict=True)]
        print(f"  keystroke {what:13}     {statistics.median(times):7.1f} ms   (script and layout, Chromium)")
        print(
            f"    worst                     {max(times):7.1f} ms   (of {len(times)}, each the median of {PASSES} pages)"
        )
    print(f"  (typing and deleting {QUERY!r}: {found} images found)")


if __name__ == "__main__":
    main()
