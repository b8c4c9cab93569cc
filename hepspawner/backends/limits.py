"""What may be asked for where the site does not say it: what the largest machine has. Pure."""

from ..site.model import Count, Sizes

_MEBIBYTE = 1024**2
_LEAST = 128 * _MEBIBYTE


def limits_of(cores: int, memory: int) -> tuple[Count | None, Sizes | None]:
    """Cores and memory to choose, with one core and its share of the memory as the default.

    `memory` in bytes; what is 0 is not known, and has no limit.
    """
    share = max(_LEAST, memory // max(cores, 1) // _MEBIBYTE * _MEBIBYTE)
    count = Count.model_construct(default=1, max=cores) if cores else None
    return count, Sizes.model_construct(default=min(share, memory), max=memory) if memory else None
