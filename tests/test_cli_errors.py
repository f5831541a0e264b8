"""Every bad input of a newcomer: one sentence, the right exit code, nothing on the disk changed."""

import errno
import os
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest_plugins = ["keyboard"]

SMALL = ("--resolution", "5x5", "--no-plot")


def refused(terminal, match, *arguments):
    """The command ends with code 1 and one sentence, and no file is another than before."""
    before = terminal.files()
    result = terminal.run(*arguments)
    assert result.code == 1, result
    assert re.search(match, result.sentence), result.sentence
    assert result.out == ""
    assert terminal.files() == before
    return result


# Checkpoints


def test_a_missing_checkpoint_is_refused_and_check_is_named(terminal):
    result = refused(terminal, "'nope.pt' does not exist: check the path", "surface", "nope.pt")
    hint = "`landscape check nope.pt`, with the same options, shows the set-up part by part"
    assert hint in result.err


def test_an_empty_checkpoint_is_refused(terminal):
    terminal.write("empty.pt", "")
    refused(terminal, "'empty.pt' is empty: copy or download it again", "surface", "empty.pt")


def test_a_folder_without_weights_is_refused(terminal):
    (terminal.folder / "run").mkdir()
    refused(terminal, "'run' is a folder without weights .*: pass a file", "surface", "run")


@pytest.mark.parametrize("name", ["ckpt.pt", "model.safetensors"])
def test_a_truncated_checkpoint_is_refused(terminal, name):
    path = terminal.folder / name
    path.write_bytes(path.read_bytes()[:-1000])
    refused(terminal, f"'{name}' is a .*truncated.*: copy or download it again", "surface", name)


def test_a_checkpoint_with_a_flipped_bit_is_refused(terminal):
    path = terminal.folder / "ckpt.pt"
    data = bytearray(path.read_bytes())
    weight = terminal.network()[1].weight.detach().numpy().tobytes()
    data[data.index(weight) + 100] ^= 1
    path.write_bytes(data)
    refused(terminal, "is damaged .*differs from its checksum.*: copy", "surface", "ckpt.pt")


def test_a_pickle_bomb_does_not_run(terminal):
    class Bomb:
        def __reduce__(self):
            return open, (str(terminal.folder / "exploded"), "w")

    held = {"state_dict": terminal.network().state_dict(), "bomb": Bomb()}
    torch.save(held, terminal.folder / "bomb.pt")
    refused(terminal, "would have to run code .*: pass --trust-pickle if you", "surface", "bomb.pt")


def test_a_plain_pickle_is_refused(terminal):
    (terminal.folder / "plain.pkl").write_bytes(pickle.dumps([1.0, 2.0]))
    refused(terminal, "is a plain pickle, not made by torch.save", "surface", "plain.pkl")


def test_a_checkpoint_of_another_architecture_is_refused(terminal):
    torch.save(torch.nn.Linear(3, 2).state_dict(), terminal.folder / "linear.pt")
    refused(
        terminal,
        "'linear.pt' does not fit the network, 2 tensors in the file and 9 in the network: "
        r"8 missing, '1.weight' \(12, 64\).* 2 unexpected, 'weight' \(2, 3\).*Build in the task",
        *("surface", "linear.pt"),
    )


def test_one_misshapen_tensor_is_named_with_both_shapes(terminal):
    weights = terminal.network().state_dict()
    weights["4.bias"] = torch.zeros(11)
    torch.save(weights, terminal.folder / "bent.pt")
    refused(
        terminal,
        r"1 of another shape, '4.bias' \(11,\) in the file and \(10,\) in the network",
        *("surface", "bent.pt"),
    )


def test_nan_weights_are_refused(terminal):
    weights = terminal.network().state_dict()
    weights["4.weight"][0, 0] = float("nan")
    torch.save(weights, terminal.folder / "nan.pt")
    refused(
        terminal,
        "NaN or infinite weights, 1 of 120 in '4.weight' .*before training diverged",
        *("surface", "nan.pt"),
    )


