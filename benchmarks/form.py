"""What the spawn form costs with 1000 images: rendering, size, and each keystroke of a search in a real browser.

    python benchmarks/form.py

The browser is Chromium: CHROMIUM=path, or /usr/bin/chromium.
"""

import gzip
import logging
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from hepspawner.choice import Offer, Who
from hepspawner.hub import form
from hepspawner.site.load import load_site
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
QUERY = "root 6.30"
PASSES = 7
_ROOT = "/cvmfs/unpacked.cern.ch/registry.hub.docker.com"
_GROUPS = ("ATLAS", "CMS", "LHCb", "ALICE", "Belle II", "DUNE", "sPHENIX", "EIC", "Key4hep", "Machine learning")
_OWNERS = ("yesw2000", "cmssw", "rootproject", "atlasml", "scailfin", "belle2", "eicweb", "key4hep")
_KINDS = ("ml-base", "ml-torch", "root", "analysis", "coffea", "pyhf", "madgraph", "delphes", "geant4", "fastjet")
_SOFTWARE = ("NumPy", "scikit-learn", "XGBoost", "uproot", "awkward", "PyTorch", "ROOT", "Geant4", "Delphes", "RooFit")

# One task for each keystroke, so that the frames between them are not counted.
_TYPING = """async (texts) => {
  const query = document.getElementById("hep-query"), times = [];
  for (const text of texts) {
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    const start = performance.now();
    query.value = text;
    query.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times;
}"""


def fake_images(number: int, seed: int = 1) -> list[dict[str, Any]]:
    """Images as a site would list them: titles of about 25 characters, descriptions of 60, 2 or 3 tags."""
    dice = random.Random(seed)
    images = []
    for i in range(number):
        kind, system = dice.choice(_KINDS), dice.choice(("alma9", "el9", "ubuntu24", "alma8"))
        python = f"python3{dice.randint(8, 13)}"
        version = f"{dice.choice((5, 6))}.{dice.randint(20, 36)}"
        software = dice.sample(_SOFTWARE, 5)
        tag = f"{kind}:{system}-{python}-{i}"
        images.append(
            {
                "name": f"{kind}-{system}-{i}",
                "title": f"{kind.capitalize()} {version} on {system}, {i}"[:25],
                "description": f"{', '.join(software)}: for analyses and teaching, small"[:60],
                "group": _GROUPS[i * len(_GROUPS) // number],
                "tags": [system, python, version][: dice.randint(2, 3)],
                "path": f"{_ROOT}/{dice.choice(_OWNERS)}/{tag}",
                "gpu": dice.choices(("optional", "none", "required"), (8, 1, 1))[0],
            }
        )
    return images


def fake_offer(number: int) -> Offer:
    """What a site of two backends, one with GPUs, offers to a user."""
    common = {"type": "local", "cpus": {"default": 1, "max": 8}, "memory": {"default": "2G", "max": "16G"}}
    backends = {
        "htc": {**common, "title": "SDCC HTC", "runtime": {"default": "8h", "max": "4d"}},
        "ic": {**common, "title": "IC cluster", "gpus": {"a100": {"title": "NVIDIA A100", "max": 4}}},
    }
    return Offer(load_site({"images": fake_images(number), "backends": backends}), Who("ada"))


def render(offer: Offer, templates: Templates, static: str) -> str:
    """The form, as a user sees it at first."""
    context = form.form_context(
        offer, options={}, errors={}, notes={}, last="", failure=None, states={}, warnings=[],
        urls={"static": static, "preview": "/preview", "spawn": "/spawn"}, query_prefix="opt-",
    )  # fmt: skip
    return form.render_form(templates, context)


def measure_server(number: int) -> tuple[float, str]:
    """Median milliseconds of 20 renderings by a fresh Offer each, and the HTML."""
    static = str(Path(form.__file__).parent / "static")
    site, templates = fake_offer(number).site, Templates([], logging.getLogger())
    times, html = [], ""
    for _ in range(21):
        start = time.perf_counter()
        html = render(Offer(site, Who("ada")), templates, f"file://{static}")
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:]), html  # the first compiles the template


def measure_browser(html: str) -> tuple[list[list[float]], int]:
    """Milliseconds of each keystroke, script and layout, in several fresh pages, and what the whole query finds."""
    from playwright.sync_api import sync_playwright

    page_html = f"<!doctype html><html lang=en><meta charset=utf-8><body><form id=spawn_form method=post>{html}</form>"
    typed = [QUERY[:i] for i in range(1, len(QUERY) + 1)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        file = Path(folder) / "form.html"
        file.write_text(page_html)
        browser = playwright.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=FLAGS
        )
        passes = []
        for _ in range(PASSES):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"file://{file}")
            page.wait_for_function("!document.getElementById('hep-search').hidden")
            page.focus("#hep-query")
            passes.append(page.evaluate(_TYPING, [*typed, *reversed(typed[:-1]), ""]))
            page.fill("#hep-query", QUERY)
            found = page.locator("#hep-list li:not([hidden])").count()
            page.close()
        browser.close()
    return passes, found


def main() -> None:
    """Measure, and print a table."""
    number = 1000
    milliseconds, html = measure_server(number)
    passes, found = measure_browser(html)
    times = [statistics.median(one) for one in zip(*passes, strict=True)]
    size, small = len(html.encode()), len(gzip.compress(html.encode()))
    print(f"spawn form with {number} images")
    print(f"  rendering, median of 20     {milliseconds:7.1f} ms")
    print(f"  size                        {size / 1000:7.1f} kB")
    print(f"  size, gzip                  {small / 1000:7.1f} kB")
    print(f"  keystroke, median           {statistics.median(times):7.1f} ms   (script and layout, Chromium)")
    print(f"  keystroke, worst            {max(times):7.1f} ms   (of {len(times)}, each the median of {PASSES} pages)")
    print(f"  keystroke, slowest of all   {max(map(max, passes)):7.1f} ms")
    print(f"  (typing and deleting {QUERY!r}: {found} images found)")


if __name__ == "__main__":
    main()
