"""What a user may ask for, and what is wrong with what he asked. Pure: no I/O, no JupyterHub.

`fields` declares what can be chosen, `offer` says what a site offers to one user, `reading` makes a choice of options.
"""

from .fields import Choice, ChoiceError, Field, base_fields, shown
from .offer import Offer, Who
from .reading import VERY_IMAGE, bounded, from_form, split_digest

__all__ = [
    "VERY_IMAGE",
    "Choice",
    "ChoiceError",
    "Field",
    "Offer",
    "Who",
    "base_fields",
    "bounded",
    "from_form",
    "shown",
    "split_digest",
]
