"""The policy of a gate: what is measured, and what it may be; TOML, version 1."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from landscape.errors import UserError
from landscape.gate import LEAST, LEVELS, LIMITS, Rule

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

VERSION = 1
MEASURES = ("sam", "worst", "average", "random")
NORMS = ("plain", "adaptive", "filter", "layer", "tensor")
INCONCLUSIVE = ("fail", "pass", "error")
SHARPNESS, LOSS, LAMBDA_MAX = "sharpness", "loss", "lambda_max"


@dataclass(frozen=True)
class Measure:
    """What is measured on every group of examples."""

    measure: str = "sam"
    norm: str = "adaptive"
    rho: float = 0.05
    m: int = 32  # examples of a group
    looks: tuple[int, ...] = (16, 32, 64)  # groups
    seed: int = 0
    batch_size: int | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class Policy:
    """What a candidate has to keep to."""

    measure: Measure = field(default_factory=Measure)
    rules: tuple[Rule, ...] = (
        Rule(SHARPNESS, "max_increase", 0.25, percent=True, floor=1e-3),
        Rule(LOSS, "max_increase", 0.01),
    )
    require_baseline: bool = True
    on_inconclusive: str = "error"  # what becomes of an undecided verdict
    task: str | None = None  # where the task is, its file's path made absolute

    @property
    def relative(self) -> bool:
        """Whether any rule takes a baseline."""
        return any(rule.relative for rule in self.rules)


class PolicyError(UserError):
    """A policy that cannot be meant: wrong usage."""

    code = 2


def load(path: Path) -> Policy:
    """The policy in a TOML file, or under [tool.landscape.gate] of a pyproject.toml.

    Raises:
        PolicyError: no such file or table, no TOML, or nothing that version 1 knows.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(f"cannot read the policy {str(path)!r} ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PolicyError(f"the policy {str(path)!r} is not valid TOML: {error}") from error
    table = document.get("tool", {}).get("landscape", {}).get("gate")
    if table is None and path.name == "pyproject.toml":
        raise PolicyError(f"{str(path)!r} has no [tool.landscape.gate]")
    return parse(document if table is None else table, str(path), path.parent)


def nearest(folder: Path) -> Path | None:
    """The nearest pyproject.toml, if it holds a policy under [tool.landscape.gate]."""
    for home in (folder.resolve(), *folder.resolve().parents):
        path = home / "pyproject.toml"
        if path.is_file():
            try:
                document = tomllib.loads(path.read_text(encoding="utf-8"))
            except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
                return None  # told where the task is looked for
            return path if "gate" in document.get("tool", {}).get("landscape", {}) else None
    return None


def parse(table: Mapping[str, Any], where: str, folder: Path) -> Policy:
    """The policy that a table holds.

    Args:
        table: of TOML.
        where: it stands, for messages.
        folder: that a relative path of the task starts from.

    Raises:
        PolicyError: a key or a value that version 1 does not know.
    """
    known = {"version", "task", "measure", "rules", "gate"}
    _refuse_unknown(table, known, where)
    if table.get("version") != VERSION:
        raise PolicyError(
            f"{where}: version is {table.get('version')!r}: write version = {VERSION}"
        )
    gate = _table(table, "gate", where)
    _refuse_unknown(gate, {"require_baseline", "on_inconclusive"}, f"{where}, [gate]")
    rules = tuple(
        rule
        for quantity, found in _table(table, "rules", where).items()
        for rule in _rules(quantity, found, f"{where}, [rules.{quantity}]")
    )
    default = Policy()
    found = Policy(
        measure=_measure(_table(table, "measure", where), f"{where}, [measure]"),
        rules=rules,
        require_baseline=_typed(
            gate, "require_baseline", bool, default.require_baseline, f"{where}, [gate]"
        ),
        on_inconclusive=_one_of(
            gate, "on_inconclusive", INCONCLUSIVE, default.on_inconclusive, f"{where}, [gate]"
        ),
        task=_task(_typed(table, "task", str, None, where), folder),
    )
    if not any(rule.level == "error" for rule in rules):
        raise PolicyError(f"{where}: no rule of level error under [rules]: nothing can be refused")
    return found


def _task(place: str | None, folder: Path) -> str | None:
    """A file is relative to the policy; a module is looked up by its name."""
    if place is None:
        return None
    path = place.partition(":")[0] if ".py:" in place else place
    return str(folder.resolve() / place) if path.endswith(".py") else place


def _measure(table: Mapping[str, Any], where: str) -> Measure:
    default = Measure()
    _refuse_unknown(table, set(vars(default)), where)
    looks = _typed(table, "looks", list, list(default.looks), where)
    whole = all(isinstance(look, int) and not isinstance(look, bool) for look in looks)
    if not looks or not whole or looks != sorted(set(looks)) or looks[0] < LEAST:
        raise PolicyError(
            f"{where}: looks = {looks} must be growing numbers of groups, from {LEAST} on (fewer "
            "do not hold the error rate where differences are skewed)"
        )
    rho = _number(table, "rho", default.rho, where)
    m = _typed(table, "m", int, default.m, where)
    seed = _typed(table, "seed", int, default.seed, where)
    batch_size = _typed(table, "batch_size", int, None, where)
    if not 0 < rho < float("inf") or m < 1 or seed < 0 or (batch_size or 1) < 1:
        raise PolicyError(f"{where}: rho, m and batch_size must be positive, seed at least 0")
    return Measure(
        measure=_one_of(table, "measure", MEASURES, default.measure, where),
        norm=_one_of(table, "norm", NORMS, default.norm, where),
        rho=rho,
        m=m,
        looks=tuple(looks),
        seed=seed,
        batch_size=batch_size,
        dtype=_one_of(table, "dtype", ("float32", "float64"), default.dtype, where),
    )


def _rules(quantity: str, table: Any, where: str) -> list[Rule]:
    if not isinstance(table, Mapping):
        raise PolicyError(f"{where} is no table: write limits such as max_increase = 0.01")
    _refuse_unknown(table, {*LIMITS, "floor", "confidence", "level"}, where)
    limits = [name for name in LIMITS if name in table]
    if not limits:
        raise PolicyError(f"{where} sets no limit: one of {', '.join(LIMITS)}")
    confidence = _number(table, "confidence", 0.95, where)
    floor = _number(table, "floor", 0.0, where)
    if not 0.5 < confidence < 1 or floor < 0:
        raise PolicyError(f"{where}: confidence must be between 0.5 and 1, floor at least 0")
    level = _one_of(table, "level", LEVELS, "error", where)
    found = []
    for limit in limits:
        value, percent = amount(table[limit], f"{where}: {limit}")
        if percent and limit in ("max", "min"):
            raise PolicyError(f"{where}: {limit} is absolute: a percentage needs max_increase")
        if limit.startswith("max_") and value < 0:
            raise PolicyError(f"{where}: {limit} = {table[limit]!r} is negative")
        found.append(Rule(quantity, limit, value, percent, floor, confidence, level))
    return found


def amount(given: Any, where: str) -> tuple[float, bool]:
    """A number as it is, or `"25%"` as (0.25, True).

    Raises:
        PolicyError: neither.
    """
    percent = isinstance(given, str) and given.strip().endswith("%")
    text = given.strip()[:-1] if percent else given
    try:
        value = float("nan") if isinstance(text, bool) else float(text)
    except (TypeError, ValueError):
        value = float("nan")
    if not abs(value) < float("inf"):
        raise PolicyError(f"{where} = {given!r} is neither a number nor a percentage such as '25%'")
    return (value / 100 if percent else value), percent


def _refuse_unknown(table: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise PolicyError(
            f"{where}: unknown key {unknown[0]!r} (version {VERSION} knows "
            f"{', '.join(sorted(known))})"
        )


def _table(table: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, Mapping):
        raise PolicyError(f"{where}: {name} is no table: write [{name}]")
    return found


def _typed(table: Mapping[str, Any], name: str, kind: type, default: Any, where: str) -> Any:
    value = table.get(name, default)
    wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
    if name in table and wrong:
        raise PolicyError(f"{where}: {name} = {value!r} is no {kind.__name__}")
    return value


def _number(table: Mapping[str, Any], name: str, default: float, where: str) -> float:
    value = table.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(f"{where}: {name} = {value!r} is no number")
    return float(value)


def _one_of(
    table: Mapping[str, Any], name: str, options: tuple[str, ...], default: str, where: str
) -> str:
    value = table.get(name, default)
    if value not in options:
        raise PolicyError(f"{where}: {name} = {value!r} is none of {', '.join(options)}")
    return str(value)
