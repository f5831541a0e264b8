"""`landscape hessian` as a person runs it; the numbers are compared with torch used by hand."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from test_cli_surface import data

from landscape import store
from landscape.products import Hessian

pytest_plugins = ["keyboard"]

QUICK = ("--no-plot", "--dtype", "float64")


def dense(terminal, name="ckpt.pt", only=None):
    """The Hessian of the mean training loss at a file's weights, in float64."""
    net = terminal.network()
    net.load_state_dict(torch.load(terminal.folder / name, weights_only=True))
    net = net.double().eval()
    names = [n for n, _ in net.named_parameters() if only is None or n in only]
    weights = dict(net.named_parameters())
    images, labels = data()

    def mean(theta):
        sizes = [weights[n].numel() for n in names]
        pieces = zip(names, theta.split(sizes), strict=True)
        inside = {n: piece.view(weights[n].shape) for n, piece in pieces}
        scores = torch.func.functional_call(net, inside, (images.double(),))
        return F.cross_entropy(scores, labels)

    theta = torch.cat([weights[n].detach().reshape(-1) for n in names])
    return torch.autograd.functional.hessian(mean, theta, vectorize=True)


def load(terminal, name="ckpt.hessian.h5"):
    return store.load(terminal.folder / name)


def test_both_ends_and_the_trace_are_those_of_the_dense_hessian(terminal):
    H = dense(terminal)
    assert terminal.run("hessian", "ckpt.pt", *QUICK, "--probes", "40").code == 0
    result, true = load(terminal), torch.linalg.eigvalsh(H).flip(0).numpy()
    np.testing.assert_allclose(result.eigenvalue[:5], true[:5], rtol=1e-4)
    np.testing.assert_allclose(result.eigenvalue[5:], true[-5:], atol=1e-3 * true[0])
    assert abs(result.trace - float(H.trace())) <= 3 * result.trace_stderr
    assert result.complete
    assert result.title == "Hessian of the loss at ckpt.pt (train split)"


def test_every_part_is_said_stored_and_drawn(terminal):
    more = ("--density", "--per", "block", "--vectors", "--diagonal", "--steps", "20")
    done = terminal.run("hessian", "ckpt.pt", *more)
    assert done.code == 0
    assert done.out.strip() == "ckpt.hessian.h5"
    for word in ("eigenvalue: ", "curvature: ", "trace: ", "bulk: 98 %", "block 1: lambda_max"):
        assert word in done.err
    assert (terminal.folder / "ckpt.hessian.png").stat().st_size > 10_000
    result = load(terminal)
    assert result.block == ("1", "2", "4")
    assert result.density is not None
    shown = terminal.run("show", "ckpt.hessian.h5")
    assert "condition" in shown.out
    assert terminal.run("plot", "ckpt.hessian.h5", "-o", "again.svg").code == 0
    summary = json.loads(terminal.run("show", "ckpt.hessian.h5", "--json").out)
    assert summary["blocks"]["4"]["parameters"] == 130
    assert summary["config"]["per"] == "block"


def test_eigenvectors_and_the_diagonal_are_written_by_name(terminal):
    run = ("hessian", "ckpt.pt", *QUICK, "--vectors", "--diagonal", "--count", "3")
    assert terminal.run(*run).code == 0
    H, net = dense(terminal), terminal.network()
    with safe_open(terminal.folder / "ckpt.hessian.vectors.safetensors", "pt") as file:
        values = json.loads(file.metadata()["eigenvalues"])
        parts = [n for n, _ in net.named_parameters()]
        for rank, value in enumerate(values, 1):
            pieces = [file.get_tensor(f"eigenvector.{rank}.{n}").reshape(-1) for n in parts]
            v = torch.cat(pieces)
            assert float(v.norm()) == pytest.approx(1)
            assert float((H @ v - value * v).norm()) <= 1e-3 * abs(values[0])
        diagonal, stderr = (
            torch.cat([file.get_tensor(f"{what}.{n}").reshape(-1) for n in parts])
            for what in ("diagonal", "diagonal_stderr")
        )
    off = (diagonal - H.diagonal()).abs()
    assert float((off <= 4 * stderr + 1e-9).double().mean()) > 0.95


def test_a_part_of_the_network_has_its_principal_submatrix(terminal):
    assert terminal.run("hessian", "ckpt.pt", *QUICK, "--only", r"^4\.", "--no-1d").code == 0
    true = torch.linalg.eigvalsh(dense(terminal, only=["4.weight"])).flip(0).numpy()
    result = load(terminal)
    assert result.parameters == 120
    np.testing.assert_allclose(result.eigenvalue[:5], true[:5], rtol=1e-4)
    refused = terminal.run("hessian", "ckpt.pt", "--only", "nothing", "-o", "x.h5")
    assert refused.code == 1
    assert "--only 'nothing' matches none of the 6 tensors" in refused.err


