"""Where the rows of a Krylov basis lie, and how they are looked at from the device of the vectors.

They may take more memory than the device has: then they lie on the host, or in a file, and go to
the device a block of columns at a time.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator

import torch
from torch import Tensor

from landscape.device import free_memory
from landscape.errors import UserError

PLACES = ("auto", "cpu", "disk")
CHUNK = 1 << 14  # columns: no block ends within a chunk of them
BLOCK = 1 << 25  # entries that are on the device at a time, about


def allocate(place: str, count: int, like: Tensor) -> Tensor:
    """Room for `count` rows like the vector `like` (P,).

    Args:
        place: "auto" for the device of `like`, or the host where half of what is free there is
            not enough; "cpu" for the host, pinned where `like` is on CUDA; "disk" for a file in
            the folder of temporary files, which is gone when the tensor is, or the process.
        count: of rows.
        like: gives length, dtype and device.

    Raises:
        UserError: the disk is full.
    """
    if place not in PLACES:
        raise ValueError(f"place {place!r} is none of {', '.join(PLACES)}")
    size = count * like.numel() * like.element_size()
    if place == "disk":
        return _mapped(count, like)
    if place == "auto" and (like.device.type == "cpu" or size <= free_memory(like.device) // 2):
        return torch.empty(count, like.numel(), dtype=like.dtype, device=like.device)
    pinned = like.device.type == "cuda"
    return torch.empty(count, like.numel(), dtype=like.dtype, pin_memory=pinned)


def _mapped(count: int, like: Tensor) -> Tensor:
    """Rows in a file that has no name any more: nothing but the tensor keeps it."""
    size, folder = count * like.numel(), tempfile.gettempdir()
    needed = size * like.element_size()
    free = shutil.disk_usage(folder).free
    try:
        if free < needed:
            raise OSError(errno.ENOSPC, f"{free / 1e9:.3g} GB are free")
        with tempfile.NamedTemporaryFile(prefix="landscape-basis-", dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # else a full disk ends the process, without a word
                os.posix_fallocate(file.fileno(), 0, needed)
            rows = torch.from_file(file.name, shared=True, size=size, dtype=like.dtype)
    except OSError as error:
        raise UserError(
            f"no room for {needed / 1e9:.3g} GB of Krylov basis in {folder!r} ({error.strerror}): "
            "let TMPDIR name a larger disk, or pass a smaller --basis"
        ) from error
    return rows.view(count, like.numel())


def blocks(rows: Tensor, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of columns and the `rows` (n, P) there, on `device`; copied if they lie elsewhere.

    A block is to be used before the next is asked for.
    """
    count, size = rows.shape
    step = max(CHUNK, BLOCK // max(1, count) // CHUNK * CHUNK)
    elsewhere = rows.device != device
    buffer = rows.new_empty(count * min(step, size), device=device) if elsewhere else rows
    for start in range(0, size, step):
        columns = slice(start, min(start + step, size))
        block = rows[:, columns]
        if elsewhere:
            block = buffer[: block.numel()].view(block.shape)
            for here, there in zip(block, rows, strict=True):
                here.copy_(there[columns], non_blocking=True)  # a row of it lies in one piece
        yield columns, block
