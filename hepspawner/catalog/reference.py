"""The OCI reference of an image: one catalog serves file systems and registries. Pure."""

from ..site.model import Image

UNPACKED = "/cvmfs/unpacked.cern.ch/"
_REGISTRIES = {"registry.hub.docker.com": "docker.io"}


def reference_of(image: Image | None, path: str | None = None) -> str | None:
    """The reference of an image, or of a user's own one at a path; None where there is none.

    ``/cvmfs/unpacked.cern.ch/registry.hub.docker.com/a/b:c`` is ``docker.io/a/b:c``.
    """
    if image is not None and image.oci:
        return image.oci
    for place in image.path if image is not None else filter(None, [path]):
        if place.startswith(UNPACKED):
            registry, slash, rest = place[len(UNPACKED) :].partition("/")
            if slash and rest:
                return f"{_REGISTRIES.get(registry, registry)}/{rest}"
    return None
