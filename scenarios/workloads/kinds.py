"""The kinds of workload, by the `kind` that files say: each a model in a file of its own, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import create_model

from scenarios.workloads.allocation_latency import AllocationLatencyWorkload
from scenarios.workloads.file_reclaim import FileReclaimWorkload
from scenarios.workloads.munmap_storm import MunmapStormWorkload
from scenarios.workloads.settings import Workload
from scenarios.workloads.tiering import TieringWorkload
from scenarios.workloads.trace_replay import ReplayWorkload
from scenarios.workloads.write_syscall import WriteSyscallWorkload
from scenarios.workloads.xsbench import XsbenchWorkload

KINDS: Final[Mapping[str, type[Workload]]] = {
    "tiering": TieringWorkload,
    "replay": ReplayWorkload,
    "xsbench": XsbenchWorkload,
    "file_reclaim": FileReclaimWorkload,
    "munmap_storm": MunmapStormWorkload,
    "write_syscall": WriteSyscallWorkload,
    "allocation_latency": AllocationLatencyWorkload,
}

_ANY_KIND: Any = Literal[tuple(KINDS)]
# What validates a document that is of no kind: it says so, and whatever else is wrong.
_NONE: Final = create_model("Workload", __base__=Workload, kind=(_ANY_KIND, ...))


def model_of(document: Mapping[str, Any]) -> type[Workload]:
    """The model that a document has to follow."""
    kind = document.get("kind")
    return KINDS.get(kind, _NONE) if isinstance(kind, str) else _NONE


def workload_of(document: Mapping[str, Any]) -> Workload:
    """The workload that a document describes. ValidationError if it is wrong."""
    return model_of(document).model_validate(document)
