"""Figures as reports show them: numbers, ratios and durations in a few letters."""

from __future__ import annotations


def ratio_of(value: int | None, first: int | None) -> str:
    """Two digits, three below a tenth; `-` where there is nothing to divide."""
    if value is None or not first:
        return "-"
    ratio = value / first
    return f"{ratio:.2f}" if ratio >= 0.1 or not ratio else f"{ratio:.3f}"


def number(value: int) -> str:
    """With commas."""
    return f"{value:,}"


def duration(ns: int) -> str:
    """Three digits and a unit: `850 ns`, `12.3 us`, `4.56 ms`, `1,234 s`."""
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            scaled = ns / size
            digits = 2 if scaled < 10 else 1 if scaled < 100 else 0
            return f"{scaled:,.{digits}f} {unit}"
    return f"{ns} ns"
