"""Whether two CPUs run the same program: those may be alike (`emulator/explore/symmetry.py` finds out)."""

from __future__ import annotations

from functools import partial
from types import CellType, FunctionType
from typing import Any


def same(one: Any, other: Any) -> bool:
    """Whether two programs are one: the same code, around the same values."""
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, FunctionType):
        return one.__code__ is other.__code__ and same(_around(one), _around(other))
    if isinstance(one, partial):
        return same((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, (int, str)) and one == other


def _around(function: FunctionType) -> tuple[Any, ...]:
    return function.__defaults__, function.__kwdefaults__, *map(_in, function.__closure__ or ())


def _in(cell: CellType) -> Any:
    """What a closure holds; the cell itself if that is nothing yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return cell