def test_weight_decay_shifts_the_spectrum_where_it_is_asked_for(terminal):
    one = terminal.run("hessian", "ckpt.pt", *QUICK, "--probes", "0")
    two = terminal.run("hessian", "ckpt.pt", *QUICK, "--l2", "0.5", "-o", "l2.h5")
    assert "weight decay is not part of the matrix" in one.err
    assert "0.5 I is part of the matrix" in two.err
    gained = load(terminal, "l2.h5").eigenvalue[:5] - load(terminal).eigenvalue[:5]
    np.testing.assert_allclose(gained, 0.5, rtol=1e-4)


def test_a_run_that_does_not_converge_is_kept_with_a_warning_and_strict_makes_it_fail(terminal):
    few = ("--max-products", "5", "--no-plot")
    done = terminal.run("hessian", "ckpt.pt", *few)
    assert done.code == 0
    assert "warning: not every eigenvalue converged" in done.err
    assert "NOT CONVERGED" in done.err
    strict = terminal.run("hessian", "ckpt.pt", *few, "--strict", "-o", "strict.h5")
    assert strict.code == 1
    assert "not every eigenvalue converged, and --strict was given" in strict.err
    assert not load(terminal, "strict.h5").converged


def test_a_time_limit_leaves_what_is_known(terminal):
    done = terminal.run("hessian", "ckpt.pt", "--no-plot", "--time-limit", "0.001s")
    assert done.code == 0
    assert "stopped at the time limit" in done.err
    assert not load(terminal).complete


@pytest.mark.parametrize(("at", "converged"), [(30, False), (75, True)])
def test_an_interrupt_keeps_what_is_known(terminal, monkeypatch, at, converged):
    times = Hessian.__call__

    def interrupted(product, v):
        if product.products == at:
            raise KeyboardInterrupt
        return times(product, v)

    monkeypatch.setattr(Hessian, "__call__", interrupted)
    run = ("hessian", "ckpt.pt", "--density", "--steps", "30", "--dtype", "float64", "--count", "2")
    done = terminal.run(*run)
    assert done.code == 130
    assert "interrupted: what is done is kept" in done.err
    result = load(terminal)
    assert not result.complete
    assert result.products == at
    assert result.converged == converged
    true = torch.linalg.eigvalsh(dense(terminal)).numpy()
    assert result.eigenvalue[0] == pytest.approx(true[-1], rel=1e-3)
    assert terminal.run("plot", "ckpt.hessian.h5").code == 0


