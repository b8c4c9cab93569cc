"""From what a source lists to images of the site. Pure."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ..site.model import Image, ImageKeys, Site, Source
from .sources import Listed

_MAX_NAME = 110


def taken(source: Source, image: Listed, path: str) -> bool:
    """Whether the globs of a source take an image: they are compared with its path and with its reference."""

    def fits(globs: list[str]) -> bool:
        return any(fnmatchcase(text, glob) for glob in globs for text in (path, image.reference))

    return fits(source.include) and not fits(source.exclude)


def keys_of(source: Source, image: Listed, places: list[str]) -> dict[str, Any]:
    """What is special of an image: keys of `Image` beside those that the source says for all of its images."""
    path = places[0]
    own = {**image.keys, "path": places}
    if image.oci:
        own["oci"] = image.oci
    values = _placeholders(image, path)
    said = source.model_fields_set
    marked = "name" not in said and "name" not in own
    if marked or "name" in said:
        own["name"] = source.name.format_map(values).strip(" :/@-")
    own["name"] = plain_name(own["name"], path)
    if marked:  # whatever else is listed, today or later: a link must never lead to another image
        own["title"], own["name"] = own["name"], with_mark(own["name"], path)
    for key in ("title", "description"):
        if key in said:
            own[key] = getattr(source, key).format_map(values)
    return {key: value for key, value in own.items() if key not in said or key in ("name", "title", "description")}


def _placeholders(image: Listed, path: str) -> dict[str, str]:
    namespace, _, last = image.repository.rpartition("/")
    file = path.rpartition("/")[2].removesuffix(".sif")
    name = last or (file.partition(":")[0] if image.tag else file)
    values = {"registry": image.registry, "repository": image.repository, "namespace": namespace, "name": name}
    return {**values, "tag": image.tag}


def plain_name(text: str, path: str) -> str:
    """A name as links, job names and logs can bear it."""
    plain = re.sub(r"[^A-Za-z0-9._:+-]", "-", text)
    plain = plain if plain[:1].isalnum() and plain.isascii() else f"x{plain}"
    return plain if len(plain) <= _MAX_NAME else with_mark(plain[:_MAX_NAME], path)


def with_mark(name: str, path: str) -> str:
    """A name with some digits that tell the path of its image from others."""
    return f"{name}-{hashlib.sha256(path.encode(errors='surrogateescape')).hexdigest()[:6]}"


def make_image(source: Source, own: Mapping[str, Any]) -> Image:
    """The image of what a source found. It was checked where it was read, in the child: here it must be quick."""
    shared = {name: getattr(source, name) for name in source.model_fields_set & _SHARED}
    values = {**shared, **own}
    return Image.model_construct(_fields_set=set(values), **values)


_SHARED = ImageKeys.model_fields.keys() - {"name", "title", "description"}


def whole_site(site: Site, found: Sequence[Iterable[Image]]) -> Site:
    """The site with the images that its sources found (one list for each source) in the sources' places.

    Of one path a written-out entry counts, else the first. Written-out names are as they are written. Found images have
    names that are theirs alone; where a source's own template, or another site's catalog, names several alike, each
    gets a mark made of its path.
    """
    paths = {path for image in site.images for path in image.path}
    written = {image.name for image in site.images}
    lists = []
    for images in found:
        fresh = [image for image in images if paths.isdisjoint(image.path)]
        paths.update(path for image in fresh for path in image.path)
        lists.append(fresh)
    names = Counter(image.name for images in lists for image in images)
    entries: list[Image] = []
    rest = iter(lists)
    for entry in site.entries:
        if isinstance(entry, Image):
            entries.append(entry)
            continue
        for image in next(rest):
            if names[image.name] > 1 or image.name in written:
                image = image.model_copy(update={"name": with_mark(image.name, image.path[0])})
            entries.append(image)
    return site.model_copy(update={"entries": entries})
