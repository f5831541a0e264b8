"""What a folder of transformers holds: configuration, tokenizer, and a language model.

Nothing is asked for that is not in the folder, and no code of the folder's own is run.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from landscape import checkpoint
from landscape.errors import UserError

CAUSAL, MASKED = "causal", "masked"
FORESIGHT = 1e-5  # relative; of six causal families it is 0 to the bit, of XLNet at random 7e-4
_HERE_ONLY: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def configuration(folder: Path) -> Any:
    """The configuration in a folder.

    Raises:
        UserError: there is none, it cannot be read, or it needs code that the folder brings.
    """
    library = _transformers()
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(
            f"--text needs the folder of a language model as transformers' save_pretrained writes "
            f"it, and {folder} {'has no config.json' if folder.is_dir() else 'is no folder'}"
        )
    with _explained(folder, "config.json cannot be read"):
        raw = json.loads(path.read_text(encoding="utf-8"))
        known = raw.get("model_type") in library.CONFIG_MAPPING
    if "auto_map" in raw and not known:
        raise UserError(
            f"{folder} needs code of its own (auto_map in config.json), which is not run: write a "
            "task whose model(checkpoint) loads it, if you trust it"
        )
    with _explained(folder, "config.json cannot be read"):
        return library.AutoConfig.from_pretrained(folder, **_HERE_ONLY)


def kind(folder: Path, config: Any) -> str:
    """`CAUSAL` or `MASKED`, whichever language model the configuration is of.

    Raises:
        UserError: of neither.
    """
    auto = _transformers().models.auto.modeling_auto
    name = next(iter(config.architectures or ()), "")
    causal = config.model_type in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    masked = config.model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.is_encoder_decoder or not (causal or masked):
        cause = "an encoder-decoder" if config.is_encoder_decoder else "no language model"
        raise UserError(
            f"{folder} holds a {name or config.model_type}, {cause}: --text takes causal and "
            "masked language models; write a task for it"
        )
    by_name = name.endswith(("ForCausalLM", "LMHeadModel"))
    return CAUSAL if causal and (by_name or not masked) else MASKED


def tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder.

    Raises:
        UserError: there is none that can be loaded.
    """
    with _quiet(), _explained(folder, "--text needs its tokenizer, which cannot be loaded"):
        found = _transformers().AutoTokenizer.from_pretrained(folder, **_HERE_ONLY)
    # Where none of its files is there, transformers makes one without words.
    files = found.vocab_files_names.values()
    if files and not any((folder / file).is_file() for file in ("tokenizer.json", *files)):
        raise UserError(
            f"{folder} holds no tokenizer, which --text needs: save the model's there, "
            f"with tokenizer.save_pretrained({str(folder)!r})"
        )
    return found


def tokens(of: Any, words: str) -> list[int]:
    """The tokens of a text by the tokenizer `of`, without special ones."""
    found: list[int] = of(words, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def frame(of: Any, words: str) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer `of` puts before a text and behind it."""
    plain = tokens(of, words)
    whole = of(words, verbose=False)["input_ids"]
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return whole[:at], whole[at + len(plain) :]
    return [], []


def model(folder: Path, kind: str) -> nn.Module:
    """The language model in a folder, in the dtypes it is stored in.

    Raises:
        UserError: it cannot be loaded, lacks weights, or is causal only by its name.
    """
    with _quiet(), _explained(folder, "its model cannot be loaded"):
        net, report = _auto_model(kind).from_pretrained(
            folder, output_loading_info=True, dtype="auto", **_HERE_ONLY
        )
    lost = sorted({*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])})
    if lost:
        raise UserError(
            f"{folder} lacks {len(lost)} tensors of a {type(net).__name__}, the first "
            f"{lost[0]!r}, which transformers would draw at random: name the folder of a language "
            "model with its head"
        )
    return _checked(net, kind, folder)


def model_from_file(path: Path, kind: str, config: Any) -> nn.Module:
    """A language model of the configuration `config`, with the tensors of a file.

    Raises:
        UserError: the file does not fit, as `checkpoint.match` says.
    """
    file = checkpoint.read(path, mapped=True)
    with _quiet():
        net = _auto_model(kind).from_config(config, trust_remote_code=False).eval()
    fitted, _ = checkpoint.match(file.tensors, net, source=path)
    checkpoint.load(net, fitted)
    checkpoint.unchanged(file)
    return _checked(net, kind, path)


def _checked(net: Any, kind: str, source: Path) -> nn.Module:
    net.config.use_cache = False  # of keys and values, for generation
    if kind == CAUSAL:
        _refuse_foresight(net, source)
    return net  # type: ignore[no-any-return]


def _refuse_foresight(net: Any, source: Path) -> None:
    """A model that sees the token it predicts has no loss of the next token."""
    ids = torch.arange(1, 9)[None] % net.config.get_text_config().vocab_size
    other = ids.clone()
    other[0, -1] = 0
    with torch.no_grad():
        first, second = (net(input_ids=each).logits[0, :-1].double() for each in (ids, other))
    if float((first - second).abs().max()) > FORESIGHT * float(first.abs().max()):
        raise UserError(
            f"{source} is no causal language model: what it says of a token depends on the tokens "
            "behind it (a bidirectional model, or one without is_decoder in its config.json)"
        )


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "--text needs transformers, which is not installed here: "
            "pip install 'landscape-toolkit[hf]'"
        ) from error
    return transformers


def _auto_model(kind: str) -> Any:
    library = _transformers()
    return {CAUSAL: library.AutoModelForCausalLM, MASKED: library.AutoModelForMaskedLM}[kind]


@contextlib.contextmanager
def _explained(folder: Path, what: str) -> Iterator[None]:
    """What transformers says of a folder, in one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of any kind: files and code are not ours
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"{folder}: {what} ({lines[0]}); --debug shows the traceback") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers; its warnings are printed as always."""
    logging = _transformers().utils.logging
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
