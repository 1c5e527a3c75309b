"""The end of a thread."""

from __future__ import annotations

from scenarios.linux.areas import nothing
from scenarios.linux.operation import Operation

THREAD_EXIT = Operation("thread_exit", nothing)
