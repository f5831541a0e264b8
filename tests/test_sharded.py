"""A network that is split over processes gives the numbers of the whole one."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import split_network
import torch
import torch.distributed.checkpoint as dcp

from landscape import checkpoint_distributed, store
from landscape.errors import UserError

pytest_plugins = ["keyboard"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes leave a distributed checkpoint."""
    return tmp_path_factory.mktemp("split") / "dcp"


@pytest.fixture(scope="module")
def found(folder):
    """What two processes have measured."""
    path = folder.with_name("found.pt")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", "2", Path(__file__).with_name("split_network.py"), path],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return torch.load(path)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_losses_directions_gradients_and_products_are_those_of_one_process(found, dtype, bound):
    whole, split = split_network.measured(dtype), found[str(dtype)]
    assert whole.keys() == split.keys()
    for name, expected in whole.items():
        scale = float(expected.abs().max())
        torch.testing.assert_close(split[name], expected, rtol=0, atol=bound * scale, msg=name)


@pytest.mark.slow
def test_eigenvalues_are_those_of_one_process(found):
    whole = split_network.eigenvalues(torch.float64)["eigenvalues"]
    torch.testing.assert_close(found["eigenvalues"]["eigenvalues"], whole, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_no_process_ever_holds_the_whole_network(found):
    taken, by_one = found["memory"], split_network.memory(split=False)
    for name, most in by_one.items():
        assert taken[name] < 0.7 * most, (name, taken[name], most)
    assert taken["forward"] < 0.65 < by_one["forward"]  # theta, and a layer at a time


@pytest.mark.slow
def test_a_surface_of_a_distributed_checkpoint(terminal, found, folder):
    command = ("--resolution", "5x5", "--no-plot", "--batch-size", "20")
    split = ("--processes", "2", "--fsdp", "--trust-pickle")
    two = terminal.launch("surface", folder, *command, *split, "-o", "two.h5")
    one = terminal.launch("surface", "ckpt.pt", *command, "-o", "one.h5")
    assert (one.code, two.code) == (0, 0), two.err
    a, b = (store.load(terminal.folder / f"{name}.h5") for name in ("one", "two"))
    np.testing.assert_allclose(a.loss.grid, b.loss.grid, rtol=1e-6)


def test_a_distributed_checkpoint_is_paired_with_the_network_by_its_index(tmp_path, terminal):
    net = terminal.network()
    weights = {f"module.{name}": tensor for name, tensor in net.state_dict().items()}
    saved = {"app": {"model": weights, "optim": {"state": {"a": torch.ones(2)}}}, "step": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a process by itself
        dcp.save(saved, checkpoint_id=tmp_path, no_dist=True)
    with pytest.raises(UserError, match=r"index would have to run code .*pass --trust-pickle"):
        checkpoint_distributed.read(tmp_path, net)
    found = checkpoint_distributed.read(tmp_path, net, trust_pickle=True)
    assert found.keys == {name: f"app.model.module.{name}" for name in net.state_dict()}
    assert found.notes[-1] == "stripped prefix 'module.'"
    with pytest.raises(UserError, match=r"does not fit the network, .* of another shape"):
        checkpoint_distributed.read(tmp_path, terminal.network(width=5), trust_pickle=True)
    (tmp_path / ".metadata").write_bytes(b"no pickle")
    with pytest.raises(UserError, match=r"has a damaged index \(UnpicklingError\)"):
        checkpoint_distributed.read(tmp_path, net, trust_pickle=True)


def test_what_a_split_network_cannot_do_is_refused(terminal):
    alone = terminal.run("surface", "ckpt.pt", "--fsdp")
    assert alone.code == 1
    assert "--fsdp needs several processes: add --processes N" in alone.err
    for command in (
        ("hessian", "ckpt.pt", "--vectors"),
        ("sharpness", "ckpt.pt", "--measure", "keskar"),
        ("line", "ckpt.pt", "--mark", "other.pt"),
    ):
        refused = terminal.run(*command, "--fsdp")
        assert refused.code == 2
        assert "needs whole vectors in one process, which --fsdp does without" in refused.text
