"""`landscape merge` as a person runs it."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_cli_connect import pair, plain_loss

from landscape import store

pytest_plugins = ["keyboard"]


def state(terminal, name):
    return torch.load(terminal.folder / name)


def test_the_merged_file_is_the_mean_with_new_statistics(terminal):
    pair(terminal)
    done = terminal.run("merge", "a.pt", "b.pt", "-o", "m.pt", "--weights", "3,1")
    assert (done.code, done.out) == (0, "m.merge.h5\n")
    a, b, m = (state(terminal, f"{name}.pt") for name in "abm")
    assert m.keys() == a.keys()
    torch.testing.assert_close(m["1.weight"], 0.75 * a["1.weight"] + 0.25 * b["1.weight"])
    assert not torch.equal(
        m["2.running_var"], 0.75 * a["2.running_var"] + 0.25 * b["2.running_var"]
    )
    result = store.load(terminal.folder / "m.merge.h5")
    assert result.model == ("a.pt", "b.pt", "m.pt")
    assert result.loss.value[-1] == pytest.approx(plain_loss(terminal, m), rel=1e-5)
    np.testing.assert_allclose(result.loss.difference, result.loss.value[-1] - result.loss.value)
    assert result.loss.difference_stderr[-1] == 0
    assert "above the loss of the best input" in done.err
    assert (terminal.folder / "m.merge.png").stat().st_size > 5_000


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_network_with_itself_gives_the_same_file(terminal, suffix):
    weights = terminal.network().state_dict()
    for name in "ab":
        path = terminal.folder / f"{name}{suffix}"
        save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    done = terminal.run("merge", f"a{suffix}", f"b{suffix}", "--no-plot")
    assert done.code == 0, done.err
    path = terminal.folder / f"merged{suffix}"
    merged = load_file(path) if suffix == ".safetensors" else torch.load(path)
    assert merged.keys() == weights.keys()
    for name, tensor in weights.items():
        assert merged[name].dtype == tensor.dtype
        assert torch.equal(merged[name], tensor), name
    assert "exactly" in done.err


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_of_the_file_is_kept(terminal, dtype):
    for name, seed in zip("ab", (0, 1), strict=True):
        held = terminal.network(seed=seed).state_dict()
        held = {n: t.to(dtype) if t.is_floating_point() else t for n, t in held.items()}
        torch.save(held, terminal.folder / f"{name}.pt")
    assert terminal.run("merge", "a.pt", "b.pt", "-o", "m.pt", "--no-plot").code == 0
    merged = state(terminal, "m.pt")
    assert {t.dtype for t in merged.values() if t.is_floating_point()} == {dtype}
    a, b = state(terminal, "a.pt"), state(terminal, "b.pt")
    true = (a["1.weight"].double() + b["1.weight"].double()) / 2
    assert torch.equal(merged["1.weight"], true.to(dtype))


def test_a_greedy_soup_is_no_worse_than_its_best_on_what_it_chooses_by(terminal):
    pair(terminal)
    torch.save(terminal.network(seed=2).state_dict(), terminal.folder / "c.pt")
    run = ("merge", "a.pt", "b.pt", "c.pt", "--method", "greedy-soup", "--no-plot", "-o", "m.pt")
    done = terminal.run(*run, "--held-out", "none", "--bn", "keep")
    assert done.code == 0, done.err
    result = store.load(terminal.folder / "m.merge.h5")
    assert result.loss.value[-1] <= result.loss.value[:-1].min() * (1 + 1e-6)
    assert result.weight[:-1].sum() == pytest.approx(1)
    done = terminal.run(*run, "--overwrite")
    assert "chosen by the loss on val" in done.err


def test_a_permuted_copy_merges_to_the_network_itself_once_aligned(terminal):
    weights = terminal.network().state_dict()
    torch.save(weights, terminal.folder / "a.pt")
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    moved = {n: t[order] if t.shape[:1] == (12,) else t for n, t in weights.items()}
    moved["4.weight"] = weights["4.weight"][:, order]
    torch.save(moved, terminal.folder / "b.pt")
    done = terminal.run("merge", "a.pt", "b.pt", "--align", "weights", "--no-plot", "-o", "m.pt")
    assert done.code == 0, done.err
    merged = state(terminal, "m.pt")
    assert all(torch.equal(merged[name], tensor) for name, tensor in weights.items())
    plain = terminal.run("merge", "a.pt", "b.pt", "--no-plot", "-o", "p.pt")
    assert "above the loss" in plain.err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("merge", "a.pt", "b.pt"), "they are merged as if they were weights"),
        (("connect", "a.pt", "b.pt", "--method", "line", "--align", "none"), "not that checkpoint"),
        (("connect", "a.pt", "b.pt", "c.pt", "--align", "none"), "not that checkpoint itself"),
        (("surface", "a.pt", "--direction-to", "b.pt", "--resolution", "3x3"), "do not move"),
    ],
)
def test_buffers_that_differ_beside_those_of_batchnorm_are_told(terminal, command, said):
    """A spectral norm keeps the vectors by which it knows the norm of its weight."""
    task = (terminal.folder / "landscape_task.py").read_text()
    plain, normed = "nn.Linear(width, 10)", "nn.utils.parametrizations.spectral_norm"
    task = task.replace(plain, f"{normed}({plain})")
    (terminal.folder / "landscape_task.py").write_text(task)
    namespace = {}
    exec(task, namespace)
    for seed, name in enumerate("abc"):
        torch.manual_seed(seed)
        torch.save(namespace["model"]().state_dict(), terminal.folder / f"{name}.pt")
    done = terminal.run(*command, "--no-plot")
    assert done.code == 0, done.err
    (line, *_) = [line for line in done.err.splitlines() if "note: b.pt differs" in line]
    assert "'4.parametrizations.weight.0._u', '4.parametrizations.weight.0._v'" in line
    assert "running" not in line
    assert said in line


def test_task_vectors_need_their_base(terminal):
    pair(terminal)
    run = ("merge", "a.pt", "b.pt", "--base", "ckpt.pt", "-o", "m.pt", "--no-plot", "--bn", "keep")
    done = terminal.run(*run, "--method", "task-arithmetic", "--weights", "0.5,-0.25")
    assert done.code == 0, done.err
    base, a, b, m = (state(terminal, f"{name}.pt") for name in ("ckpt", "a", "b", "m"))
    true = base["1.weight"] + 0.5 * (a["1.weight"] - base["1.weight"])
    true -= 0.25 * (b["1.weight"] - base["1.weight"])
    torch.testing.assert_close(m["1.weight"], true)
    assert store.load(terminal.folder / "m.merge.h5").base == "ckpt.pt"
    assert terminal.run(*run, "--method", "ties", "--overwrite").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("a.pt",), 1, "name two or more"),
        (("a.pt", "b.pt", "--weights", "1"), 2, "2 finite numbers"),
        (("a.pt", "b.pt", "--weights", "1,-1"), 2, "sum must be positive"),
        (("a.pt", "b.pt", "--method", "ties"), 2, "which need it"),
        (("a.pt", "b.pt", "--base", "ckpt.pt"), 2, "which need it"),
        (("a.pt", "b.pt", "ckpt.pt", "--method", "slerp"), 2, "two checkpoints"),
        (("a.pt", "b.pt", "-o", "a.pt"), 1, "one of the inputs"),
        (("a.pt", "b.pt", "-o", "wide.pt"), 1, "exists already"),
        (("a.pt", "wide.pt"), 1, "does not fit the network"),
        (("a.pt", "b.pt", "--method", "greedy-soup", "--by", "taste"), 1, "accuracy"),
    ],
)
def test_mistakes_are_refused_and_leave_files_as_they_were(terminal, arguments, code, words):
    pair(terminal)
    torch.save(terminal.network(width=9).state_dict(), terminal.folder / "wide.pt")
    before = terminal.files()
    done = terminal.run("merge", *arguments)
    assert done.code == code
    assert words in " ".join(done.err.split())
    assert terminal.files() == before
