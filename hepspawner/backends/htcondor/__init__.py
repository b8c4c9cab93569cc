"""HTCondor. `config` is what the site file says, `submit` and `answers` are pure, `backend` acts."""

from .backend import HTCondorBackend
from .config import HTCondorConfig

__all__ = ["HTCondorBackend", "HTCondorConfig"]
