"""`python -m landscape.cli`, the same as `landscape`."""

from . import app

app(prog_name="landscape")
