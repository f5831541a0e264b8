"""What a device can do and has free."""

import os

import torch


def accumulator(device: torch.device) -> torch.dtype:
    """The widest floating type of a device, for sums over many numbers."""
    return torch.float32 if device.type == "mps" else torch.float64


def free_memory(device: torch.device) -> int:
    """Bytes that could be allocated now; 8 GiB where nobody can tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 << 30