def test_a_second_checkpoint_that_does_not_fit_is_refused(terminal):
    torch.save(terminal.network(width=13).state_dict(), terminal.folder / "wide.pt")
    result = refused(
        terminal, "'wide.pt' does not fit", "line", "ckpt.pt", "--direction-to", "wide.pt"
    )
    assert "`landscape check wide.pt`" in result.err


# Tasks


LOSS = 'return F.cross_entropy(net(images).double(), labels, reduction="none")'
MODEL = "return nn.Sequential("
DATA = "return images, labels"
METRICS = 'return {"accuracy": (net(images).argmax(-1) == labels).float()}'


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (LOSS, "pass", "loss returned NoneType: it must return a tensor with one value per"),
        (
            LOSS,
            f"{LOSS}[:7]",
            r"loss returned a tensor of shape \(7,\) for a batch of 96 .*shape \(96,\) .reduct",
        ),
        (LOSS, f"{LOSS} * float('nan')", "not finite at the checkpoint itself .*: check the weigh"),
        (
            LOSS,
            f"{LOSS} / 0",
            "not finite at the checkpoint itself .*: check the weights, the data",
        ),
        (LOSS, "return labels", "loss returned torch.int64: real floating values needed"),
        (LOSS, f"{LOSS} + torch.rand(())", "differ by a relative .*random numbers are drawn"),
        (LOSS, f"{LOSS}.no_such_thing()", r"loss\(\) .*failed: AttributeError.*line 22\).*--debug"),
        (LOSS, "return net(images[:, :5])", r"loss\(\) .*failed: RuntimeError: mat1 and mat2"),
        (LOSS, "return net(images.double())", r"failed: .* float32 unless --dtype float64 is"),
        (METRICS, "pass", "metrics returned NoneType: it must return a dict of tensors"),
        (METRICS, "return {'accuracy': 0.5}", "accuracy returned float: it must return a tensor"),
        (
            METRICS,
            "return net(images)",
            "metrics returned Tensor: it must return a dict of tensors by name",
        ),
        (DATA, "return []", r"data\(\) is empty: at least one batch is needed"),
        (DATA, "return images[:0], labels[:0]", r"data\(\) is empty: at least one"),
        (
            DATA,
            "return [(images[:0], labels[:0])]",
            "the first batch of the task's .* holds no example: leave it",
        ),
        (DATA, "return None", r"data\(\) returned NoneType: return a Dataset, a DataLoader"),
        (DATA, "raise OSError(2, 'No such file', 'digits.csv')", r"data\(\) .*No such file"),
        (DATA, "return images + torch.rand(96, 8, 8), labels", "other batches at a second pass"),
        (
            DATA,
            "from torch.utils.data import DataLoader, TensorDataset\n"
            "    return DataLoader(TensorDataset(images, labels), shuffle=True)",
            "DataLoader shuffles .*build it with shuffle=False",
        ),
        (
            MODEL,
            "return 3\n    return nn.Sequential(",
            r"model\(\) returned int, not a torch nn.Mo",
        ),
        (MODEL, "return no_such_net(", r"model\(\) .* failed: NameError: name 'no_such_net'"),
        ("import torch\n", "import torch, no_such_module\n", "cannot be imported: ModuleNotFound"),
        ("def loss", "def los", "has no callable 'loss': a task needs .*`landscape init` writes"),
        ("def loss(net", "def loss(net, extra", "the task's loss needs an argument 'batch|extra'"),
        (
            "def loss(",
            "def loss(((",
            r"imported: SyntaxError: .* \(task_under_test.py, line 19\); --debug",
        ),
    ],
    ids=lambda text: re.sub(r"\W+", " ", text)[:40],
)
def test_a_wrong_task_is_refused(terminal, old, new, match):
    task = terminal.task("task_under_test.py", (old, new))
    refused(terminal, match, "surface", "ckpt.pt", "--task", task)


def test_live_dropout_is_refused(terminal):
    task = terminal.task("task_under_test.py", ("net(images).double()", "F.dropout(net(images))"))
    refused(terminal, "functional dropout without", "surface", "ckpt.pt", "--task", task)


def test_a_missing_task_file_is_refused(terminal):
    refused(terminal, "no task file nope.py; `landscape init`", "surface", "--task", "nope.py")


