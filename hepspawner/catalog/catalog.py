"""The catalog: the images of a site, written out and found by its sources, and what is known of each."""

from collections.abc import Callable, Iterable

from ..backends.base import Log
from ..site.model import BackendConfig, Image, Site
from .state import State


class Catalog:
    """Looks after the images of one hub, in the background. What it says is at hand: nothing here waits or blocks."""

    def __init__(self, log: Log):
        self.log = log
        self.site: Site | None = None
        """The site as its catalog has it: in the place of each source the images that it found."""
        self.problems: list[str] = []
        """What is wrong with sources, for admins."""
        self.on_change: Callable[[], None] = lambda: None

    @property
    def images(self) -> list[Image]:
        """All images, in the site's order: written out, and found."""
        return self.site.images if self.site else []

    def follow(self, site: Site) -> None:
        """Have another site from now on. What is known of the same images and sources is kept."""
        self.site = site

    def state(self, name: str, backends: Iterable[BackendConfig] = ()) -> State:
        """What is known of the image of a name, for somebody who would run it on one of some backends."""
        return State("not looked at")

    def told(self, name: str, path: str, why: str = "", real: str = "") -> None:
        """A node says of an image: it is at a path (and really at another), or why it cannot be used there."""
