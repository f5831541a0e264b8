"""`--text` at the command line: folders of transformers as checkpoints of every command."""

import json
import shutil
from pathlib import Path

import pytest
from language_folders import build, edit

from landscape import store

pytest_plugins = ["keyboard"]
TEXT = ("--text", "text.txt", "--window", "16")
QUICK = ("--no-plot", "-q")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("language"))


@pytest.fixture
def home(terminal, originals):
    """A terminal in a folder with the language models, and with a task for something else."""
    shutil.copytree(originals, terminal.folder, dirs_exist_ok=True)
    return terminal


def own_loss(terminal, folder: str) -> float:
    """The loss of that folder as `landscape line` finds it at the checkpoint."""
    line = ("line", folder, "--resolution", "3", "--exact", *TEXT, *QUICK, "--json", "--overwrite")
    return json.loads(terminal.run(*line).out)["loss_at_centre"]


def test_a_surface_needs_a_folder_and_a_text(home):
    run = ("surface", "llama", *TEXT, "--resolution", "3x3", "--exact", *QUICK)
    result = home.run(*run)
    assert result.code == 0, result.err
    assert result.out == "llama.surface.h5\n"
    loaded = store.load(home.folder / "llama.surface.h5")
    assert list(loaded.quantities) == ["loss", "token_accuracy"]
    again = home.run(*run)  # complete: nothing is done again
    assert (again.code, again.out) == (0, "llama.surface.h5\n")


@pytest.mark.parametrize("kind", ["gpt2", "bert"])
def test_check_says_what_is_evaluated(home, kind):
    result = home.run("check", kind, *TEXT)
    assert result.code == 0, result.err
    word = {"gpt2": "causal", "bert": "masked"}[kind]
    assert f"{word} language modelling of text.txt in windows of 16" in result.text
    assert "does not work" not in result.text


@pytest.mark.slow
@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher"])
def test_hessian_and_its_relatives(home, matrix):
    run = ("hessian", "gpt2", *TEXT, "--count", "1", "--matrix", matrix, "--which", "largest")
    result = home.run(*run, "--probes", "2", "--tolerance", "0.1", *QUICK)
    assert result.code == 0, result.err
    assert store.load(home.folder / "gpt2.hessian.h5").lambda_max > 0


def test_a_line_between_two_folders_ends_at_both(home):
    run = ("line", "gpt2", "--direction-to", "gpt2-2", "--alpha", "0,1", "--resolution", "3")
    result = home.run(*run, "--exact", *TEXT, *QUICK)
    assert result.code == 0, result.err
    loss = store.load(home.folder / "gpt2.line.h5").loss.grid
    assert loss[0] == pytest.approx(own_loss(home, "gpt2"), rel=1e-6)
    assert loss[-1] == pytest.approx(own_loss(home, "gpt2-2"), rel=1e-6)


@pytest.mark.slow
def test_folders_are_connected_after_their_units_are_matched(home):
    run = ("connect", "gpt2", "gpt2-2", *TEXT, "--method", "line", "--resolution", "5", *QUICK)
    result = home.run(*run)
    assert result.code == 0, result.err
    loaded = store.load(home.folder / "gpt2-gpt2-2.connect.h5")
    assert loaded.kind == "connect"


@pytest.mark.slow
def test_sharpness(home):
    result = home.run("sharpness", "bert", *TEXT, "--rho", "0.05", "--steps", "2", *QUICK)
    assert result.code == 0, result.err


@pytest.mark.slow
def test_a_gate_takes_the_text_before_the_task_of_its_policy(home):
    words = (home.folder / "text.txt").read_text(encoding="utf-8")
    home.write("text.txt", 3 * words)
    policy = """
        version = 1
        task = "nothing.py"
        [measure]
        measure = "sam"
        rho = 0.05
        m = 2
        looks = [16, 32]
        [rules.sharpness]
        max_increase = "25%"
    """
    home.write("policy.toml", policy)
    run = ("gate", "gpt2", "--baseline", "gpt2", "--policy", "policy.toml", "--examples", "64")
    assert "there is no task file" in home.run(*run).err
    result = home.run(*run, *TEXT, "-o", "verdict.h5")
    assert result.code in (0, 4), result.err  # a model is not sharper than itself
    assert store.load(home.folder / "verdict.h5").kind == "verdict"


@pytest.mark.slow
def test_a_merge_of_folders_is_a_checkpoint_beside_them_or_in_a_copy(home):
    result = home.run("merge", "gpt2", "gpt2-2", *TEXT, "-o", "soup.safetensors")
    assert result.code == 0, result.err
    shutil.copytree(home.folder / "gpt2", home.folder / "soup")
    shutil.copy(home.folder / "soup.safetensors", home.folder / "soup" / "model.safetensors")
    run = ("line", "gpt2", "--direction-to", "soup.safetensors", "--alpha", "0,1")
    assert home.run(*run, "--resolution", "3", "--exact", *TEXT, *QUICK).code == 0
    loss = store.load(home.folder / "gpt2.line.h5").loss.grid
    assert loss[-1] == pytest.approx(own_loss(home, "soup"), rel=1e-6)


def test_other_masks_are_drawn_by_a_setting(home):
    line = ("line", "bert", "--resolution", "3", "--exact", "--json", "--overwrite")
    first, second = (
        json.loads(home.run(*line, *TEXT, *QUICK, *more).out)
        for more in ((), ("--set", "data.seed=1"))
    )
    assert first["loss_at_centre"] != second["loss_at_centre"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--text", "text.txt", "--task", "landscape_task.py"), "leave out --task"),
        (("--window", "16"), "belongs to --text"),
        (("--text", "text.txt", "--window", "1"), "--window"),
    ],
)
def test_options_that_contradict_are_wrong_usage(home, options, text):
    result = home.run("check", "gpt2", *options)
    assert result.code == 2
    assert text in result.text


def test_a_refusal_is_one_sentence(home):
    assert (
        "--text needs the folder of a language model"
        in home.run("check", "ckpt.pt", *TEXT).sentence
    )
    edit(home.folder / "gpt2", model_type="odd", auto_map={"AutoConfig": "code.Odd"})
    assert "needs code of its own" in home.run("surface", "gpt2", *TEXT).sentence