def test_a_missing_member_of_a_task_file_is_refused(terminal):
    refused(
        terminal,
        "has no 'Other', which --task landscape_task.py:Other names",
        *("surface", "--task", "landscape_task.py:Other"),
    )


def test_no_task_at_all_lists_the_places_where_one_is_looked_for(terminal):
    (terminal.folder / "landscape.toml").unlink()
    (terminal.folder / "landscape_task.py").unlink()
    refused(
        terminal,
        r"no task found: pass --task FILE.py, set LANDSCAPE_TASK, name it under "
        r"\[tool.landscape\] .*landscape_task.py here; `landscape init`",
        *("surface", "ckpt.pt"),
    )


def test_no_checkpoint_at_all_says_where_to_name_one(terminal):
    (terminal.folder / "landscape.toml").unlink()
    refused(terminal, 'no checkpoint given: name one, or set `checkpoint = "..."`', "surface")


def test_a_broken_table_is_refused(terminal):
    terminal.write("landscape.toml", "task = [")
    refused(terminal, "landscape.toml is not valid TOML", "surface", "ckpt.pt")


@pytest.mark.parametrize(
    "table", ["tool = 3", "[tool]\nlandscape = 'x'", "task = 3", "checkpoint = ['a.pt']"]
)
def test_a_table_of_other_things_is_refused(terminal, table):
    terminal.write("landscape.toml", table)
    refused(terminal, r'write task = "FILE.py" and checkpoint = "FILE" under', "surface", "a.pt")


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ("model.depth=3", r"takes no argument 'depth' \(it takes width\)"),
        ("optimizer.lr=3", "MEMBER is one of model, data, loss, metrics"),
        ("width=3", "write MEMBER.ARGUMENT=VALUE"),
        ("model.width", "write MEMBER.ARGUMENT=VALUE, as in data.split=val"),
    ],
)
def test_an_unknown_setting_is_refused(terminal, setting, match):
    refused(terminal, match, "surface", "ckpt.pt", "--set", setting)


# Devices and options


@pytest.mark.parametrize("device", ["cuda:99", "meta", "xpu"])
def test_an_absent_device_is_refused(terminal, device):
    match = f"--device '{device}' is not available on this machine: use --device cpu"
    refused(terminal, match, "surface", "--device", device)


def test_an_unknown_device_is_refused(terminal):
    refused(terminal, "'gpu' is none of auto, cpu, cuda", "surface", "--device", "gpu")


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("--alpha", "1,-1", "'1,-1' is not A,B with finite A < B"),
        ("--alpha", "0", "is not A,B"),
        ("--beta", "-1,inf", "is not A,B with finite"),
        ("--resolution", "1x5", "is not NxM with both at least 2"),
        ("--resolution", "5x5x5", "is not NxM"),
        ("--resolution", "99999x99999", "more than 4,000,000 cells"),
        ("--tolerance", "-1", "--tolerance"),
        ("--tolerance", "nan", "--tolerance"),
        ("--tolerance", "inf", "inf is not a finite number"),
        ("--l2", "nan", "--l2"),
        ("--seed", "-1", "--seed"),
        ("--seed", str(2**63), "a seed is less than 2"),
        ("--examples", "0", "is neither N nor random:N with N at least 1"),
        ("--examples", "some:5", "is neither N nor random:N"),
        ("--batch-size", "0", "--batch-size"),
        ("--max-evaluations", "0", "--max-evaluations"),
        ("--dtype", "float16", "'float16' is none of float32, float64"),
        ("--normalise", "weight", "'weight' is none of filter, layer, none"),
        ("--bn", "fresh", "'fresh' is none of keep, interpolate, recompute"),
        ("--time-limit", "soon", "'soon' is no duration such as 90s, 10m, 2h"),
        ("--time-limit", "-5m", "is no duration"),
        ("--no-such-option", "1", "No such option: --no-such-option"),
    ],
)
def test_a_bad_option_is_a_usage_error(terminal, option, value, match):
    before = terminal.files()
    result = terminal.run("surface", "ckpt.pt", f"{option}={value}")
    assert result.code == 2
    assert match in result.text
    assert "Traceback" not in result.err
    assert terminal.files() == before