def test_the_same_command_again_computes_nothing_and_another_is_refused(terminal):
    assert terminal.run("hessian", "ckpt.pt", *QUICK).code == 0
    again = terminal.run("hessian", "ckpt.pt", *QUICK)
    assert "complete already" in again.err
    other = terminal.run("hessian", "ckpt.pt", *QUICK, "--count", "3")
    assert other.code == 1
    assert "count: 5 -> 3" in other.err


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_low_precision_are_refused_unless_forced(terminal, dtype):
    weights = torch.load(terminal.folder / "ckpt.pt", weights_only=True)
    low = {n: t.to(dtype) if t.is_floating_point() else t for n, t in weights.items()}
    torch.save(low, terminal.folder / "low.pt")
    refused = terminal.run("hessian", "low.pt")
    assert refused.code == 1
    name = str(dtype).removeprefix("torch.")
    assert f"the weights are stored in {name}" in refused.sentence
    assert "pass --force" in refused.sentence
    assert terminal.run("hessian", "low.pt", "--force", "--no-plot", "--count", "1").code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--which", "middle"), "'middle' is none of magnitude, largest, smallest, both"),
        (("--per", "layer"), "'layer' is none of block, tensor"),
        (("--memory", "much"), "'much' is no size such as 2G"),
        (("--only", "("), "'(' is no regular expression"),
        (("--density", "--probes", "0"), "the density and the diagonal need some"),
        (("--precondition", "--vectors"), "--vectors and --diagonal are of the matrix itself"),
        (("--basis", "3"), "3 vectors are too few for this --count: it takes 22"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_computed(terminal, arguments, text):
    done = terminal.run("hessian", "ckpt.pt", *arguments)
    assert done.code == 2
    assert text in done.text
    assert not (terminal.folder / "ckpt.hessian.h5").exists()


# The optimiser


def trained(terminal, name, make, steps=3):
    """A checkpoint with the state of its optimiser."""
    net = terminal.network()
    optimiser = make(net.parameters())
    images, labels = data()
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(net(images), labels).backward()
        optimiser.step()
    saved = {"model": net.state_dict(), "optimizer": optimiser.state_dict()}
    torch.save(saved, terminal.folder / name)
    torch.save(net.state_dict(), terminal.folder / f"bare_{name}")
    return optimiser


def test_the_rate_in_the_file_is_compared_with_the_threshold_of_its_own_update(terminal):
    nesterov = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    trained(terminal, "sgd.pt", lambda p: torch.optim.SGD(p, lr=0.02, **nesterov))
    done = terminal.run("hessian", "sgd.pt", *QUICK)
    top = float(torch.linalg.eigvalsh(dense(terminal, "bare_sgd.pt"))[-1]) + 0.01
    threshold = 3.8 / (0.02 * 2.8)
    place = "below the edge" if top < 0.9 * threshold else "beyond the edge"
    (line,) = (x for x in done.err.splitlines() if x.startswith("edge of stability"))
    assert place in line
    assert f"{top:.4g} is {top / threshold:.3g} times (2+2b)/(lr(1+2b)) = {threshold:.4g}" in line
    assert (
        "optimiser: Nesterov momentum, lr = 0.02, b = 0.9, from 'optimizer' in the checkpoint"
        in done.err
    )
    assert f"{2 / top:.4g} of gradient descent" in done.err
    assert f"{3.8 / (top * 2.8):.4g} with Nesterov's" in done.err


def test_batchnorm_makes_the_edge_a_rough_guide(terminal):
    done = terminal.run("hessian", "ckpt.pt", *QUICK, "--probes", "0", "--lr", "0.1")
    assert "BatchNorm is held still here and was live in training" in done.err
    bare = terminal.task("bare.py", ("nn.BatchNorm1d(width), ", ""))
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 12), torch.nn.ReLU(), torch.nn.Linear(12, 10)
    )
    torch.save(net.state_dict(), terminal.folder / "bare.pt")
    done = terminal.run("hessian", "bare.pt", "--task", bare, *QUICK, "--probes", "0", "--lr", "1")
    assert "edge of stability" in done.err
    assert "BatchNorm" not in done.err


def test_adam_is_judged_by_its_own_metric(terminal):
    adam = trained(terminal, "adam.pt", lambda p: torch.optim.Adam(p, lr=1e-3))
    done = terminal.run("hessian", "adam.pt", *QUICK)
    states = adam.state_dict()["state"]
    moments = torch.cat([states[i]["exp_avg_sq"].reshape(-1) for i in range(len(states))])
    v_hat = moments.double() / (1 - 0.999**3)
    scale = (v_hat.sqrt() + 1e-8).rsqrt()
    H = scale[:, None] * dense(terminal, "bare_adam.pt") * scale
    top = float(torch.linalg.eigvalsh(H)[-1])
    result = load(terminal, "adam.hessian.h5")
    assert result.preconditioned_lambda_max == pytest.approx(top, rel=1e-3)
    assert f"is {top * 1e-3 / 38:.3g} times (2+2b1)/((1-b1)lr) = 3.8e+04" in done.err


def test_the_whole_analysis_in_the_metric_of_adam_is_that_of_the_dense_matrix(terminal):
    adam = trained(terminal, "adam.pt", lambda p: torch.optim.Adam(p, lr=1e-3))
    done = terminal.run("hessian", "adam.pt", *QUICK, "--precondition", "--per", "block")
    states = adam.state_dict()["state"]
    moments = torch.cat([states[i]["exp_avg_sq"].reshape(-1) for i in range(len(states))])
    scale = ((moments.double() / (1 - 0.999**3)).sqrt() + 1e-8).rsqrt()
    H = scale[:, None] * dense(terminal, "bare_adam.pt") * scale
    result = load(terminal, "adam.hessian.h5")
    assert result.preconditioned
    assert result.lambda_max == pytest.approx(float(torch.linalg.eigvalsh(H)[-1]), rel=1e-3)
    assert result.block_lambda_max.max() <= result.lambda_max * (1 + 1e-3)
    assert "result: Hessian of the loss in Adam's metric at adam.pt" in done.err
    assert "edge of stability" not in done.err


def test_the_metric_of_adam_is_refused_where_the_checkpoint_has_none(terminal):
    trained(terminal, "sgd.pt", lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9))
    done = terminal.run("hessian", "sgd.pt", "--precondition")
    assert done.code == 1
    assert "holds no second moments of Adam" in done.sentence
    done = terminal.run("hessian", "ckpt.pt", "--precondition")
    assert done.code == 1
    assert "the checkpoint holds no state of Adam" in done.sentence
    assert "save it, as in torch.save" in done.sentence


