"""What the operation table says of each operation: who carries it out, and how it is ordered."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class Where(Enum):
    """Who carries an operation out."""

    MEMORY = auto()  # the gate to everything shared
    CPU = auto()  # the CPU that issues it, alone
    IPI = auto()  # the engine: it concerns other CPUs
    SERIES = auto()  # member by member


class Order(Enum):
    """What an operation is to the ordering rules of an architecture."""

    NONE = auto()
    LOAD = auto()
    STORE = auto()
    LOCKED = auto()  # an atomic read-modify-write, or what a lock makes one
    WALK = auto()
    MB = auto()
    RMB = auto()
    WMB = auto()
    AFTER_ATOMIC = auto()
    TLB = auto()  # a TLB invalidation or CR3 write
    IPI_SEND = auto()
    IPI_TAKE = auto()  # taking the queued calls: an interrupt, and the exchange that empties the queue
    ACK = auto()
    ACK_WAIT = auto()
    IRET = auto()


class Row(NamedTuple):
    """One line of the operation table."""

    where: Where
    order: Order
    answers: bool  # the program learns something; else nobody can tell when it was performed