def test_contradicting_options_are_a_usage_error(terminal):
    result = terminal.run("surface", "ckpt.pt", "--include-1d", "--no-1d")
    assert result.code == 2
    assert "contradicts --no-1d" in result.text


def test_more_directions_than_dimensions_are_a_usage_error(terminal):
    to = ("--direction-to", "other.pt")
    result = terminal.run("line", "ckpt.pt", *to, *to)
    assert result.code == 2
    assert "at most 1 for a line" in result.text


# Where results go


def test_a_missing_output_folder_is_refused_before_anything_is_computed(terminal):
    match = "there is no folder 'no' for x.h5: make it, or choose another -o"
    refused(terminal, match, "surface", "ckpt.pt", "-o", "no/x.h5")


def test_an_output_folder_that_is_a_file_is_refused(terminal):
    refused(terminal, "there is no folder 'ckpt.pt'", "surface", "ckpt.pt", "-o", "ckpt.pt/x.h5")


def test_a_folder_as_output_is_refused(terminal):
    refused(terminal, "'.' is a folder: name a file in it with -o", "surface", "-o", ".")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc, where nobody may write")
def test_an_unwritable_output_folder_is_refused(terminal):
    refused(terminal, r"cannot write '/proc/x.h5.journal' \(", "surface", "-o", "/proc/x.h5")


@pytest.mark.parametrize("option", ["-o", "--plot"])
def test_the_checkpoint_is_never_written_over(terminal, option):
    match = "'ckpt.pt' would be written over another file of this run: choose other names"
    refused(terminal, match, "surface", "ckpt.pt", option, "ckpt.pt", "--overwrite")


def test_the_picture_is_never_written_over_the_result(terminal):
    refused(terminal, "'fig.png' would be written over", "surface", "ckpt.pt", "-o", "fig.png")


def test_an_unknown_kind_of_picture_is_refused_before_anything_is_computed(terminal):
    match = "cannot draw 'fig.gif': the suffix has to be one of .png, .svg, .pdf"
    refused(terminal, match, "surface", "ckpt.pt", "--plot", "fig.gif")


def test_one_output_for_two_checkpoints_is_refused(terminal):
    both = ("surface", "ckpt.pt", "other.pt")
    refused(terminal, "leave them out for several checkpoints", *both, "-o", "x.h5")


def test_two_checkpoints_of_one_name_are_refused(terminal):
    (terminal.folder / "run2").mkdir()
    (terminal.folder / "run2" / "ckpt.pt").write_bytes((terminal.folder / "ckpt.pt").read_bytes())
    refused(terminal, "the same name: run them one by one", "surface", "ckpt.pt", "run2/ckpt.pt")


# Full disks


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_is_full_from_the_start_is_reported(terminal, monkeypatch):
    monkeypatch.setattr(os, "write", full)
    result = terminal.run("surface", "ckpt.pt", *SMALL)
    monkeypatch.undo()
    assert result.code == 1
    assert "No space left on device): free some space and run the same command" in result.sentence
    assert not (terminal.folder / "ckpt.surface.h5").exists()
    assert terminal.run("surface", "ckpt.pt", *SMALL).code == 0


def test_a_disk_that_fills_at_the_end_costs_nothing_but_another_run(terminal, monkeypatch):
    monkeypatch.setattr(os, "fsync", full)
    result = terminal.run("surface", "ckpt.pt", *SMALL)
    monkeypatch.undo()
    assert result.code == 1
    assert (
        "cannot write 'ckpt.surface.h5' (No space left on device): free"
        in result.sentence.replace(str(terminal.folder) + "/", "")
    )
    assert [n for n in terminal.files() if "surface" in n] == ["ckpt.surface.h5.journal"]
    again = terminal.run("surface", "ckpt.pt", *SMALL)
    assert again.code == 0
    assert "resumed: 25 evaluations of an earlier run are kept" in again.err


def test_a_full_disk_leaves_an_old_picture_as_it_was(terminal, monkeypatch):
    assert terminal.run("line", "ckpt.pt", "--resolution", "9").code == 0
    monkeypatch.setattr(os, "fsync", full)
    refused(terminal, "cannot write 'ckpt.line.png': No space left", "plot", "ckpt.line.h5")


