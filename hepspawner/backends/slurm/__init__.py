"""Slurm. `config` is what the site file says, `script` and `answers` are pure, `backend` acts."""

from .backend import SlurmBackend
from .config import SlurmConfig

__all__ = ["SlurmBackend", "SlurmConfig"]
