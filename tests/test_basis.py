"""The Krylov basis on the device, on the host and in a file."""

import tempfile

import numpy as np
import pytest
import torch
from oracles import Operations

from landscape import basis, krylov, store
from landscape.errors import UserError
from landscape.lanczos import Search

pytest_plugins = ["keyboard"]

SIZE = 40_000


SPECTRUM = torch.linspace(-0.1, 0.4, SIZE, dtype=torch.float64)
SPECTRUM[:8] = torch.tensor([-2.0, -1.4, -1.0, -0.7, 1.3, 1.7, 2.2, 3.0])


def matrix(v):
    return SPECTRUM * v


def run(place, **options):
    found = Search(
        matrix,
        torch.zeros(SIZE, dtype=torch.float64),
        2,
        generator=torch.Generator().manual_seed(0),
        place=place,
        basis=16,  # restarts thick
        multiplicity=False,
        tolerance=1e-9,
        **options,
    )
    for _ in found:
        pass
    return found.pairs()


def same_bits(a, b):
    return np.array_equal(a.values, b.values) and torch.equal(a.vectors, b.vectors)


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_every_place_gives_the_same_bits(place):
    pairs = run("auto")
    assert pairs.converged.all()
    assert pairs.products > 17
    assert same_bits(pairs, run(place))


def test_blocks_of_columns_give_the_same_bits(monkeypatch):
    whole = run("disk")
    monkeypatch.setattr(basis, "BLOCK", 1)
    assert len(list(basis.blocks(torch.empty(2, SIZE), torch.device("cpu")))) == 3
    assert same_bits(whole, run("disk"))


def test_rows_that_lie_elsewhere_come_a_block_at_a_time(monkeypatch):
    monkeypatch.setattr(basis, "BLOCK", 4 * basis.CHUNK)
    rows, elsewhere = torch.empty(4, SIZE), torch.device("meta")
    with Operations() as operations:
        found = [(columns, block.shape) for columns, block in basis.blocks(rows, elsewhere)]
    assert sum(shape[1] for _, shape in found) == SIZE
    assert max(shape.numel() for _, shape in found) == 4 * basis.CHUNK
    # The rows themselves are seen as they are sliced; beside them there is one block.
    assert operations.peak == rows.nbytes + 4 * basis.CHUNK * rows.element_size()


def test_a_search_in_a_file_holds_two_vectors_beside_those_of_the_matrix():
    v = torch.zeros(SIZE)
    lanczos = krylov.Krylov(lambda v: v, v, 20, torch.Generator().manual_seed(0), place="disk")
    lanczos.begin()
    with Operations() as operations:
        lanczos.expand()
    assert operations.peak <= lanczos.rows.nbytes + 2 * v.nbytes


def test_the_file_has_no_name_from_the_beginning_so_that_nothing_is_left(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = basis.allocate("disk", 3, torch.zeros(1000, dtype=torch.float64))
    rows.fill_(2.0)
    assert list(tmp_path.iterdir()) == []
    assert (rows.shape, rows.dtype, rows.sum()) == ((3, 1000), torch.float64, 6000)


def test_a_full_disk_is_refused_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError, match=r"no room for 4.4e\+03 GB of Krylov basis in .*TMPDIR"):
        basis.allocate("disk", 1 << 20, torch.zeros(1 << 20))
    assert list(tmp_path.iterdir()) == []


def test_hessian_takes_a_basis_on_disk(terminal):
    command = ("hessian", "ckpt.pt", "--count", "2", "--probes", "2", "--no-plot", "--overwrite")
    assert terminal.run(*command).code == 0
    here = store.load(terminal.folder / "ckpt.hessian.h5")
    assert terminal.run(*command, "--basis-device", "disk").code == 0
    there = store.load(terminal.folder / "ckpt.hessian.h5")
    assert np.array_equal(here.eigenvalue, there.eigenvalue)
    assert here.trace == there.trace
    refused = terminal.run(*command, "--basis-device", "tape")
    assert refused.code == 2
    assert "'tape' is none of auto, cpu, disk" in refused.text
