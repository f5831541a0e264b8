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
from types import SimpleNamespace

import keyboard
import torch

from landscape import process_group
from landscape.batches import Batches
from landscape.cli import app
from landscape.objective import Objective
from landscape.space import trainable
from landscape.task import from_object


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


def summed() -> list[list[int]]:
    """The sizes of what a rank has summed for each of three products: graphs kept, and not."""
    device, counted = torch.device("cpu"), []
    process_group.start(device)
    add = torch.distributed.all_reduce

    def all_reduce(tensor):
        counted[-1].append(tensor.nbytes)
        return add(tensor)

    torch.distributed.all_reduce = all_reduce
    namespace = {}
    exec(keyboard.TASK, namespace)
    task = from_object(SimpleNamespace(**{n: namespace[n] for n in ("model", "data", "loss")}))
    net = keyboard.network()
    where = trainable(net, dtype=torch.float32, device=device)
    objective = Objective(task, net, where, Batches(task.data, batch_size=20))
    theta = objective.theta()
    for memory in (1 << 30, 0):
        product = objective.hessian(theta, memory=memory)
        for _ in range(3):
            counted.append([])
            product(theta)
    torch.distributed.all_reduce = add
    process_group.finish()
    return counted


if __name__ == "__main__":
    source, rank = Path(sys.argv[1]), os.environ["RANK"]
    commands = json.loads(source.read_text().replace("RANK", rank))
    ends = {name: run(command) for name, command in commands.items()}
    ends["summed"] = summed()
    source.with_suffix(f".{rank}").write_text(json.dumps(ends))
