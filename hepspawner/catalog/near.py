"""What a mistyped path of an image may have meant. A program of its own, in a child that can be killed: it lists one
directory, which may hang. Takes {"path", "known"} as JSON on standard input, writes a list of paths."""

import json
import os
import sys
from difflib import get_close_matches
from itertools import islice

_LISTED = 20_000
_MOST = 3


def near(path: str, known: list[str]) -> list[str]:
    """The paths nearest to one that is not there: of its directory's entries, and of those that are known anyhow."""
    parent, _, name = path.rstrip("/").rpartition("/")
    found = []
    try:
        with os.scandir(parent or "/") as entries:
            names = [entry.name for entry in islice(entries, _LISTED) if not entry.name.startswith(".")]
        found = [f"{parent}/{one}" for one in get_close_matches(name, names, _MOST, 0.75)]
    except OSError:
        pass  # then what is known has to do
    # By their last parts: the whole of many long paths that are nearly alike takes seconds to compare.
    by_name: dict[str, list[str]] = {}
    for one in known:
        by_name.setdefault(one.rpartition("/")[2], []).append(one)
    found += [one for match in get_close_matches(name, by_name, _MOST, 0.75) for one in by_name[match]]
    return [one for one in dict.fromkeys(found) if one.isprintable()][:_MOST]


if __name__ == "__main__":
    order = json.load(sys.stdin)
    json.dump(near(order["path"], order["known"]), sys.stdout)
