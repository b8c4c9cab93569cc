"""What a site offers to one user."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from ..catalog.references import is_reference, matches
from ..site.model import BackendConfig, Image, Site
from .fields import Choice, ChoiceError, Field, base_fields
from .reading import Reading, bounded, sift


@dataclass(frozen=True)
class Who:
    """The user that a choice is for."""

    name: str
    groups: frozenset[str] = frozenset()
    admin: bool = False

    def may(self, groups: list[str] | None) -> bool:
        """True where a list of groups lets this user in; no list lets everybody in."""
        return groups is None or not self.groups.isdisjoint(groups)

    def names(self, said: list[str] | Mapping[str, list[str]]) -> list[str]:
        """What a site lists for this user: one list for everybody, or lists by group (``*``: everybody)."""
        if not isinstance(said, Mapping):
            return list(said)
        mine = [names for group, names in said.items() if group == "*" or group in self.groups]
        return list(dict.fromkeys(name for names in mine for name in names))


class Offer:
    """What a site offers to one user. What he may not use is not in it, so that no answer can tell of it."""

    def __init__(self, site: Site, who: Who, fields: Mapping[str, list[Field]] | None = None):
        """`fields`: those of each backend, by its name; absent: those that all backends have."""
        self.site, self.who = site, who
        self._fields = fields or {}
        self.backends = {name: config for name, config in site.backends.items() if who.may(config.groups)}
        self._able: dict[Any, dict[str, BackendConfig]] = {}
        """Backends of images, of which thousands are alike."""

    @cached_property
    def images(self) -> dict[str, Image]:
        """Images by name, in the site's order; those without a backend for this user are left out."""
        return {
            image.name: image for image in self.site.images if self.who.may(image.groups) and self.backends_of(image)
        }

    @property
    def custom(self) -> list[str]:
        """Globs of the images that this user may bring; empty: none."""
        return [root + rest for root, rest in self.custom_roots] + self.custom_references

    @cached_property
    def custom_roots(self) -> list[tuple[str, str]]:
        """The same in two parts: what only the site controls, to be followed where it is a link, and the rest."""
        roots = []
        for glob in self._allowed:
            if is_reference(glob):
                continue
            parts = glob.split("/")
            fixed = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), len(parts))
            personal = next((i + 1 for i, part in enumerate(parts) if "{username}" in part), fixed)
            root, rest = ("/".join(some) for some in (parts[: min(fixed, personal)], parts[min(fixed, personal) :]))
            roots.append((root.replace("{username}", self.who.name), "/" + rest.replace("{username}", self.who.name)))
        return roots

    @cached_property
    def custom_references(self) -> list[str]:
        """Globs of the references that this user may bring."""
        return [glob.replace("{username}", self.who.name) for glob in self._allowed if is_reference(glob)]

    @property
    def _allowed(self) -> list[str]:
        policy = self.site.custom_images
        if policy is None or not self.who.may(policy.groups):
            return []
        # A name with a slash or a wildcard would widen the pattern.
        plain = not set(self.who.name) & set("/*?[]") and self.who.name not in (".", "..")
        return [glob for glob in policy.allow if plain or "{username}" not in glob]

    def allows(self, path: str, links: Mapping[str, str] | None = None) -> bool:
        """True where this user may bring an image that lies at a path, or has a full reference.

        `links`: for a path whose links were followed, where each of the roots really is (a home may be a link).
        """
        if is_reference(path):
            return any(matches(path, glob) for glob in self.custom_references)
        return any(fnmatchcase(path, (links or {}).get(root, root) + rest) for root, rest in self.custom_roots)

    def backends_of(self, image: Image | str) -> dict[str, BackendConfig]:
        """The backends on which this user can run an image, or his own one: a path or a full reference."""
        if isinstance(image, str):
            return {name: config for name, config in self.backends.items() if config.runs(image)}
        can = tuple(name for name, config in self.backends.items() if config.runs(image))
        alike = None if image.backends is None else tuple(image.backends), image.gpu == "required", can
        if alike not in self._able:
            self._able[alike] = {
                name: config
                for name, config in self.backends.items()
                if name in can
                and (image.backends is None or name in image.backends)
                and (image.gpu != "required" or self.kinds(name))
            }
        return self._able[alike]

    def fields(self, backend: str) -> list[Field]:
        """Everything to choose on a backend."""
        return self._fields[backend] if backend in self._fields else base_fields(self.backends[backend])

    def kinds(self, backend: str) -> list[str]:
        """The kinds of GPU that this user can have on a backend."""
        return [kind for one in self.fields(backend) if one.name == "gpu" for kind in one.most]

    def choose(self, options: Any) -> Choice:
        """The choice that user_options mean. Raises ChoiceError with all that is wrong."""
        return Reading(self, bounded(options)).choice()

    def preset(self, options: Any) -> tuple[dict[str, Any], dict[str, str]]:
        """Of options (an earlier choice, a link), those that are allowed today, and what is wrong with the others.

        An option may be allowed alone and not beside the others: they are dropped one by one until the rest is valid.
        """
        kept, wrong = sift(options)
        while True:
            try:
                self.choose(kept)
                return kept, wrong
            except ChoiceError as error:
                wrong = {**error.errors, **wrong}
                gone = {*error.errors, *(["gpus"] if "gpu" in error.errors else [])}  # a count alone means another GPU
                left = {name: value for name, value in kept.items() if name not in gone}
                # an error may name a field that was not given: then what is special goes first, and the image last
                general = {name: value for name, value in kept.items() if name in ("image", "custom_image", "backend")}
                kept = next((fewer for fewer in (left, general) if len(fewer) < len(kept)), {})
                if not kept:
                    return {}, wrong
