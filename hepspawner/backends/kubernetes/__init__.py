"""Kubernetes. `config` is what the site file says; `names`, `pod`, `volumes`, `patch`, `reading`, `words` are pure;
`client`, `feed` and `backend` act."""

from importlib.util import find_spec

if find_spec("kubernetes_asyncio") is None:
    raise ImportError("kubernetes_asyncio is not installed: pip install 'hepspawner[kubernetes]'")

from .backend import KubernetesBackend
from .config import KubernetesConfig

__all__ = ["KubernetesBackend", "KubernetesConfig"]
