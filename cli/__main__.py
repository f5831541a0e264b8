"""`python -m landscape.cli`, the same as `landscape`."""

from . import app
from .launch import arguments

app(arguments(), prog_name="landscape")
