"""The site that these tests look at."""

from typing import Any

from tests.conformance.rig import LocalRig

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'>\"'>"
FARM = "The farm"
GPUS = "GPU machines"
CLUSTER = "The cluster"


def make_site(rig: LocalRig) -> dict[str, Any]:
    """Two backends, one of them with GPUs, and images in groups. All of them start a server of a few lines."""
    tiny = {"prefix": str(rig.directory / "prefix"), "command": ["tiny", "serve"]}
    images: list[dict[str, Any]] = [
        {
            "name": "ml-base",
            "title": "ATLAS ML base",
            "description": "NumPy, scikit-learn, XGBoost, plotting",
            "group": "ATLAS",
            "tags": ["alma9", "python 3.11"],
            **tiny,
        },
        {"name": "ml-torch", "title": "ML with PyTorch", "description": "Deep learning", "group": "ATLAS",
         "tags": ["cuda"], "gpu": "required", **tiny},
        {"name": "root", "title": "ROOT", "description": "Histograms and fits", "group": "ATLAS", "gpu": "none"} | tiny,
        {"name": "on-the-farm", "title": "Grid tools", "description": "Rucio and PanDA", "group": "ATLAS",
         "backends": ["farm"], **tiny},
        {"name": "waiting", "title": "A slow one", "group": "ESCAPE", "prefix": tiny["prefix"],
         "command": ["tiny", "wait", str(rig.gate)]},
        {"name": "crashing", "title": "A broken one", "group": "ESCAPE", "prefix": tiny["prefix"],
         "command": ["tiny", "crash"]},
        {"name": "bare", "title": "One without Jupyter", "group": "ESCAPE", "prefix": tiny["prefix"]},
        {"name": "gone", "title": "One that is gone", "group": "ESCAPE", "prefix": str(rig.directory / "no/such")},
        {"name": "hostile", "title": f"Hostile {HOSTILE}", "description": f"about {HOSTILE}", "group": "ESCAPE",
         "tags": [HOSTILE], **tiny},
    ]  # fmt: skip
    return {
        "images": images,
        "custom_images": {"allow": [f"{rig.directory}/own*"]},
        "backends": {
            "farm": {
                **rig.part(),
                "title": FARM,
                "cpus": {"default": 1, "max": 4},
                "memory": {"default": "2G", "max": "8G"},
                "runtime": {"default": "1h", "max": "8h"},
            },
            "gpus": {
                **rig.part(),
                "title": GPUS,
                "cpus": {"default": 2, "max": 16},
                "memory": {"default": "4G", "max": "64G"},
                "runtime": {"default": "2h", "max": "1d"},
                "gpus": {"a100": {"title": "NVIDIA A100", "max": 4}, "t4": {"title": "NVIDIA T4", "max": 1}},
            },
        },
    }


def make_slurm_site(rig: LocalRig, environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The same images on a cluster with partitions, and on the farm. `environment`: that of Slurm's commands, which
    fail without it."""
    site = make_site(rig)
    site["backends"] = {
        "cluster": {
            "type": "slurm",
            "title": CLUSTER,
            "run_as": "runuser",
            "poll_interval": "1s",
            "commands": {"environment": environment or {"SLURM_CONF": "/there/is/none"}},
            "gpus": {"a100": {"title": "NVIDIA A100", "max": 2, "gres": "gpu:a100"}},
            "partitions": {
                "cpu": {
                    "title": "CPU nodes",
                    "cpus": {"default": 1, "max": 64},
                    "memory": {"default": "2G", "max": "64G"},
                    "runtime": {"default": "2h", "max": "1d"},
                },
                "gpu": {
                    "title": "GPU nodes",
                    "cpus": {"default": 4, "max": 32},
                    "memory": {"default": "8G", "max": "128G"},
                    "runtime": {"default": "1h", "max": "4h"},
                    "gpus": {"a100": 2},
                },
            },
        },
        "farm": {
            **LocalRig.part(rig),
            "title": FARM,
            "cpus": {"default": 1, "max": 4},
            "memory": {"default": "2G", "max": "8G"},
            "runtime": {"default": "1h", "max": "8h"},
        },
    }
    return site
