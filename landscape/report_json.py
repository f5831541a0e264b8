"""A verdict as JSON, in the schema of docs/gate.schema.json."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from landscape.errors import UserError
from landscape.records import Array
from landscape.report_text import SCHEMA, Origin
from landscape.result_verdict import Verdict

VERDICTS = ("pass", "refused", "undecided")


def text(verdict: Verdict, origin: Origin) -> str:
    """One object with the verdict, its rules, the values of every group, and provenance.

    A number that is not finite, which JSON lacks, is null; `infinite` of a rule tells whether its
    candidate was without bound.
    """
    rules = [
        {**rule, "infinite": bool(np.isinf(verdict.candidate[i]))}
        for i, rule in enumerate(verdict.rules())
    ]
    document = {
        "format": "landscape.gate",
        "version": SCHEMA,
        "verdict": verdict.verdict,
        "exit_code": origin.exit_code,
        "reason": verdict.reason,
        "title": verdict.title,
        "candidate": asdict(origin.candidate),
        "baseline": None if origin.baseline is None else asdict(origin.baseline),
        "policy": None if origin.policy is None else asdict(origin.policy),
        "task": None if origin.task is None else asdict(origin.task),
        "on_inconclusive": verdict.on_inconclusive,
        "measurement": verdict.measurement,
        "groups_available": verdict.groups_available,
        "rules": rules,
        "groups": _groups(verdict),
        "provenance": {
            "command": origin.command,
            "started": origin.started,
            "seconds": round(origin.seconds, 3),
            "versions": dict(origin.versions),
        },
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def answer(path: Path) -> tuple[str, str, int]:
    """Verdict, reason and exit code of a report.

    Raises:
        UserError: it cannot be read, or is no report of this format.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"there is no verdict {str(path)!r}: the gate has not written it"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{str(path)!r} holds no verdict that can be read: {error}") from error
    is_ours = isinstance(found, dict) and found.get("format") == "landscape.gate"
    if not is_ours or found.get("version") != SCHEMA:
        raise UserError(
            f"{str(path)!r} is no report of version {SCHEMA} that `landscape gate --json` has "
            "written: run the gate again"
        )
    verdict, reason, code = (found.get(name) for name in ("verdict", "reason", "exit_code"))
    if verdict not in VERDICTS or type(code) is not int or not 0 <= code <= 255:
        raise UserError(
            f"{str(path)!r} says {verdict!r} and exit code {code!r}, which is no verdict: run the "
            "gate again"
        )
    return verdict, str(reason), code


def _groups(verdict: Verdict) -> dict[str, dict[str, Any]]:
    """The values of every group that was measured, by quantity."""
    theirs = verdict.group_baseline
    return {
        name: {
            "candidate": _numbers(verdict.group_candidate[i]),
            "baseline": None if theirs is None else _numbers(theirs[i]),
        }
        for i, name in enumerate(verdict.quantity)
    }


def _numbers(values: Array) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]
