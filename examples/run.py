"""Run the examples, and write the table of their claims: `python examples/run.py`.

    python examples/run.py                   # all of them, each with its control
    python examples/run.py sam saddles       # these only; the other rows of the table stay
    python examples/run.py --quick --check   # the quick ones: are the verdicts those of the table?
    python examples/run.py --seeds 6,7,8 --check
    python examples/run.py --table           # writes the table again, runs nothing

What was measured is kept in measured.json, with a digest of the code (docstrings apart) that a test
compares with the example as it stands.
"""

import argparse
import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from claims import NOT_REPRODUCED, Statement, statement
from PIL import Image

HERE = Path(__file__).parent
TABLE, MEASURED, FIGURES = HERE / "README.md", HERE / "measured.json", HERE / "figures"
JOBS = 2  # at a time
LIMIT = 1800  # seconds for one
WIDEST = 900  # pixels of a figure in the repository
SAID = ("measured", "verdict", "picture", "seconds")  # lines that every example prints


@dataclass(frozen=True)
class Outcome:
    """What came of one example."""

    measured: str
    verdict: str
    control: str  # verdict of the control
    seconds: int  # of one core, without the control
    seeds: list[int]
    code: str  # digest


def source(name: str) -> ast.Module:
    """The syntax tree of an example."""
    return ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8"))


def names() -> list[str]:
    """The files with a claim."""
    docs = {path.stem: ast.get_docstring(source(path.stem)) or "" for path in HERE.glob("*.py")}
    return sorted(name for name, doc in docs.items() if "\nClaim (" in doc)


def stated(name: str) -> Statement:
    """What the docstring of an example states."""
    return statement(ast.get_docstring(source(name)) or "")


def constant(name: str, wanted: str) -> object:
    """A constant of an example, which is not imported."""
    for node in source(name).body:
        if isinstance(node, ast.Assign):
            targets = node.targets[0]
            if isinstance(targets, ast.Name) and targets.id == wanted:
                return ast.literal_eval(node.value)
    raise ValueError(f"{name}.py has no {wanted}")


def code(name: str) -> str:
    """A digest of an example, and of what it imports from this folder, without docstrings."""
    digest, todo, done = hashlib.sha256(), [name], set()
    while todo:
        part = todo.pop(0)
        done.add(part)
        text = (HERE / f"{part}.py").read_text(encoding="utf-8")
        tree = ast.parse(text)
        begin = tree.body[0].end_lineno or 0  # of the docstring
        digest.update("\n".join(text.splitlines()[begin:]).strip().encode())
        beside = {n.module for n in tree.body if isinstance(n, ast.ImportFrom) and n.module}
        beside = {b for b in beside if b != "claims" and (HERE / f"{b}.py").exists()}
        todo += sorted(beside - done - set(todo))
    return digest.hexdigest()[:16]


def run(name: str, folder: Path, *options: str) -> dict[str, str]:
    """What an example prints at its end; ends where it does not come to that."""
    command = [sys.executable, str(HERE / f"{name}.py"), str(folder), *options]
    environment = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT)
    lines = (line.partition(": ") for line in done.stdout.splitlines())
    found = {key: value for key, _, value in lines if key in SAID}
    if set(found) != set(SAID):
        sys.exit(f"{name} {' '.join(options)}: no verdict\n{done.stdout}{done.stderr}")
    return found


def outcome(name: str, folder: Path) -> Outcome:
    """Runs an example and its control, and keeps its figure."""
    found = run(name, folder / name)
    control = run(name, folder / f"{name}-control", "--control")
    keep(Path(found["picture"]), FIGURES / f"{name}.png")
    seeds = constant(name, "SEEDS")
    assert isinstance(seeds, tuple)
    return Outcome(
        measured=found["measured"],
        verdict=found["verdict"],
        control=control["verdict"],
        seconds=int(found["seconds"]),
        seeds=[*seeds],
        code=code(name),
    )


