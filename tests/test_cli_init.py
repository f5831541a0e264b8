"""`landscape init`: the skeleton a newcomer starts from."""

import ast

import safetensors.torch
import torch

pytest_plugins = ["keyboard"]


def test_a_skeleton_is_written_and_its_path_printed(terminal):
    (terminal.folder / "landscape_task.py").unlink()
    result = terminal.run("init")
    assert (result.code, result.out) == (0, "landscape_task.py\n")
    assert "fill in landscape_task.py, then run `landscape check CKPT`" in result.err
    tree = ast.parse((terminal.folder / "landscape_task.py").read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert functions == {"model", "data", "loss"}


def test_an_empty_skeleton_says_what_to_fill_in(terminal):
    terminal.run("init", "new.py")
    result = terminal.run("check", "ckpt.pt", "--task", "new.py")
    assert result.code == 1
    assert "RuntimeError: fill in model(): return mynet.Net(), say (new.py, line" in result.sentence


def test_the_skeleton_filled_in_is_a_task(terminal):
    terminal.run("init", "new.py", "--checkpoint", "ckpt.pt")
    text = (terminal.folder / "new.py").read_text(encoding="utf-8")
    text = text.replace("from mynet import Net", "from landscape_task import model")
    text = text.replace("return Net()", "return model()")
    text = text.replace(
        'raise RuntimeError("fill in data()")',
        "import landscape_task\n    return landscape_task.data(split)",
    )
    terminal.write("new.py", text)
    line = ("line", "--task", "new.py", "--resolution", "5", "--no-plot")
    result = terminal.run(*line, "--split", "train")
    assert result.code == 0, result.err
    assert "train split" in result.err


def test_the_tensors_of_the_checkpoint_are_listed(terminal):
    result = terminal.run("init", "new.py", "--checkpoint", "lightning.ckpt")
    assert "run `landscape check lightning.ckpt --task new.py`" in result.err
    text = (terminal.folder / "new.py").read_text(encoding="utf-8")
    assert "# lightning.ckpt holds 9 tensors" in text
    assert "#   model.1.weight  (12, 64)" in text
    assert "its first matrix takes 64 inputs, its last gives 10 outputs" in text


def test_a_name_in_a_checkpoint_cannot_become_code(terminal):
    name = "weight\nimport os\nos.mkdir('owned')\n#"
    safetensors.torch.save_file({name: torch.zeros(2, 2)}, terminal.folder / "evil.safetensors")
    assert terminal.run("init", "new.py", "--checkpoint", "evil.safetensors").code == 0
    tree = ast.parse((terminal.folder / "new.py").read_text(encoding="utf-8"))
    assert not [node for node in ast.walk(tree) if getattr(node, "attr", "") == "mkdir"]


def test_an_existing_file_is_left_as_it_is(terminal):
    before = terminal.files()
    result = terminal.run("init")
    assert result.code == 1
    assert result.sentence == (
        "landscape_task.py exists already and is left as it is: name another file"
    )
    assert terminal.files() == before


def test_a_missing_folder_is_one_sentence(terminal):
    result = terminal.run("init", "no/such/task.py")
    assert result.code == 1
    assert "cannot write no/such/task.py (No such file or directory)" in result.sentence


def test_a_checkpoint_that_cannot_be_read_writes_nothing(terminal):
    before = terminal.files()
    result = terminal.run("init", "new.py", "--checkpoint", "nope.pt")
    assert result.code == 1
    assert "'nope.pt' does not exist: check the path" in result.sentence
    assert terminal.files() == before


def test_a_pickled_module_needs_trust_here_too(terminal):
    torch.save(terminal.network(), terminal.folder / "whole.pt")
    refused = terminal.run("init", "new.py", "--checkpoint", "whole.pt")
    assert "pass --trust-pickle if you trust" in refused.sentence
    trusted = ("init", "new.py", "--checkpoint", "whole.pt", "--trust-pickle")
    assert terminal.run(*trusted).code == 0
