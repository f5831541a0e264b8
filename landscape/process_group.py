"""The processes of one run: how they find each other, and what they leave word of.

Nothing here knows networks. `ranks` computes over the group that `start` joins.
"""

import contextlib
import os
import re
import time
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from landscape.errors import Lost, UserError

TIMEOUT = timedelta(minutes=30)  # of a collective: the longest step of another rank
PATIENCE = 3.0  # seconds, for the word of a rank that may have died
PLACES = ("RANK", "MASTER_ADDR", "MASTER_PORT")  # what the environment has to say beside the size

_store: Any = None  # a store of torch, where all ranks leave word
_joined = 0  # groups so far: the store keeps the keys of those before


def start(device: torch.device) -> None:
    """Join the process group that a launcher has set up, if there is one and we are not in it.

    Raises:
        UserError: the environment is incomplete, the device has no way to sum over processes, or
            the others are not found.
    """
    global _joined, _store
    total = _number("WORLD_SIZE", 1)
    if total == 1 or (dist.is_available() and dist.is_initialized()):
        return
    backend = _backend(device)
    rank, address = _place(total)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where objects are exchanged
    try:
        found, *_ = next(rendezvous("env://", timeout=TIMEOUT))
        dist.init_process_group(
            backend,
            store=_part(found, f"group {_joined}"),
            rank=rank,
            world_size=total,
            timeout=TIMEOUT,
        )
        dist.barrier()  # before that, one that leaves would break the meeting of the others
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the {total} processes do not find each other at {address}: {_line(error)}"
        ) from error
    _store = _part(found, f"words {_joined}")
    _joined += 1


def _part(store: Any, name: str) -> Any:
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]

    return PrefixStore(name, store)


def own_cuda(count: int) -> str:
    """The CUDA device of this process, where a machine of `count` devices runs several.

    Raises:
        UserError: there are more processes than devices.
    """
    here = _number("LOCAL_WORLD_SIZE", 1)
    if here > count:
        raise UserError(
            f"{here} processes on a machine with {count} CUDA devices: start {count}, or pass "
            "--device cpu"
        )
    return f"cuda:{_number('LOCAL_RANK', 0)}"


@contextlib.contextmanager
def collective() -> Iterator[None]:
    """What the others have to do too; fails where one of them does not.

    Raises:
        Lost: it failed.
    """
    try:
        yield
    except RuntimeError as error:
        traceback.clear_frames(error.__traceback__)  # they would keep the connections open
        raise Lost(f"another process of this run has ended ({_line(error)})") from error


def finish() -> None:
    """Leave the group once all have come so far."""
    if dist.is_available() and dist.is_initialized():
        with collective():
            dist.barrier()
        part()


def part() -> None:
    """Leave the group, so that nobody waits for what this rank will not do.

    A process that ends inside of it may abort on its way out.
    """
    global _store
    if dist.is_available() and dist.is_initialized():
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
    _store = None


def leave_word(text: str) -> dict[int, str]:
    """Leave word for the other ranks, of why this one ends; what they have left, by rank.

    Waits a few seconds for those that have said nothing yet: they have ended, or are busy. There
    are no words where there is no group.
    """
    store = _store
    if store is None:
        return {}
    words: dict[int, str] = {}
    rank, total = dist.get_rank(), dist.get_world_size()
    until = time.monotonic() + PATIENCE
    with contextlib.suppress(RuntimeError):  # the store has gone with its host
        store.set(str(rank), text)
        part()
        while len(words) < total:
            for other in set(range(total)) - words.keys():
                if store.check([str(other)]):
                    words[other] = store.get(str(other)).decode()
            if time.monotonic() > until:
                break
            time.sleep(0.05)
    return words


def _backend(device: torch.device) -> str:
    if not dist.is_available():
        raise UserError(
            "this build of PyTorch has no torch.distributed: install one that has, or use one "
            "process"
        )
    if device.type == "cpu":
        return "gloo"
    if device.type != "cuda":
        raise UserError(
            f"several processes cannot sum on --device {device.type}: pass --device cpu"
        )
    if not dist.is_nccl_available():
        raise UserError(
            "this build of PyTorch has no NCCL, with which CUDA devices sum: install one that has, "
            "pass --device cpu, or use one process"
        )
    return "nccl"


def _place(total: int) -> tuple[int, str]:
    """The number of this rank, and the address where all meet."""
    missing = [name for name in PLACES if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {total} and {' and '.join(missing)} not set: start the command with "
            "torchrun or --processes, or unset WORLD_SIZE"
        )
    rank = _number("RANK", 0)
    if rank >= total:
        raise UserError(f"RANK is {rank} and WORLD_SIZE {total}: ranks count from 0")
    return rank, f"{os.environ['MASTER_ADDR']}:{_number('MASTER_PORT', 0)}"


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(
            f"the environment has {name}={text}, which is no number: start the command with "
            f"torchrun or --processes, or unset {name}"
        )
    return int(text)


def _line(error: Exception) -> str:
    """What is of use in a message of torch: no places in its sources, no advice."""
    text = str(error).strip() or type(error).__name__
    return re.sub(r"\[/\S+\] ", "", text.splitlines()[0].partition(". This is typically")[0])
