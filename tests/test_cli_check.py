"""`landscape check`: what a newcomer is told about a set-up."""

import re

import torch

pytest_plugins = ["keyboard"]


def rows(result):
    """The table as `{name: fact}`, folded lines joined."""
    table, name = {}, ""
    for line in result.out.splitlines():
        head, _, fact = line.strip().partition("  ")
        if line.startswith(" " * 4):
            table[name] += f" {line.strip()}"
        else:
            name = head.strip()
            table[name] = f"{table[name]}; {fact.strip()}" if name in table else fact.strip()
    return table


def test_everything_that_the_issue_promises_is_in_the_table(terminal):
    result = terminal.run("check", "ckpt.pt")
    assert (result.code, result.err) == (0, "")
    table = rows(result)
    net = terminal.network()
    count = sum(p.numel() for p in net.parameters())
    matrices = sum(p.numel() for p in net.parameters() if p.ndim > 1)
    assert table["parameters"] == f"{count:,} in 6 tensors"
    assert f"move {matrices:,} in 2 tensors" in table["random directions"]
    still = f"{count - matrices:,} in 4 tensors: 1.bias, "
    assert table["and leave"].startswith(still), table["and leave"]
    assert table["and leave"].endswith("(1-D; --include-1d moves them)")
    assert table["batches"].startswith("1, cut here")
    assert table["examples"] == "96"
    assert re.fullmatch(r"\d\.\d+ \+- 0\.\d+ \(standard error\)", table["loss"])
    assert "+-" in table["accuracy"]
    assert table["dtype, device"] == "float32, cpu"
    assert table["BatchNorm, dropout"].startswith("1 with running statistics")
    assert table["two evaluations"] == "agree bit for bit"
    assert re.match(r"forward \S+, gradient \S+, Hessian product \d", table["seconds"])
    assert "s with --exact" in table["landscape surface"]
    assert table["landscape line"].startswith("about")
    assert "weight decay is not part of the loss" in table["regularisation"]


def test_the_checkpoint_of_the_table_is_the_default(terminal):
    assert "ckpt.pt, SHA-256" in rows(terminal.run("check"))["checkpoint"]


def test_what_stood_before_a_mistake_is_printed_too(terminal):
    torch.save(torch.nn.Linear(3, 2).state_dict(), terminal.folder / "linear.pt")
    result = terminal.run("check", "linear.pt")
    assert result.code == 1
    assert list(rows(result)) == ["task"]
    assert "does not fit the network" in result.sentence


def test_an_error_of_check_does_not_point_to_check(terminal):
    assert "landscape check" not in terminal.run("check", "nope.pt").err


def test_a_loss_of_several_values_an_example_is_explained(terminal):
    task = terminal.task(
        "squares.py",
        (
            'F.cross_entropy(net(images).double(), labels, reduction="none")',
            "(net(images).double() - F.one_hot(labels, 10)).square()",
        ),
    )
    fact = rows(terminal.run("check", "--task", task))["loss of a batch"]
    assert "shape (96, 10), averaged over the examples and over the 10 values of each" in fact
    assert "smaller here by that factor" in fact
    text = (terminal.folder / task).read_text()
    weighted = terminal.write("w.py", f"{text}\ndef weights(_):\n    return torch.ones(96, 10)\n")
    fact = rows(terminal.run("check", "--task", weighted))["loss of a batch"]
    assert fact.endswith("shape (96, 10), averaged over the values that count, by their weights")


def test_a_scalar_loss_has_no_standard_error_and_it_is_said(terminal):
    task = terminal.task("scalar.py", (', reduction="none"', ""))
    table = rows(terminal.run("check", "--task", task))
    assert "a scalar, taken as the mean over its batch" in table["loss of a batch"]
    assert table["loss"].endswith("without a standard error")


def test_frozen_parameters_and_dropout_are_counted(terminal):
    task = terminal.task(
        "frozen.py",
        ("return nn.Sequential(", "net = nn.Sequential("),
        ("nn.ReLU(),", "nn.ReLU(), nn.Identity(),"),
        ("\n\ndef data(", "\n    net[1].weight.requires_grad_(False)\n    net[4] = nn.Dropout(0.5)"
         "\n    return net\n\ndef data("),
    )  # fmt: skip
    renamed = {n.replace("4.", "5."): t for n, t in terminal.network().state_dict().items()}
    torch.save(renamed, terminal.folder / "deeper.pt")
    table = rows(terminal.run("check", "deeper.pt", "--task", task))
    assert "1 dropout (off)" in table["BatchNorm, dropout"]
    assert table["frozen"] == "1 tensor: 1.weight"


def test_coupled_examples_are_found_where_the_task_makes_the_batches(terminal):
    task = terminal.task(
        "contrastive.py",
        ("return images, labels", "return list(zip(images.split(48), labels.split(48)))"),
        ('labels, reduction="none")', 'labels, reduction="none") / net(images).std()'),
    )
    result = terminal.run("check", "--task", task)
    assert result.code == 0
    assert "batches are taken whole" in rows(result)["coupling"]
    refused = terminal.run("check", "--task", task, "--batch-size", "8")
    assert refused.code == 1
    assert "--batch-size 8: the task's batches are ready-made" in refused.sentence


def test_a_hessian_product_that_does_not_work_does_not_end_the_check(terminal):
    task = terminal.task(
        "first_order.py",  # cdist has no second derivative for this p
        (
            'F.cross_entropy(net(images).double(), labels, reduction="none")',
            "torch.cdist(net(images)[:, None], F.one_hot(labels, 10)[:, None].float(), p=1.5)",
        ),
    )
    result = terminal.run("check", "--task", task)
    assert result.code == 0
    assert "Hessian product does not work (" in rows(result)["seconds"]