def test_files_that_may_not_grow_are_reported(terminal):
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
from landscape.cli import app
app({["surface", "ckpt.pt", "--resolution", "9x9", "--no-plot"]!r}, prog_name="landscape")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=terminal.folder, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert re.match(
        r"error: cannot write '.*' \((File too large|No space left on device)\): free", done.stderr
    )
    assert len(done.stderr.splitlines()) == 1


# Results


@pytest.mark.parametrize("command", ["show", "plot"])
class TestReading:
    def test_a_missing_result_is_refused(self, terminal, command):
        refused(terminal, "there is no file 'no.h5': check the path", command, "no.h5")

    def test_a_folder_is_no_result(self, terminal, command):
        refused(terminal, "there is no file '.*': check the path|is a folder", command, ".")

    @pytest.mark.parametrize("name", ["ckpt.pt", "landscape_task.py"])
    def test_another_file_is_no_result(self, terminal, command, name):
        match = f"'{name}' was not written by landscape .*: give the .h5 file of a result"
        refused(terminal, match, command, name)

    @pytest.mark.parametrize("left", [0.0, 0.3, 0.99])
    def test_a_truncated_result_is_refused(self, terminal, command, left):
        assert terminal.run("surface", "ckpt.pt", *SMALL).code == 0
        path = terminal.folder / "ckpt.surface.h5"
        path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
        refused(terminal, "cut short|not written by landscape|is empty", command, path.name)

    def test_a_result_with_a_flipped_bit_is_refused(self, terminal, command):
        assert terminal.run("surface", "ckpt.pt", *SMALL).code == 0
        path = terminal.folder / "ckpt.surface.h5"
        data = bytearray(path.read_bytes())
        data[random.Random(0).randrange(len(data))] ^= 4
        path.write_bytes(data)
        refused(terminal, "damaged.*restore it from a copy or run again", command, path.name)


def test_a_file_that_is_not_ours_is_not_overwritten(terminal):
    terminal.write("thesis.h5", "five years of work")
    refused(
        terminal,
        r"'thesis.h5' was not written by landscape .*\(it was not overwritten: choose another -o",
        *("surface", "ckpt.pt", *SMALL, "-o", "thesis.h5"),
    )


def test_a_damaged_result_is_not_overwritten_unasked(terminal):
    assert terminal.run("surface", "ckpt.pt", *SMALL).code == 0
    path = terminal.folder / "ckpt.surface.h5"
    path.write_bytes(path.read_bytes()[:-100])
    refused(terminal, "cut short .*was not overwritten", "surface", "ckpt.pt", *SMALL)
    assert terminal.run("surface", "ckpt.pt", *SMALL, "--overwrite").code == 0


def test_a_journal_that_is_not_ours_is_not_overwritten(terminal):
    terminal.write("ckpt.surface.h5.journal", "dear diary")
    refused(terminal, "is not a journal of landscape", "surface", "ckpt.pt", *SMALL)


# What --debug adds


def test_debug_shows_the_traceback(terminal):
    result = terminal.launch("show", "no.h5", "--debug")
    assert result.code == 1
    assert "Traceback (most recent call last)" in result.err
    assert "UserError: there is no file 'no.h5'" in result.err


def test_debug_shows_where_the_task_failed(terminal):
    task = terminal.task("task_under_test.py", (DATA, "return images.no_such_thing()"))
    result = terminal.launch("check", "ckpt.pt", "--task", task, "--debug")
    assert result.code == 1
    assert 'task_under_test.py", line 17, in data' in result.err


def test_a_defect_of_ours_is_one_sentence_too(terminal, monkeypatch):
    def defect(_):
        raise KeyError("Hoppla")

    monkeypatch.setattr("landscape.store.load", defect)
    refused(terminal, "unexpected KeyError: 'Hoppla'; --debug shows the traceback", "show", "x.h5")


def test_running_out_of_memory_says_what_to_use_less_of(terminal, monkeypatch):
    def greedy(_):
        raise MemoryError

    monkeypatch.setattr("landscape.store.load", greedy)
    refused(terminal, "out of memory: use a smaller --batch-size or fewer", "show", "x.h5")
