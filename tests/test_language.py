"""Language models and a text as a task; transformers' own losses are the oracle."""

import json
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from language_folders import (
    FORMS,
    SPECIAL,
    TEXT,
    build,
    config,
    edit,
    save,
    save_tokenizer,
    transformers,
)
from oracles import assert_close, objective

from landscape import language, language_folder
from landscape.errors import UserError
from landscape.losses import IGNORED

DOUBLE = torch.float64
KINDS = list(FORMS)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that no test changes."""
    return build(tmp_path_factory.mktemp("language"))


@pytest.fixture
def folders(originals: Path, tmp_path: Path) -> Path:
    """A copy of these, to change."""
    return Path(shutil.copytree(originals, tmp_path / "language"))


def problem(home: Path, kind: str, window: int = 16, **more: Any) -> Any:
    """The objective of one of the folders in float64."""
    task = language.task(home / kind, home / "text.txt", window=window)
    return objective(task, dtype=DOUBLE, net=task.model(checkpoint=home / kind), **more)


def own_loss(home: Path, kind: str, batch: Any) -> float:
    """The mean loss per token that the model of transformers computes itself."""
    auto = (
        transformers.AutoModelForMaskedLM if kind == "bert" else transformers.AutoModelForCausalLM
    )
    net = auto.from_pretrained(home / kind, local_files_only=True).double()
    labels = batch["labels"]
    if kind != "bert":  # it shifts them itself
        labels = torch.cat([torch.full_like(labels[:, :1], IGNORED), labels[:, :-1]], 1)
    with torch.no_grad():
        return float(net(**{**batch, "labels": labels}).loss)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_that_of_transformers(originals, kind):
    f = problem(originals, kind)
    expected = own_loss(originals, kind, f.task.data())
    found = f.evaluate(f.theta())
    assert found["loss"].mean == pytest.approx(expected, rel=1e-6)
    assert found["loss"].basis == "examples"
    assert list(found) == ["loss", "token_accuracy"]


def test_batches_of_any_size_give_the_same_loss(originals):
    whole, cut = problem(originals, "gpt2"), problem(originals, "gpt2", batch_size=3)
    assert cut.loss(cut.theta()) == pytest.approx(whole.loss(whole.theta()), rel=1e-12)


def test_token_accuracy_counts_the_predicted_tokens_only(originals):
    f = problem(originals, "bert")
    batch = f.task.data()
    net = f.task.model(checkpoint=originals / "bert").double()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    counts = batch["labels"] != IGNORED
    right = (net(**inputs).logits.argmax(-1) == batch["labels"])[counts].double().mean()
    found = f.evaluate(f.theta())["token_accuracy"].mean
    assert found == pytest.approx(float(right), abs=1e-12)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_windows_are_the_text_and_labels_the_next_tokens(originals, kind):
    task = language.task(originals / kind, originals / "text.txt", window=16)
    of = transformers.AutoTokenizer.from_pretrained(originals / kind, local_files_only=True)
    text = of(4 * TEXT, add_special_tokens=False)["input_ids"]
    batch = task.data()
    ids, labels = batch["input_ids"], batch["labels"]
    front = {"gpt2": [], "llama": [SPECIAL.index("<s>")]}[kind]
    inner = 16 - len(front)
    for row, start in enumerate(range(0, len(text), inner)):
        window = [*front, *text[start : start + inner]]
        assert ids[row, : len(window)].tolist() == window
        assert labels[row, : len(window) - 1].tolist() == window[1:]
        assert labels[row, len(window) - 1 :].tolist() == [IGNORED] * (17 - len(window))
    assert len(ids) == row + 1


def test_hidden_tokens_are_a_fixed_choice_of_the_seed(originals):
    task = language.task(originals / "bert", originals / "text.txt", window=22)
    first, again, other = task.data(), task.data(), task.data(seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["labels"], other["labels"])


def test_hidden_tokens_are_15_percent_of_the_text_and_never_special(originals):
    task = language.task(originals / "bert", originals / "text.txt", window=22)
    batch = task.data()
    hidden = batch["labels"] != IGNORED
    assert hidden[:-1].sum(1).tolist() == [3] * (len(hidden) - 1)  # of 20
    assert hidden.any(1).all()
    plain = torch.where(hidden, batch["labels"], batch["input_ids"])
    assert (plain[:, 0] == SPECIAL.index("[CLS]")).all()
    last = batch["attention_mask"].sum(1) - 1
    assert (plain.gather(1, last[:, None]) == SPECIAL.index("[SEP]")).all()
    assert not hidden[:, 0].any()
    assert not hidden.gather(1, last[:, None]).any()
    masks = (batch["input_ids"] == SPECIAL.index("[MASK]")).sum() / hidden.sum()
    assert 0.6 < float(masks) < 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_hessian_products_are_differences_of_gradients(originals, kind, attention):
    f = problem(originals, kind)
    f.net.set_attn_implementation(attention)
    theta = f.theta()
    v = torch.randn_like(theta)
    # The norms of a Llama are computed in float32, whatever its weights are.
    step, tolerance = {"llama": (1e-2, 2e-3)}.get(kind, (1e-5, 1e-5))
    step /= float(v.norm())
    difference = (f.gradient(theta + step * v) - f.gradient(theta - step * v)) / (2 * step)
    assert_close(f.hessian(theta)(v), difference, tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_gauss_newton_needs_nothing_more_and_is_semi_definite(originals, kind):
    f = problem(originals, kind)
    theta = f.theta()
    product = f.gauss_newton(theta)
    u, v = torch.randn_like(theta), torch.randn_like(theta)
    assert float(u @ product(v)) == pytest.approx(float(v @ product(u)), rel=1e-5)
    assert float(v @ product(v)) > 0


def test_tied_embeddings_move_once(originals):
    f = problem(originals, "gpt2")
    assert sum("wte" in name or "lm_head" in name for name in f.space.names) == 1


def test_weights_keep_the_precision_of_the_folder(folders):
    net = transformers.AutoModelForCausalLM.from_pretrained(folders / "gpt2", local_files_only=True)
    net.bfloat16().save_pretrained(folders / "gpt2")
    loaded = language_folder.model(folders / "gpt2", "causal")
    assert {weight.dtype for weight in loaded.parameters()} == {torch.bfloat16}


def test_the_window_is_what_the_model_takes_at_most(originals):
    task = language.task(originals / "gpt2", originals / "text.txt")
    assert task.data()["input_ids"].shape[1] == 32
    with pytest.raises(UserError, match=r"--window 33: .*gpt2 takes at most 32 tokens"):
        language.task(originals / "gpt2", originals / "text.txt", window=33)


# Refusals.


def refused(home: Path, kind: str = "gpt2", other: str | None = None, **more: Any) -> str:
    """The sentence that refuses a folder, or a second one beside it."""

    def load() -> None:
        task = language.task(home / kind, home / "text.txt", **more)
        task.model(checkpoint=home / (other or kind))

    with pytest.raises(UserError) as caught:
        load()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_transformers_the_extra_is_named(originals, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'landscape-toolkit[hf]'" in refused(originals)


def test_a_file_or_a_bare_folder_is_refused(originals):
    assert "text.txt is no folder" in refused(originals, "text.txt")
    assert refused(originals, ".").endswith("has no config.json")


def test_a_damaged_configuration_is_refused(folders):
    (folders / "gpt2" / "config.json").write_text("{")
    assert "config.json cannot be read (Expecting property name" in refused(folders)


def test_a_folder_without_tokenizer_is_refused(folders):
    for kind in KINDS:
        for file in (folders / kind).glob("tokenizer*"):
            file.unlink()
    for kind in ("gpt2", "bert"):
        assert f"{kind} holds no tokenizer, which --text needs: save" in refused(folders, kind)
    sentence = refused(folders, "llama")
    assert "llama: --text needs its tokenizer, which cannot be loaded (" in sentence


def test_a_folder_that_needs_its_own_code_is_refused_and_none_is_run(folders):
    mark = folders / "ran"
    (folders / "gpt2" / "code.py").write_text(f"open({str(mark)!r}, 'w')")
    edit(folders / "gpt2", model_type="odd", auto_map={"AutoConfig": "code.OddConfig"})
    assert "needs code of its own (auto_map in config.json), which is not run" in refused(folders)
    assert not mark.exists()


def test_encoder_decoders_and_other_networks_are_refused(folders):
    transformers.T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(
        folders / "gpt2"
    )
    assert "holds a T5ForConditionalGeneration, an encoder-decoder: --text" in refused(folders)
    transformers.ViTConfig().save_pretrained(folders / "gpt2")
    assert "holds a vit, no language model: --text takes causal and masked" in refused(folders)


def test_a_model_without_its_head_is_refused(folders):
    net = transformers.BertModel(config("bert"))
    save(folders / "bert", "bert", net=net)
    sentence = refused(folders, "bert")
    assert "tensors of a BertForMaskedLM, the first 'cls.predictions" in sentence


def test_a_causal_model_that_sees_the_future_is_refused(folders):
    net = transformers.BertLMHeadModel(config("bert", is_decoder=True))
    save(folders / "bert", "bert", net=net)
    task = language.task(folders / "bert", folders / "text.txt", window=16)
    task.model(checkpoint=folders / "bert")  # with its mask it is causal
    edit(folders / "bert", is_decoder=False)
    assert "bert is no causal language model: what it says of a token" in refused(folders, "bert")


def test_a_bidirectional_model_that_goes_by_causal_is_refused(folders):
    narrow = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}
    net = transformers.XLNetLMHeadModel(transformers.XLNetConfig(vocab_size=300, **narrow))
    net.save_pretrained(folders / "gpt2")
    assert "gpt2 is no causal language model" in refused(folders)


def test_a_short_text_is_refused(folders):
    (folders / "text.txt").write_text("Short.")
    sentence = refused(folders)
    assert "tokens, fewer than one window of 32: take a longer text, or a shorter" in sentence


def test_a_text_that_cannot_be_read_is_refused(folders):
    (folders / "text.txt").write_bytes(b"\xff\xfe")
    assert "text.txt is no text in UTF-8" in refused(folders)
    (folders / "text.txt").unlink()
    assert "text.txt cannot be read (No such file" in refused(folders)


def test_a_window_of_special_tokens_only_is_refused(originals):
    assert "leaves no room for text beside the special tokens" in refused(
        originals, "bert", window=3
    )


def test_a_tokenizer_of_another_model_is_refused(folders):
    edit(folders / "gpt2", vocab_size=100)
    assert "and the model there knows 100: they do not belong together" in refused(folders)


def test_a_masked_model_needs_a_mask_token(folders):
    path = folders / "bert" / "tokenizer_config.json"
    entries = json.loads(path.read_text())
    del entries["mask_token"]
    path.write_text(json.dumps(entries))
    assert "the tokenizer in" in refused(folders, "bert")


def test_a_model_of_another_kind_or_with_other_tokens_is_refused(folders):
    assert "bert is a masked model and" in refused(folders, other="bert")
    save_tokenizer(folders / "gpt2-2", words="Quite another text, of other words. " * 9)
    assert "gpt2-2 cuts" in refused(folders, other="gpt2-2")
    for file in (folders / "gpt2-2").glob("tokenizer*"):  # as trainings leave them
        file.unlink()
    task = language.task(folders / "gpt2", folders / "text.txt")
    assert task.model(checkpoint=folders / "gpt2-2") is not None