def test_without_a_rate_there_is_no_verdict_and_a_part_of_the_network_has_none(terminal):
    assert (
        "edge of stability: no verdict, no learning rate"
        in terminal.run("hessian", "ckpt.pt", *QUICK).err
    )
    part = terminal.run("hessian", "ckpt.pt", *QUICK, "--only", "4", "--lr", "1", "-o", "p.h5")
    assert "no verdict, the matrix is of a part of the network" in part.err


# Eigenvectors as directions


def test_the_curvature_along_an_eigenvector_is_its_eigenvalue(terminal):
    H = dense(terminal)
    true = torch.linalg.eigvalsh(H)
    h = 1e-5  # the network has kinks, further away
    grid = ("--alpha", f"-{h},{h}", "--resolution", "3", "--exact", *QUICK)
    for text, value in (("1", true[-1]), ("-1", true[0])):
        out = f"line{text}.h5"
        done = terminal.run("line", "ckpt.pt", "--direction-eigen", text, *grid, "-o", out)
        assert done.code == 0
        result = load(terminal, out)
        low, centre, high = result.loss.grid
        assert (low - 2 * centre + high) / h**2 == pytest.approx(float(value), rel=2e-3, abs=2e-3)


def test_stored_eigenvectors_are_taken_and_those_of_another_checkpoint_are_not(terminal):
    flags = ("--direction-eigen", "2", "--resolution", "3x3", "--exact", *QUICK)
    assert terminal.run("surface", "ckpt.pt", *flags, "-o", "computed.h5").code == 0
    assert terminal.run("hessian", "ckpt.pt", *QUICK, "--vectors").code == 0
    assert terminal.run("surface", "ckpt.pt", *flags, "-o", "stored.h5").code == 0
    computed, stored = (load(terminal, f"{n}.h5").loss.grid for n in ("computed", "stored"))
    np.testing.assert_allclose(stored, computed, rtol=1e-3)
    assert "eigenvector of the 2. largest" in load(terminal, "stored.h5").beta_label
    vectors = terminal.folder / "ckpt.hessian.vectors.safetensors"
    vectors.rename(terminal.folder / "other.hessian.vectors.safetensors")
    assert terminal.run("surface", "other.pt", *flags, "-o", "other.h5").code == 0
    assert not np.allclose(load(terminal, "other.h5").loss.grid, stored)
    fisher = ("--matrix", "fisher", "--vectors", "-o", "ckpt.hessian.h5", "--overwrite")
    assert terminal.run("hessian", "ckpt.pt", *QUICK, *fisher).code == 0
    assert terminal.run("surface", "ckpt.pt", *flags, "-o", "again.h5").code == 0
    np.testing.assert_allclose(load(terminal, "again.h5").loss.grid, computed, rtol=1e-3)
    (terminal.folder / "ckpt.hessian.vectors.safetensors").write_bytes(b"nonsense")
    broken = terminal.run("surface", "ckpt.pt", *flags, "-o", "broken.h5")
    assert broken.code == 1
    assert "holds no eigenvectors of this network" in broken.sentence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", "neither a count nor different ranks"),
        ("x", "neither a count nor different ranks"),
        ("1,1", "neither a count nor different ranks"),
        ("3", "at most 2 directions here"),
    ],
)
def test_wrong_ranks_are_refused(terminal, text, words):
    done = terminal.run("surface", "ckpt.pt", "--direction-eigen", text)
    assert done.code == 2
    assert words in done.text


def test_a_loss_without_a_graph_is_refused_where_a_derivative_is_asked_for(terminal):
    task = terminal.task("detached.py", ('reduction="none")', 'reduction="none").detach()'))
    assert terminal.run("surface", "--task", task, "--resolution", "5x5").code == 0
    for command in ("hessian", "sharpness"):
        refused = terminal.run(command, "--task", task)
        assert refused.code == 1
        assert "the task's loss has no derivative" in refused.sentence
    checked = terminal.run("check", "--task", task)
    assert checked.code == 0
    assert "none: the task's loss has no derivative" in " ".join(checked.out.split())


def test_more_eigenvalues_than_there_are_give_all_and_say_so(terminal):
    done = terminal.run("hessian", "--only", "4.bias", "--count", "50", *QUICK)
    assert done.code == 0
    assert "note: there are 10 eigenvalues in all" in done.err
    assert len(load(terminal).eigenvalue) == 10
