"""Python's collector of cyclic garbage, told how a search or a timed run uses memory.

Both make hundreds of thousands of objects that stay: states and what leads from one to the next, folios. The
collector's defaults are for programs whose objects mostly do not. It looks at all of them again and again,
which takes a third of the time of a search.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_THRESHOLDS: Final = (100_000, 50, 100)


@contextmanager
def rare_collection() -> Iterator[None]:
    """Collect less often for a while. What the caller drops meanwhile may stay until `gc.collect`."""
    before = gc.get_threshold()
    gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
