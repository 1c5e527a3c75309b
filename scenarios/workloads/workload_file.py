"""Workload files: shipped names and paths, `[live]`, `--set`, `scale`, and what is wrong in one line.

A file may have a section `[live]`: what is in it stands in for the same keys outside on the live engine,
where the kernel's work takes messages and is much slower against accesses than on hardware.

Every problem becomes `FILE: KEY: what is wrong; what would be right`. Nothing here starts anything.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from emulator.memory.zone import setup_per_zone_wmarks
from scenarios.disk import content, file_problems
from scenarios.usage import UsageProblem, did_you_mean
from scenarios.workloads.kinds import KINDS, model_of, workload_of
from scenarios.workloads.settings import Workload
from scenarios.workloads.watermarks import kept_free

_SHIPPED: Final = Path(__file__).parent
_MAX_FILE_BYTES: Final = 1 << 20
_SINGLE: Final = ("name", "description", "kind", "scale")

# What `scale` divides: sizes of memory, and counts that go with them. Batches and caches stay as they are,
# and so does what the fast tier keeps free, which is there for batches.
_SCALED: Final = {
    "memory": ("fast_pages", "slow_pages"),
    "kernel": (
        "numa_scan_pages",
        "numa_scan_period_accesses",
        "numa_scan_period_max_accesses",
        "numa_hot_threshold_accesses",
    ),
    "threads": ("accesses", "table_pages", "heap_pages", "hot_pages", "drift_every", "drift_pages"),
}


_NO_NUMBER: Final = "{given} is no whole number; such as 64"
_NO_SECTION: Final = "{given} where a section belongs; [{key}] with keys"
_WORDS: Final[Mapping[str, str]] = {
    "missing": "missing; every workload has it",
    "relation": "{problem}",
    "greater_than_equal": "{given} is too small; {ge} or more",
    "less_than_equal": "{given} is too large; {le} or less",
    "int_type": _NO_NUMBER,
    "int_from_float": _NO_NUMBER,
    "int_parsing_size": _NO_NUMBER,
    "float_type": "{given} is no number; such as 0.5",
    "finite_number": "{given} is no number; such as 0.5",
    "bool_type": "{given} is neither true nor false; one of them, without quotes",
    "string_type": '{given} is no text; such as "name"',
    "literal_error": "{given} is not possible; {expected}",
    "model_type": _NO_SECTION,
    "model_attributes_type": _NO_SECTION,
    "dict_type": _NO_SECTION,
    "string_pattern_mismatch": "{given} is no name; letters, digits, and _ . - inside, at most 64",
}
"""What is wrong, by pydantic's name for it."""


def list_workloads() -> list[Workload]:
    """The workloads that come with the program, by name."""
    return [load_workload(name) for name in _shipped_names()]


def load_workload(name_or_path: str, overrides: Sequence[str] = (), *, live: bool = False) -> Workload:
    """Read a workload by its shipped name, or from a file if the text has a `/` or ends in `.toml`.

    `overrides` are `section.key=value`, as given to `--set`; the value is TOML, or a bare word for a text.
    They go before what the file says under `[live]`, which counts if it is to run `live`.

    Raises UsageProblem, one line, for anything that is wrong.
    """
    if "/" in name_or_path or name_or_path.endswith(".toml"):
        path, label = Path(name_or_path), name_or_path
    else:
        path, label = _shipped(name_or_path), name_or_path
    document = _read(path, label)
    instead = _live_settings(document, label)
    overridden = [_override(document, text) for text in overrides]
    workload = _validated(document, label, overridden)
    instead = {key: value for key, value in instead.items() if key not in overridden}
    if instead:
        # What does not count now has to be right all the same.
        for key, value in instead.items():
            _put(document, key, value)
        other = _validated(document, f"{label}: [live]", overridden)
        if live:
            return other.located(label, path.parent, instead)
    return workload.located(label, path.parent)


def shipped_text(name: str) -> str:
    """The file of a shipped workload, with whole paths in it. UsageProblem if there is none of that name."""
    path = _shipped(name)
    return re.sub(
        r'"(\.\./[^"]+)"', lambda found: f'"{(path.parent / found[1]).resolve()}"', path.read_text()
    )


def _shipped(name: str) -> Path:
    known = _shipped_names()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageProblem(f"unknown scenario {name!r}; {hint}, or the path of a .toml file")
    return _SHIPPED / f"{name}.toml"


def _validated(document: dict[str, Any], label: str, overridden: Sequence[str]) -> Workload:
    try:
        workload = workload_of(document)
        if workload.scale > 1:
            workload = workload_of(_scaled(workload, document))
    except ValidationError as error:
        raise _one_line(error, model_of(document), label, overridden) from None
    return workload


