"""`python -m landscape.cli`, the same as `landscape`; of several ranks, one tells of mistakes."""

import sys

from . import app
from .launch import is_first

if is_first():
    app(prog_name="landscape")
else:
    try:
        sys.exit(app(prog_name="landscape", standalone_mode=False) or 0)
    except Exception as error:
        if not hasattr(error, "exit_code"):
            raise
        sys.exit(error.exit_code)
