"""Sizes and times as people write them: ``512M``, ``8G``; ``30s``, ``30m``, ``8h``, ``4d``.

Sizes are powers of 1024, in bytes, as schedulers and JupyterHub count them, and whole KiB, so that `format_size` can
say each of them exactly. Times are whole seconds.
"""

import re

SIZE_UNITS = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
TIME_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_KIBIBYTES = 2**50

# ASCII digits only (\d takes any script's), and few of them: a number of a million digits is not a size.
_SIZE = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,3})?) ?([KMGT])i?B?")
_TIME = re.compile(r"([0-9]{1,9}) ?([smhd])")


def parse_size(text: str) -> int:
    """Bytes of a size such as ``512M`` or ``1.5G``. Raises ValueError with what is allowed."""
    match = _SIZE.fullmatch(text.strip())
    kibibytes = int(float(match[1]) * (SIZE_UNITS[match[2]] // 1024)) if match else 0
    if not 0 < kibibytes <= _MOST_KIBIBYTES:
        raise ValueError("write a number and a unit: 512M, 8G")
    return kibibytes * 1024


def parse_time(text: str) -> int:
    """Seconds of a time such as ``30m`` or ``4d``. Raises ValueError with what is allowed."""
    match = _TIME.fullmatch(text.strip())
    if not match or not (seconds := int(match[1]) * TIME_UNITS[match[2]]):
        raise ValueError("write a number and a unit: 30s, 30m, 8h, 4d")
    return seconds


def format_size(size: int) -> str:
    """A size as ``parse_size`` reads it, in the largest unit that is exact: 8589934592 is ``8G``."""
    for unit, factor in reversed(SIZE_UNITS.items()):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{max(1, round(size / 1024))}K"


def format_time(seconds: int) -> str:
    """A time as ``parse_time`` reads it, in the largest unit that is exact: 28800 is ``8h``."""
    for unit, factor in reversed(TIME_UNITS.items()):
        if seconds >= factor and seconds % factor == 0:
            return f"{seconds // factor}{unit}"
    return f"{seconds}s"
