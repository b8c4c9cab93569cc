"""Draws the pictures of docs/images: `make screenshots`. They show what users see, of a site as one might be."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from playwright.sync_api import Page, sync_playwright

from tests.browser.conftest import FLAGS
from tests.browser.visit import Form, Visits, enter, waiting_url
from tests.conformance.rig import LocalRig
from tests.conftest import RIGS
from tests.realhub import RealHub, eventually

OUT = Path(__file__).parents[2] / "docs" / "images"
UNPACKED = "unpacked.cern.ch/registry.hub.docker.com"
PACKAGES = {
    "": "numpy 1.26.4\nscipy 1.14.1\nxgboost 2.1.3\n",
    "ml-base-alma9-311": "numpy 2.1.3\nonnx 1.17.0\nscipy 1.14.1\ntorch 2.5.1\ntorchvision 0.20.1\nxgboost 2.1.3\n",
    "ml-torch": "cuda-toolkit 12.4.1\nlightning 2.4.0\nnumpy 2.1.3\nonnx 1.17.0\ntorch 2.5.1\ntorchvision 0.20.1\n",
    "root": "root 6.36.2\nroot_base 6.36.2\nnumpy 2.1.3\n",
}
FULL_DISK = """\
echo "[I ServerApp] jupyterlab | extension was successfully linked."
echo "[I ServerApp] Writing Jupyter server cookie secret to $HOME/.local/share/jupyter/runtime/jupyter_cookie_secret"
echo "Traceback (most recent call last):"
echo '  File "/opt/conda/lib/python3.11/site-packages/jupyter_core/utils/__init__.py", line 99, in wrapped'
echo "OSError: [Errno 28] No space left on device: '$HOME/.local/share/jupyter/runtime'"
exit 1
"""


def site_of(rig: LocalRig, cvmfs: Path, run: list[str] | None = None) -> dict[str, Any]:
    """The site; `run`: what all images run instead of themselves, which are only directories here."""
    images: list[dict[str, Any]] = [
        *(
            {
                "name": f"ml-base-{system}-{python.replace('.', '')}",
                "family": "ATLAS ML base",
                "description": "NumPy, scikit-learn, XGBoost, uproot, plotting",
                "group": "ATLAS",
                "tags": [system, f"python {python}"],
                "path": f"{cvmfs}/{UNPACKED}/atlas/ml-base:{system}-python{python.replace('.', '')}",
            }
            for system, python in (("alma9", "3.11"), ("alma9", "3.9"), ("centos7", "3.9"), ("centos7", "3.8"))
        ),
        {
            "name": "ml-torch",
            "title": "ML with PyTorch",
            "description": "PyTorch, Lightning and ONNX for CUDA 12",
            "group": "ATLAS",
            "tags": ["alma9", "cuda 12.4"],
            "gpu": "required",
            "path": f"{cvmfs}/{UNPACKED}/atlas/ml-pytorch:alma9-cuda124",
        },
        {
            "name": "root",
            "title": "ROOT",
            "description": "ROOT 6.36 with PyROOT and RDataFrame",
            "group": "ATLAS",
            "tags": ["alma9"],
            "gpu": "none",
            "path": f"{cvmfs}/{UNPACKED}/atlas/root:6.36.02-alma9",
        },
        {
            "name": "datalake",
            "title": "Data lake",
            "description": "Rucio client and its JupyterLab extension",
            "group": "ESCAPE",
            "tags": ["rucio"],
            "gpu": "none",
            "path": f"{cvmfs}/{UNPACKED}/escape/datalake-singleuser:2.3",
        },
        {
            "name": "gammapy",
            "title": "Gammapy",
            "description": "Gamma-ray astronomy",
            "group": "ESCAPE",
            "tags": ["astropy", "python 3.12"],
            "path": f"{cvmfs}/{UNPACKED}/escape/gammapy:1.3",
        },
        {
            "name": "lcg",
            "title": "LCG 108",
            "description": "The software stack of CERN's SWAN, as it is on CVMFS",
            "group": "Software stacks",
            "tags": ["gcc14"],
            "prefix": f"{cvmfs}/sft.cern.ch/lcg/views/LCG_108/x86_64-el9-gcc14-opt",
        },
        {
            "name": "key4hep",
            "title": "Key4hep",
            "description": "Software of future colliders",
            "group": "Software stacks",
            "prefix": f"{cvmfs}/sw.hsf.org/key4hep/releases/2026-08-01",
        },
        {
            "name": "conda",
            "title": "Scientific Python",
            "description": "For courses and quick looks",
            "group": "Software stacks",
            "tags": ["python 3.13"],
            "prefix": f"{cvmfs}/sw.example.org/conda/2026a",
        },
    ]
    for image in images:
        below = Path(image.get("path") or image["prefix"]) / ("usr" if "path" in image else "bin")
        below.mkdir(parents=True, exist_ok=True)
        if "path" in image:
            (below.parent / "list-of-pkgs-inside.txt").write_text(PACKAGES.get(image["name"], PACKAGES[""]))
        if run:
            image.pop("path", None)
            image |= {"prefix": str(rig.directory / "prefix"), "command": run}
    return {
        "images": images,
        "custom_images": {"allow": [f"{cvmfs}/unpacked.cern.ch/*", "/home/{username}/*"]},
        "backends": {
            "batch": {
                **rig.part(),
                "title": "Batch farm",
                "cpus": {"default": 4, "max": 32},
                "memory": {"default": "8G", "max": "128G"},
                "runtime": {"default": "8h", "max": "4d"},
                "gpus": {"a100": {"title": "NVIDIA A100", "max": 4}, "l40s": {"title": "NVIDIA L40S", "max": 2}},
            },
            "node": {
                **rig.part(),
                "title": "Interactive nodes",
                "cpus": {"default": 1, "max": 8},
                "memory": {"default": "2G", "max": "16G"},
                "runtime": {"default": "4h", "max": "1d"},
                "gpus": {"t4": {"title": "NVIDIA T4", "max": 1}},
            },
        },
    }


def slurm_site_of(rig: LocalRig, cvmfs: Path) -> dict[str, Any]:
    """The same site with a Slurm cluster. There is none where this is drawn: its commands fail."""
    site = site_of(rig, cvmfs)
    cluster = {
        "type": "slurm",
        "title": "Tier-3 cluster",
        "commands": {"environment": {"SLURM_CONF": "/there/is/none"}},
        "gpus": {"a100": {"title": "NVIDIA A100", "max": 4}, "l40s": {"title": "NVIDIA L40S", "max": 2}},
        "partitions": {
            "standard": {
                "title": "Standard",
                "cpus": {"default": 2, "max": 64},
                "memory": {"default": "4G", "max": "256G"},
                "runtime": {"default": "8h", "max": "4d"},
            },
            "gpu": {
                "title": "GPU",
                "cpus": {"default": 8, "max": 32},
                "memory": {"default": "32G", "max": "256G"},
                "runtime": {"default": "8h", "max": "2d"},
                "gpus": {"a100": 4, "l40s": 2},
            },
            "short": {
                "title": "Short",
                "cpus": {"default": 1, "max": 8},
                "memory": {"default": "2G", "max": "16G"},
                "runtime": {"default": "1h", "max": "2h"},
            },
        },
        "accounts": ["atlas", "teaching"],
    }
    site["backends"] = {"cluster": cluster, "node": site["backends"]["node"]}
    return site


def room(name: str, cores: tuple[int, int], waiting: int, **gpus: tuple[int, int]) -> dict[str, Any]:
    """What is free in a partition, as the hub tells it."""
    amounts = {kind: {"free": free, "total": total, "waiting": 0} for kind, (free, total) in gpus.items()}
    free = {"free": cores[0], "total": cores[1]}
    return {"name": name.lower(), "title": name, "up": True, "cores": free, "waiting": waiting, "gpus": amounts}


ROOMS = [
    room("Standard", (412, 2048), 17),
    room("GPU", (180, 512), 2, a100=(3, 16), l40s=(6, 8)),
    room("Short", (96, 128), 0),
]


def save(page: Page, name: str, cvmfs: Path) -> None:
    """A picture. There is no CVMFS where it is drawn: its directories stand somewhere else, which is not to be seen."""
    page.evaluate(
        """([from, to]) => {
          const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          while (walk.nextNode()) walk.currentNode.data = walk.currentNode.data.replaceAll(from, to);
          document.activeElement.blur();
        }""",
        [str(cvmfs), "/cvmfs"],
    )
    page.screenshot(path=OUT / f"{name}.png", animations="disabled")
    print(f"{name}.png: {(OUT / f'{name}.png').stat().st_size // 1000} kB")


def ask(form: Form) -> None:
    """What the pictures' user wants."""
    form.pick("ATLAS ML base, alma9 · Python 3.11")
    form.gpu.check()
    form.field("Memory").fill("32G")


