"""HEPSpawner: JupyterHub servers from images on CVMFS, on Slurm, HTCondor, Kubernetes or the machine itself."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["HEPSpawner", "__version__"]

if TYPE_CHECKING:
    from .spawner import HEPSpawner


def __getattr__(name: str) -> Any:
    # On demand: the command line and the child processes that read site files need no JupyterHub. And each time anew:
    # JupyterHub imports the spawners that are installed before it exists, and asks for the one that is configured then.
    if name == "HEPSpawner":
        from .hub.runtime import install_at_start
        from .spawner import HEPSpawner

        install_at_start(HEPSpawner)
        return HEPSpawner
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
