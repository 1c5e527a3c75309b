"""Ratios of the tiering program that are not near what was recorded, by version, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REASONS: Final[Mapping[str, Mapping[str, str]]] = {"6.12": {}}
