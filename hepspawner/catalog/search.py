"""What people type to find an image: words, and packages with versions (``torch 2.5``, ``root>=6.30``). Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from packaging.specifiers import InvalidSpecifier, Specifier
from packaging.version import InvalidVersion

_MAX_QUERY = 200
_MAX_TERMS = 10
_LEAST = 2
"""Letters from which a word is looked for among packages."""
_OPERATOR = "===?|[<>~!]=|[<>=]"
_AROUND = re.compile(rf"\s*({_OPERATOR}|,)\s*")
_BOUNDED = re.compile(rf"([^<>=~!,]+)((?:{_OPERATOR}).*)")
_BOUND = re.compile(rf"({_OPERATOR})([^<>=~!,]+)")
_VERSION = re.compile(r"v?\d+(?:\.[0-9a-z*]*)*")


@dataclass(frozen=True)
class Term:
    """One thing that an image must have, in its text or as a package."""

    words: tuple[str, ...]
    """All of them in the text will do; empty where only a package will."""
    name: str
    """How the package's name begins; with `bounds` its whole name, where there is such a one."""
    bounds: tuple[tuple[str, str], ...] = ()
    """What its version must be: an operator and a version each."""

    def in_text(self, text: str) -> bool:
        """Whether a text, in small letters, has all words."""
        return bool(self.words) and all(word in text for word in self.words)

    def among(self, packages: Iterable[str]) -> list[str]:
        """Of packages, their names plain, those that may be meant: the nearest first."""
        if len(self.name) < _LEAST:
            return []
        return sorted((one for one in packages if one.startswith(self.name)), key=lambda name: (len(name), name))


def plain(name: str) -> str:
    """A package's name as it is compared: ``asdf_standard`` is ``asdf-standard``."""
    return name.lower().replace("_", "-").replace(".", "-")


def parse(query: str) -> list[Term]:
    """The terms of a query. Whatever is typed means something: an operator without a version yet is passed over."""
    terms: list[Term] = []
    for word in _AROUND.sub(r"\1", query[:_MAX_QUERY].lower()).split()[:_MAX_TERMS]:
        last = terms[-1] if terms else None
        if found := _BOUNDED.fullmatch(word):
            bounds = tuple((operator, version) for operator, version in _BOUND.findall(found[2]))
            terms.append(Term((), plain(found[1]), bounds) if bounds else Term((found[1],), plain(found[1])))
        elif last and last.words and not last.bounds and not _VERSION.fullmatch(last.name) and _VERSION.fullmatch(word):
            terms[-1] = Term((*last.words, word), last.name, (("=", word.lstrip("v")),))
        else:
            terms.append(Term((word,), plain(word)))
    return terms


@lru_cache(maxsize=1 << 16)
def holds(version: str, operator: str, wanted: str) -> bool:
    """Whether a version is as wanted, by Python's rules; where one of the two is no version to them, part by part.

    ``=`` means all that begins so, as conda means it: 2.5.1 is 2.5, and 2.50 is not.
    """
    wanted = wanted.rstrip(".")
    if operator == "=":
        parts = _key(wanted.removesuffix(".*"))
        return _key(version)[: len(parts)] == parts
    try:
        return Specifier(operator + wanted).contains(version, prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return _compare(_key(version), operator, _key(wanted))


def _key(version: str) -> list[tuple[int, int, str]]:
    """A version to be compared: numbers as numbers, and text before them (2.0rc before 2.0.1)."""
    parts = re.findall(r"\d{1,18}|[a-z]+", version.lower().partition("+")[0])
    return [(1, int(part), "") if part[0].isdigit() else (0, 0, part) for part in parts]


def _compare(one: list[tuple[int, int, str]], operator: str, other: list[tuple[int, int, str]]) -> bool:
    if operator in ("==", "==="):
        return one == other
    if operator == "!=":
        return one != other
    if operator == "~=":
        return one >= other and one[: len(other) - 1] == other[:-1]
    if operator == ">=":
        return one >= other
    if operator == "<=":
        return one <= other
    return one > other if operator == ">" else one < other