def keep(picture: Path, target: Path) -> None:
    """A copy in few colours, for the size of the repository."""
    image = Image.open(picture).convert("RGB")
    image.thumbnail((WIDEST, 10 * WIDEST))
    target.parent.mkdir(exist_ok=True)
    image.quantize(128).save(target, optimize=True)


def known() -> dict[str, Outcome]:
    """What was measured before, of examples that are still there."""
    if not MEASURED.exists():
        return {}
    rows = json.loads(MEASURED.read_text(encoding="utf-8"))
    return {name: Outcome(**row) for name, row in rows.items() if name in names()}


def table(outcomes: Mapping[str, Outcome]) -> str:
    """The text of README.md."""
    lines = [
        "# Claims of the field, as this tool measures them",
        "",
        "<!-- Written by run.py from the examples and measured.json: do not edit. -->",
        "",
        "Each example trains small networks in minutes, and comes to a verdict by thresholds that",
        "were fixed on other seeds than those of the table. Each has a control, in which something",
        "is planted so that the claim must not come out. `make examples` runs all and writes this",
        "table; `python examples/NAME.py --help` says more. Seconds are those of one core.",
        "",
        "| Example | Claim | Paper | Measured | Verdict | Control | Seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in sorted(outcomes.items()):
        said = stated(name)
        cells = [f"[{name}]({name}.py), [figure](#{name})", said.claim, said.paper, row.measured]
        cells += [f"**{row.verdict}**", row.control, str(row.seconds)]
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    for name in sorted(outcomes):
        said = stated(name)
        lines += ["", f"## {name}", "", f"Reproduced where {said.thresholds}", ""]
        lines += [f"Control: {said.control}", "", f"![{said.claim}](figures/{name}.png)"]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what was asked for; 1 where a verdict is not that of the table, or a control fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of examples; all by default")
    parser.add_argument("--quick", action="store_true", help="those of seconds only")
    parser.add_argument("--check", action="store_true", help="compare verdicts, write nothing")
    parser.add_argument("--seeds", help="with --check: others than those of the table")
    parser.add_argument("--table", action="store_true", help="write the table, run nothing")
    given = parser.parse_args()
    if unknown := set(given.names) - set(names()):
        parser.error(f"no example {', '.join(unknown)}: there are {', '.join(names())}")
    if given.seeds and not given.check:
        parser.error("--seeds go with --check: the table has the seeds of the examples")
    chosen = [n for n in given.names or names() if not given.quick or constant(n, "QUICK")]
    wrong = 0
    with tempfile.TemporaryDirectory() as work, ThreadPoolExecutor(JOBS) as pool:
        if given.check:
            options = ("--seeds", given.seeds) if given.seeds else ()
            wrong = sum(pool.map(lambda n: differs(n, Path(work) / n, *options), chosen))
        elif not given.table:
            futures = {name: pool.submit(outcome, name, Path(work)) for name in chosen}
            for name, future in futures.items():
                try:
                    wrong += kept(name, future.result())
                except SystemExit as error:  # of this one: the others go on
                    print(error, file=sys.stderr)
                    wrong += 1
    if not given.check:
        TABLE.write_text(table(known()), encoding="utf-8")
    sys.exit(wrong > 0)


def differs(name: str, folder: Path, *options: str) -> bool:
    """Whether an example comes to another verdict than in the table; says so."""
    found = run(name, folder, *options)
    before = known()[name].verdict
    word = "as in the table" if found["verdict"] == before else f"but {before} in the table"
    print(f"{name}: {found['verdict']}, {word}: {found['measured']}", flush=True)
    return found["verdict"] != before


def kept(name: str, one: Outcome) -> bool:
    """Writes an outcome to measured.json; whether its control has failed."""
    rows = {**{n: asdict(o) for n, o in known().items()}, name: asdict(one)}
    text = json.dumps(dict(sorted(rows.items())), indent=2, ensure_ascii=False)
    MEASURED.write_text(f"{text}\n", encoding="utf-8")
    words = f"{one.verdict} ({one.seconds} s), control {one.control}: {one.measured}"
    print(f"{name}: {words}", flush=True)
    return one.control != NOT_REPRODUCED


if __name__ == "__main__":
    main()
