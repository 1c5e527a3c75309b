"""Test modules are no package; their helpers and the small machine of the kernel tests are found by file."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "kernel")]