def draw(visits: Visits, hub: RealHub, rig: LocalRig, cvmfs: Path) -> None:
    """All pictures."""
    user = rig.users[0]

    def form(**options: Any) -> Form:
        page = visits.new(**options)
        enter(page, hub, user)
        return Form(page, hub, user).open()

    wide: dict[str, Any] = {"viewport": {"width": 1180, "height": 860}}
    for name, options in {
        "form": wide,
        "form-dark": {**wide, "color_scheme": "dark"},
        "form-phone": {"viewport": {"width": 390, "height": 800}, "is_mobile": True, "has_touch": True},
    }.items():
        one = form(**options)
        ask(one)
        save(one.page, name, cvmfs)
    one = form(**{**wide, "viewport": {"width": 1180, "height": 640}})
    eventually(lambda: one.open().page.locator("li.p").count() > 3, "the packages are read")
    one.search.fill("torch 2.5")
    one.page.get_by_text("torch 2.5.1").first.wait_for()
    one.pick("ML with PyTorch")
    one.gpu.check()
    save(one.page, "form-search", cvmfs)
    hub.change_site(site_of(rig, cvmfs, ["tiny", "wait", str(rig.gate)]))
    rig.close_gate()
    one = form(viewport={"width": 900, "height": 520})
    ask(one)
    one.start.click()
    one.page.wait_for_url(waiting_url(hub, user))
    one.page.locator("#progress-message [aria-current=step]", has_text="JupyterLab starts").wait_for()
    save(one.page, "pending", cvmfs)
    rig.open_gate()
    hub.ready(user)
    hub.stop_servers()
    hub.change_site(site_of(rig, cvmfs, ["/bin/sh", "-c", FULL_DISK]))
    one = form(viewport={"width": 900, "height": 410})
    ask(one)
    rig.hold()
    one.start.click()
    one.page.wait_for_url(waiting_url(hub, user))
    rig.release()
    one.page.get_by_role("link", name="Change something and try again").wait_for()
    save(one.page, "failure", cvmfs)
    hub.change_site(slurm_site_of(rig, cvmfs))
    page = visits.new(viewport={"width": 1180, "height": 1000})
    free = {"title": "", "at": 0, "age": 20, "problem": "", "rooms": ROOMS}
    page.route("**/hepspawner/availability", lambda route: route.fulfill(json={"backends": {"cluster": free}}))
    other = rig.users[1]  # to whom nothing has failed
    enter(page, hub, other)
    one = Form(page, hub, other).open(backend="cluster", image="ml-base-alma9-311")
    one.gpu.check()
    one.page.get_by_text("3 of 16 free", exact=True).wait_for()
    save(one.page, "form-slurm", cvmfs)


def main() -> None:
    engines = json.loads((RIGS / "engines.json").read_text())
    OUT.mkdir(parents=True, exist_ok=True)
    rig = LocalRig(engines)
    cvmfs = rig.directory / "cvmfs"
    hub = RealHub(engines["hub6"], site_of(rig, cvmfs))
    try:
        hub.start()
        with sync_playwright() as playwright:
            draw(Visits(playwright.chromium.launch(executable_path=engines["chromium"], args=FLAGS)), hub, rig, cvmfs)
    finally:
        hub.stop()
        rig.close()


if __name__ == "__main__":
    main()
