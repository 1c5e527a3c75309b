"""Means over seeds with their intervals, and whether policies differ by more than chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

from scenarios.runs.document import Repeats

# Student's t, 0.975, by degrees of freedom from 1; beyond, the next smaller one that is here.
_T: Final = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_LEAST_FOR_OUTLIERS: Final = 5
_FAR: Final = 3.0


class Interval(NamedTuple):
    """A mean, and what holds the true one in 95 of 100 such studies."""

    mean: float
    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float | int) and self.low <= value <= self.high


def interval(values: Sequence[float]) -> Interval:
    """Of the mean of independent values, by Student's t. StatisticsError for fewer than two."""
    mean = statistics.fmean(values)
    half = _T[min(len(values) - 1, len(_T)) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def ratios(first: Sequence[float], values: Sequence[float]) -> Interval | None:
    """Of each seed's value to the same seed's under the first policy; None where that is ever zero."""
    if not all(first):
        return None
    return interval([value / base for base, value in zip(first, values, strict=True)])


def outliers(repeats: Repeats) -> list[str]:
    """Seeds whose elapsed time lies more than three interquartile ranges from the quartiles, in words."""
    found = []
    for policy, values in repeats["values"]["elapsed_ns"].items():
        if len(values) < _LEAST_FOR_OUTLIERS:
            continue
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        room = _FAR * (high - low)
        far = [
            seed
            for seed, value in zip(repeats["seeds"], values, strict=True)
            if not low - room <= value <= high + room
        ]
        if far:
            found.append(f"seed {', '.join(map(str, far))} is far from the others under {policy}")
    return found
