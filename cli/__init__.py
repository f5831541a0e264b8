"""The command line, installed as `landscape`."""

import os

# With idle threads spinning, two torch threads on a busy machine ran 7 to 25 times slower.
# Read by the OpenMP runtime when torch is first imported, so it is set before any command runs.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .app import app

__all__ = ["app"]
