"""The recordings that come with the program: `recorded/VERSION.tsv`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scenarios.linux.cases import Recording, read_recording

FOLDER: Final = Path(__file__).parent / "recorded"


def recorded_kernels() -> list[str]:
    """The versions, oldest first."""
    return sorted((path.stem for path in FOLDER.glob("*.tsv")), key=lambda name: [*map(int, name.split("."))])


def recording_of(kernel: str) -> Recording:
    """The recording of a version."""
    return read_recording(FOLDER / f"{kernel}.tsv")
