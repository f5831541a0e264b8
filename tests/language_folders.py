"""Folders of tiny language models with their tokenizers, as transformers writes them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXT = (
    "A landscape has hills and valleys. The loss of a network has them too, and it is seen along "
    "two directions at a time. What lies between the points is interpolated, with its error.\n"
)
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "<s>"]
VOCABULARY, WIDTH = 300, 16


def save_tokenizer(folder: Path, form: str | None = None, words: str = TEXT) -> None:
    """A byte-level tokenizer trained on `words`, which frames a text as `form` says."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([words], trainer)
    if form:
        ids = [(name, SPECIAL.index(name)) for name in SPECIAL if name in form]
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=form, special_tokens=ids
        )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        bos_token="<s>",
    ).save_pretrained(folder)


def config(kind: str, **more: Any) -> Any:
    """The configuration of a network of two layers."""
    ends = {"vocab_size": VOCABULARY, "bos_token_id": 4, "eos_token_id": 2, "pad_token_id": 0}
    wide = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2}
    wide |= {"intermediate_size": 2 * WIDTH, "max_position_embeddings": 64}
    if kind == "gpt2":
        narrow = {"n_positions": 32, "n_embd": WIDTH, "n_layer": 2, "n_head": 2}
        return transformers.GPT2Config(**ends, **narrow, **more)
    if kind == "llama":
        return transformers.LlamaConfig(**ends, **wide, num_key_value_heads=1, **more)
    return transformers.BertConfig(**ends, **wide, **more)


FORMS = {"gpt2": None, "llama": "<s> $A", "bert": "[CLS] $A [SEP]"}


def save(folder: Path, kind: str, *, seed: int = 0, net: Any = None) -> Path:
    """A network of this kind, a little away from its initialisation, and its tokenizer."""
    if net is None:
        auto = transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = auto[kind == "bert"].from_config(config(kind))
            with torch.no_grad():  # so that predictions differ from token to token
                for weight in net.parameters():
                    weight += 0.1 * torch.randn_like(weight)
    net.save_pretrained(folder)
    save_tokenizer(folder, FORMS[kind])
    return folder


def build(home: Path) -> Path:
    """Two folders of each kind, and a text of a few hundred tokens."""
    for kind in FORMS:
        save(home / kind, kind)
        save(home / f"{kind}-2", kind, seed=1)
    (home / "text.txt").write_text(4 * TEXT, encoding="utf-8")
    return home


def edit(folder: Path, **entries: Any) -> None:
    """Other values in the configuration of a folder."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))
