"""`landscape gate` as a pipeline runs it: exit codes of real processes, and what they leave."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_cli_surface import data

from landscape import store
from landscape.cli import gate_run

pytest_plugins = ["keyboard"]

# Enough examples for three looks of small groups.
MORE = (
    "torch.randint(10, (96,), generator=generator)",
    "torch.randint(10, (640,), generator=generator)",
)
ALSO = ("torch.randn(96, 8, 8", "torch.randn(640, 8, 8")
ARANGE = ("torch.arange(96)", "torch.arange(640)")
NO_NORM = ("nn.BatchNorm1d(width), ", "")
M = 10


@pytest.fixture
def project(terminal):
    """640 examples, an MLP without BatchNorm, and a policy of groups of 10."""
    task = terminal.task("landscape_task.py", MORE, ALSO, ARANGE, NO_NORM)
    assert task == "landscape_task.py"
    namespace = {}
    exec((terminal.folder / task).read_text(), namespace)

    def train(seed, steps=20, lr=0.5):
        torch.manual_seed(seed)
        net = namespace["model"]()
        optimizer = torch.optim.SGD(net.parameters(), lr=lr)
        for _ in range(steps):
            optimizer.zero_grad()
            namespace["loss"](net, namespace["data"]()).mean().backward()
            optimizer.step()
        return net.eval()

    good = train(0)
    torch.save(good.state_dict(), terminal.folder / "good.pt")
    tuned = train(0, steps=21)
    torch.save(tuned.state_dict(), terminal.folder / "tuned.pt")
    scaled = {n: t.clone() for n, t in good.state_dict().items()}
    for name, factor in (("1.weight", 25.0), ("1.bias", 25.0), ("3.weight", 1 / 25)):
        scaled[name] *= factor
    torch.save(scaled, terminal.folder / "rescaled.pt")
    noisy = {
        n: t + 0.3 * torch.randn(t.shape, generator=torch.Generator().manual_seed(3))
        for n, t in good.state_dict().items()
    }
    torch.save(noisy, terminal.folder / "noisy.pt")
    broken = {n: torch.full_like(t, float("nan")) for n, t in good.state_dict().items()}
    torch.save(broken, terminal.folder / "nan.pt")
    terminal.namespace = namespace
    return terminal


def policy(terminal, name="gate.toml", *, m=M, norm="adaptive", rules=None, gate="", measure=""):
    rules = rules or '[rules.sharpness]\nmax_increase = "25%"\nfloor = 1e-3\n'
    text = f'version = 1\n[measure]\nm = {m}\nnorm = "{norm}"\n{measure}\n{rules}\n[gate]\n{gate}\n'
    return terminal.write(name, text)


def run(terminal, candidate, *more, baseline="good.pt", policy="gate.toml"):
    against = ("--baseline", baseline) if baseline else ()
    held = ("--policy", policy) if policy else ()
    return terminal.run("gate", candidate, *against, *held, *more)


# The verdicts


def test_a_model_against_itself_passes_even_without_a_margin(project):
    policy(project, rules="[rules.sharpness]\nmax_increase = 0\n[rules.loss]\nmax_increase = 0\n")
    done = run(project, "good.pt", "--json", "v.json")
    assert (done.code, done.out) == (0, "pass\n")
    (sharp, loss) = json.loads((project.folder / "v.json").read_text())["rules"]
    assert sharp["difference"] == sharp["low"] == sharp["high"] == 0
    assert (sharp["groups"], loss["groups"]) == (16, 16)


def test_a_lightly_tuned_copy_passes_and_a_noisy_one_is_refused(project):
    policy(project)
    assert run(project, "tuned.pt").code == 0
    refused = run(project, "noisy.pt")
    assert (refused.code, refused.out) == (3, "refused\n")
    assert "sharpness.max_increase" in refused.err


def test_rescaled_layers_are_refused_by_plain_sharpness_and_pass_the_adaptive_one(project):
    policy(project, norm="plain")
    assert run(project, "rescaled.pt").code == 3
    policy(project, norm="adaptive")
    assert run(project, "rescaled.pt").code == 0


def test_weights_that_are_not_numbers_are_an_error_and_never_a_verdict(project):
    policy(project)
    done = run(project, "nan.pt", "--json", "v.json")
    assert done.code == 1
    assert done.out == ""
    assert "NaN or infinite weights" in done.err
    assert not (project.folder / "v.json").exists()
    assert run(project, "good.pt", baseline="nan.pt").code == 1


def test_a_difference_on_the_margin_is_undecided_and_the_policy_says_what_becomes_of_it(project):
    namespace = project.namespace
    values = []
    for name in ("tuned.pt", "good.pt"):
        net = namespace["model"]()
        net.load_state_dict(torch.load(project.folder / name, weights_only=True))
        values.append(namespace["loss"](net.eval(), namespace["data"]()).mean().item())
    candidate, baseline = (
        ("tuned.pt", "good.pt") if values[0] > values[1] else ("good.pt", "tuned.pt")
    )
    margin = abs(values[0] - values[1])
    rules = f"[rules.loss]\nmax_increase = {margin!r}\n"
    for name, code in (("error", 4), ("fail", 3), ("pass", 0)):
        policy(project, rules=rules, gate=f'on_inconclusive = "{name}"')
        done = run(project, candidate, baseline=baseline)
        assert (done.code, done.out) == (code, "undecided\n")
    policy(project, rules=rules)
    assert run(project, candidate, "--exit-zero", baseline=baseline).code == 0
    assert run(project, candidate, "--fail-code", "17", baseline=baseline).code == 17
    assert "groups would decide" in run(project, candidate, baseline=baseline).err


def test_too_few_groups_for_the_first_look_decide_nothing(project):
    policy(project, m=100)
    done = run(project, "noisy.pt", "--json", "v.json")
    assert (done.code, done.out) == (4, "undecided\n")
    assert "only 6 groups, and the first look takes 16 or more" in done.err
    assert json.loads((project.folder / "v.json").read_text())["rules"][0]["low"] is None


def test_exit_zero_and_fail_code_leave_errors_alone(project):
    policy(project)
    assert run(project, "nan.pt", "--exit-zero").code == 1
    assert run(project, "noisy.pt", "--exit-zero").code == 0
    assert run(project, "noisy.pt", "--fail-code", "9").code == 9
    assert run(project, "tuned.pt", "--fail-code", "9").code == 0


# What is measured


def test_the_values_of_a_group_are_those_of_a_plain_computation(project):
    rules = "[rules.sharpness]\nmax = 100\n[rules.accuracy]\nmin = 0\n"
    policy(project, norm="plain", rules=rules, measure="looks = [64]\nrho = 0.05")
    done = run(project, "good.pt", "-o", "v.h5", baseline=None)
    assert done.code == 0
    result = store.load(project.folder / "v.h5")
    namespace = project.namespace
    net = namespace["model"]().double()
    net.load_state_dict(torch.load(project.folder / "good.pt", weights_only=True))
    images, labels = namespace["data"]()
    images = images.double()
    order = torch.randperm(640, generator=torch.Generator().manual_seed(0))
    weights = list(net.parameters())
    rises = []
    for chosen in order.split(M):
        loss = F.cross_entropy(net(images[chosen]), labels[chosen])
        slopes = torch.autograd.grad(loss, weights)
        length = torch.cat([g.reshape(-1) for g in slopes]).norm()
        with torch.no_grad():
            for w, g in zip(weights, slopes, strict=True):
                w += 0.05 / length * g
            rises.append(float(F.cross_entropy(net(images[chosen]), labels[chosen]) - loss))
            for w, g in zip(weights, slopes, strict=True):
                w -= 0.05 / length * g
    at = result.quantity.index("sharpness")
    np.testing.assert_allclose(result.group_candidate[at], rises, rtol=2e-3)
    assert result.candidate[0] == pytest.approx(np.mean(rises), rel=1e-3)
    accuracy = float((net(images).argmax(1) == labels).double().mean())
    assert result.candidate[1] == pytest.approx(accuracy)
    assert (project.folder / "v.png").stat().st_size > 5_000


def test_stored_values_of_the_baseline_serve_as_well_as_its_checkpoint(project):
    policy(project)
    made = project.run(
        *("sharpness", "good.pt", "--measure", "sam", "--norm", "adaptive", "--rho", "0.05"),
        *("--m", M, "--no-plot"),
    )
    assert made.code == 0, made.err
    stored = ("--baseline-result", "good.sharpness.h5")
    both = (
        run(project, "tuned.pt", "--json", "a.json"),
        run(project, "tuned.pt", *stored, "--json", "b.json", baseline=None),
    )
    assert [done.code for done in both] == [0, 0]
    a, b = (json.loads((project.folder / f"{n}.json").read_text()) for n in "ab")
    for one, other in zip(a["rules"], b["rules"], strict=True):
        assert one["difference"] == pytest.approx(other["difference"], rel=1e-9, abs=1e-12)
    policy(project, measure="seed = 5")
    other = run(project, "tuned.pt", *stored, baseline=None)
    assert other.code == 1
    assert "is of another measurement (partition: " in other.err
    policy(project, measure="rho = 0.2")
    assert "holds no sam sharpness" in run(project, "tuned.pt", *stored, baseline=None).err


def test_lambda_max_is_compared_by_its_own_error(project):
    rules = '[rules.loss]\nmax_increase = 100\n[rules.lambda_max]\nmax_increase = "1%"\n'
    policy(project, rules=rules + 'level = "warn"\n')
    done = run(project, "noisy.pt", "--json", "v.json")
    rule = json.loads((project.folder / "v.json").read_text())["rules"][1]
    assert rule["rule"] == "lambda_max.max_increase"
    assert rule["groups"] == 0
    namespace = project.namespace
    tops = []
    for name in ("noisy.pt", "good.pt"):
        net = namespace["model"]()
        net.load_state_dict(torch.load(project.folder / name, weights_only=True))
        net = net.double()
        images, labels = namespace["data"]()
        names = [n for n, _ in net.named_parameters()]

        def mean(*weights, net=net, names=names, images=images, labels=labels):
            inside = dict(zip(names, weights, strict=True))
            return F.cross_entropy(
                torch.func.functional_call(net, inside, (images.double(),)), labels
            )

        weights = tuple(p.detach() for p in net.parameters())
        rows = torch.autograd.functional.hessian(mean, weights)
        sizes = [w.numel() for w in weights]
        H = torch.cat(
            [
                torch.cat([b.reshape(s, -1) for b in row], 1)
                for s, row in zip(sizes, rows, strict=True)
            ]
        )
        tops.append(float(torch.linalg.eigvalsh(H)[-1]))
    assert rule["candidate"] == pytest.approx(tops[0], rel=1e-3)
    assert rule["baseline"] == pytest.approx(tops[1], rel=1e-3)
    assert rule["verdict"] == ("refused" if tops[0] > 1.01 * tops[1] else "pass")
    assert done.code == 0  # a warning decides nothing


def test_a_clear_case_ends_at_the_first_look(project, monkeypatch):
    policy(project)
    seen = []
    values = gate_run._values

    def counted(*arguments):
        for value in values(*arguments):
            seen.append(value)
            yield value

    monkeypatch.setattr(gate_run, "_values", counted)
    assert run(project, "good.pt").code == 0
    assert len(seen) == 2 * 16


# What is refused


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("good.pt",), 2, "pass --baseline FILE"),
        (("good.pt", "--baseline", "none.pt"), 1, "none.pt"),
        (("none.pt", "--baseline", "good.pt"), 1, "none.pt"),
        (("good.pt", "--policy", "none.toml"), 2, "cannot read the policy"),
        (("good.pt", "--max-sharpness", "0.5", "--rho", "0"), 2, "is not positive"),
        (("good.pt", "--max-sharpness", "0.5", "--json", "no/v.json"), 1, "there is no folder"),
        (("good.pt", "--max-sharpness", "0.5", "--json", "good.pt"), 1, "another file of this run"),
        (("good.pt", "--baseline", "good.pt", "--unknown"), 2, "No such option"),
    ],
)
def test_wrong_usage_has_its_exit_code_and_one_sentence(project, arguments, code, words):
    before = project.files()
    done = project.run("gate", *arguments)
    assert done.code == code
    assert words in done.text
    assert done.out == ""
    assert project.files() == before


def test_a_metric_that_the_task_lacks_and_another_network_are_told_apart(project):
    policy(project, rules="[rules.recall]\nmax_decrease = 0.1\n")
    done = run(project, "tuned.pt")
    assert done.code == 2
    assert "a rule for 'recall', and the task has accuracy, loss, sharpness" in done.err
    policy(project)
    wide = project.namespace["model"](13).state_dict()
    torch.save(wide, project.folder / "wide.pt")
    assert run(project, "tuned.pt", baseline="wide.pt").code == 1


def test_an_absolute_limit_needs_no_baseline(project):
    held = ("--max-sharpness", "10", "--rho", "0.05")
    done = project.run("gate", "good.pt", *held)
    assert (done.code, done.out) == (0, "pass\n")
    assert "sharpness: max 10, confidence 0.95" in done.err
    assert project.run("gate", "good.pt", "--max-sharpness", "0", "--rho", "0.05").code == 3


def test_the_project_file_may_hold_task_checkpoint_and_policy(project):
    (project.folder / "landscape.toml").unlink()
    project.write(
        "pyproject.toml",
        '[tool.landscape]\ntask = "landscape_task.py"\n[tool.landscape.gate]\nversion = 1\n'
        f"[tool.landscape.gate.measure]\nm = {M}\n"
        "[tool.landscape.gate.rules.loss]\nmax_increase = 1\n",
    )
    done = run(project, "tuned.pt", policy=None)
    assert done.code == 0
    assert "loss.max_increase" in done.err
    assert project.run("check", "good.pt").code == 0


def test_explain_prints_a_command_that_gives_the_same(project):
    policy(project)
    done = run(project, "tuned.pt", "--explain", "--examples", "400")
    (line,) = [x for x in done.err.splitlines() if x.startswith("measure it again: ")]
    words = line.removeprefix("measure it again: ").split()
    assert words[:3] == ["landscape", "gate", "tuned.pt"]
    assert {"--baseline", "--policy", "--examples"} <= set(words)
    again = project.run(*words[1:])
    assert (again.code, again.out) == (done.code, done.out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("good.pt", "--baseline", "good.pt", "--policy", "gate.toml"), 0),
        (("nan.pt", "--baseline", "good.pt", "--policy", "gate.toml"), 1),
        (("good.pt", "--policy", "corrupt.toml"), 2),
        (("noisy.pt", "--baseline", "good.pt", "--policy", "gate.toml"), 3),
        (("good.pt", "--baseline", "good.pt", "--policy", "few.toml"), 4),
    ],
)
def test_exit_codes_of_a_real_process(project, arguments, code):
    policy(project)
    policy(project, "few.toml", m=100)
    project.write("corrupt.toml", "version = ")
    assert project.launch("gate", *arguments).code == code


def test_the_number_of_examples_of_the_task_is_what_the_tests_think(project):
    assert len(project.namespace["data"]()[0]) == 640
    assert len(data()[0]) == 96


# The verdict of an earlier run


def test_a_stored_verdict_ends_the_command_as_it_ended_the_run(project):
    policy(project)
    for candidate, code in (("good.pt", 0), ("noisy.pt", 3)):
        first = run(project, candidate, "--json", "v.json")
        again = project.run("gate", "--from", "v.json")
        assert (again.code, again.out) == (code, first.out)
        assert json.loads((project.folder / "v.json").read_text())["reason"] in again.err
    few = ("--examples", "100", "--json", "v.json")
    assert run(project, "good.pt", *few).code == project.run("gate", "--from", "v.json").code == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no verdict 'v.json': the gate has not written it"),
        ("{", "holds no verdict that can be read"),
        ("[1]", "is no report of version 1"),
        ('{"format": "landscape.gate", "version": 2}', "is no report of version 1"),
        ('{"format": "landscape.gate", "version": 1, "exit_code": 0}', "which is no verdict"),
    ],
)
def test_what_is_no_report_is_an_error_and_no_verdict(terminal, text, said):
    if text is not None:
        terminal.write("v.json", text)
    done = terminal.run("gate", "--from", "v.json")
    assert (done.code, done.out) == (1, "")
    assert said in done.sentence


def test_a_stored_verdict_takes_no_other_options(terminal):
    for more in (["ckpt.pt"], ["--baseline", "ckpt.pt"], ["--exit-zero"]):
        done = terminal.run("gate", "--from", "v.json", *more)
        assert done.code == 2
        assert "leave out everything else" in done.text
    assert terminal.run("gate").code == 2
