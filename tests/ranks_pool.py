"""Many commands over the same ranks, which start once: run by a launcher, `ranks_pool.py FILE`.

FILE holds commands by name in JSON, in which RANK stands for the number of the rank; beside it
each rank leaves how each of them ended.
"""

import contextlib
import io
import json
import os
import sys
from pathlib import Path

from landscape.cli import app


def run(command: list[str]) -> dict[str, object]:
    """One command, as a rank runs it."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = app(command, prog_name="landscape", standalone_mode=False) or 0
        except Exception as error:
            code = error.exit_code  # wrong usage; anything else is an accident
            print(error, file=sys.stderr)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


if __name__ == "__main__":
    source, rank = Path(sys.argv[1]), os.environ["RANK"]
    commands = json.loads(source.read_text().replace("RANK", rank))
    ends = {name: run(command) for name, command in commands.items()}
    source.with_suffix(f".{rank}").write_text(json.dumps(ends))
