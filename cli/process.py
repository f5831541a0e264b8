"""How the process runs: settings of the C library that make evaluations faster."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # <malloc.h> of glibc


def keep_freed_memory() -> None:
    """Let the allocator keep freed memory instead of giving it back to the system each time.

    Every evaluation allocates the same activations again. Where each of them was a fresh mapping,
    page faults took up to half of the time of a small CNN's forward pass on a CPU. A no-op
    without glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 256 << 20)
        mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the largest it takes