def _live_settings(document: dict[str, Any], label: str) -> dict[str, Any]:
    """Take `[live]` out of the document: its values by `scale` or `section.key`."""
    section = document.pop("live", {})
    if not isinstance(section, dict):
        raise UsageProblem(f"{label}: live: {_short(section)} where a section belongs; [live] with keys")
    found: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, dict) and name not in _SINGLE:
            found |= {f"{name}.{key}": one for key, one in value.items()}
        elif name == "scale":
            found[name] = value
        else:
            raise UsageProblem(f"{label}: live.{_printable(name)}: not possible here; scale, or section.key")
    return found


def _put(document: dict[str, Any], key: str, value: object) -> None:
    section, dot, name = key.rpartition(".")
    target = document.setdefault(section, {}) if dot else document
    target[name] = value


def _scaled(workload: Workload, document: dict[str, Any]) -> dict[str, Any]:
    """The same workload with sizes and counts divided, rounded and at least 1; its own scale is 1."""
    smaller = {**document, "scale": 1}
    own = {workload.kind: workload.scaled} if workload.scaled else {}
    for name, keys in (_SCALED | own).items():
        section = getattr(workload, name)
        given = section.model_fields_set
        divided = {
            key: max(1, round(getattr(section, key) / workload.scale))
            for key in keys
            if key in given and getattr(section, key)
        }
        for size, mark in (("fast_pages", "min_free_pages"), ("slow_pages", "slow_min_free_pages")):
            if size in divided and (given_free := getattr(section, mark)):
                kept = kept_free(setup_per_zone_wmarks(getattr(section, size), given_free))
                usable = max(1, round((getattr(section, size) - kept) / workload.scale))
                divided[size] = usable + kept_free(setup_per_zone_wmarks(usable, given_free))
        if name == "memory":
            divided["divided_by"] = workload.scale * section.divided_by
        if divided:
            smaller[name] = {**document.get(name, {}), **divided}
    return smaller


def _shipped_names() -> list[str]:
    return sorted(path.stem for path in _SHIPPED.glob("*.toml"))


def _read(path: Path, label: str) -> dict[str, Any]:
    # ValueError covers an embedded NUL in the name, UTF-8, TOML, and integers too long for Python.
    with file_problems(f"{label}: not readable as TOML", "a UTF-8 TOML file"):
        if not path.is_file():
            raise UsageProblem(f"{label}: no such file; {did_you_mean(path.stem, _shipped_names())}")
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise UsageProblem(f"{label}: larger than 1 MiB; a workload is a small TOML file")
        try:
            return tomllib.loads(content(path).decode())
        except RecursionError:
            raise UsageProblem(f"{label}: nested too deeply; sections and keys as in `migrc list`") from None


def _override(document: dict[str, Any], text: str) -> str:
    """Put `section.key=value` into the document; returns `section.key`."""
    key, equals, value = text.partition("=")
    key = key.strip()
    words = key.split(".")
    if not equals or not all(words) or len(words) > 2:
        raise UsageProblem(f"--set {text}: not understood; section.key=value, such as memory.fast_pages=2048")
    if len(words) == 2 and not isinstance(document.get(words[0], {}), dict):
        raise UsageProblem(f"--set {text}: {words[0]} is a single value, not a section; {words[0]}=value")
    _put(document, key, _toml_value(value.strip()))
    return key


def _toml_value(text: str) -> object:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _one_line(
    error: ValidationError, model: type[Workload], label: str, overridden: Sequence[str]
) -> UsageProblem:
    problems = error.errors(include_url=False)
    first = problems[0]
    key = str(first.get("ctx", {}).get("key") or ".".join(_printable(str(word)) for word in first["loc"]))
    from_option = any(given == key or given.startswith(key + ".") for given in overridden)
    where = f"--set {key}" if from_option else f"{label}: {key}"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return UsageProblem(f"{where}: {_explain(first, model)}{more}")


def _explain(problem: ErrorDetails, model: type[BaseModel]) -> str:
    """What is wrong and what would be right, in our words where pydantic's are about Python."""
    key = str(problem["loc"][-1]) if problem["loc"] else ""
    given = _short(problem["input"])
    if problem["type"] == "extra_forbidden":
        if len(problem["loc"]) > 1 or key not in KINDS or key not in KINDS[key].model_fields:
            return f"unknown key; {did_you_mean(key, _keys_beside(model, problem['loc']))}"
        kind, *_ = get_args(model.model_fields["kind"].annotation)
        return f'has no meaning for kind = "{kind}"; remove it, or kind = "{key}"'
    words = _WORDS.get(problem["type"])
    if words is None:
        return f"{given}: {problem['msg'][:1].lower()}{problem['msg'][1:]}"
    return words.format_map({**problem.get("ctx", {}), "given": given, "key": key})


def _keys_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    for word in location[:-1]:
        annotation = model.model_fields[str(word)].annotation
        assert isinstance(annotation, type) and issubclass(annotation, BaseModel)
        model = annotation
    return list(model.model_fields)


def _short(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return "this value"
    return text if len(text) <= 40 else text[:37] + "..."


def _printable(word: str) -> str:
    return word if word.isprintable() and len(word) <= 60 else _short(word)
