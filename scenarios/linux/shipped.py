"""The recordings that come with the program: `recorded/VERSION.tsv`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scenarios.linux.cases import Recording, read_recording

FOLDER: Final = Path(__file__).parent / "recorded"


def recorded_kernels() -> list[str]:
    """The versions, oldest first."""
    return sorted((path.stem for path in FOLDER.glob("*.tsv")), key=lambda name: [*map(int, name.split("."))])


def path_of(kernel: str) -> Path:
    """Where the recording of a version is, or would be."""
    return FOLDER / f"{kernel}.tsv"


def recording_of(kernel: str) -> Recording:
    """The recording of a version."""
    return read_recording(path_of(kernel))
