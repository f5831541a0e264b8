"""A language model of transformers and a text as a task: nothing else need be written.

A checkpoint is a folder as `save_pretrained` writes it, with its tokenizer. The text is cut into
windows of equal length, which are the examples; the loss has one value per token, of the next
token (causal models) or of the hidden ones (masked models).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscape import language_folder as folders
from landscape.device import accumulator
from landscape.errors import UserError
from landscape.losses import IGNORED
from landscape.task import Task, from_object

WINDOW = 128
MOST_LOGITS = 2**25  # in one batch: 128 MiB in float32, and several times that with a graph
MOST_WINDOWS = 64  # in one batch
HIDDEN, AS_MASK, AS_OTHER = 0.15, 0.8, 0.1  # Devlin et al. 2019, section 3.1


def task(
    folder: Path,
    text: Path,
    *,
    window: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Task:
    """The loss of language models on a text, per token, with the accuracy of the tokens.

    Args:
        folder: of the first model, whose tokenizer cuts the text for all.
        text: a file in UTF-8.
        window: tokens of an example, special ones included; `WINDOW` if None, or fewer where the
            model takes fewer.
        settings: as `--set` gives them; `data.seed` hides other tokens of a masked model.

    Raises:
        UserError: transformers is not installed, the folder holds no causal or masked language
            model with its tokenizer, or the text is too short.
    """
    thing = Language(folder, text, window)
    name = f"{thing.kind} language modelling of {text.name} in windows of {thing.window}"
    return from_object(thing, name=name, settings=settings)


class Language:
    """The members of the task, for the tokenizer of one folder.

    Attributes:
        kind: "causal" or "masked".
        window: tokens of an example.
        batch_size: windows evaluated at once.
    """

    def __init__(self, folder: Path, text: Path, window: int | None) -> None:
        """Read the configuration and the tokenizer, and tokenise the text."""
        self._folder, self._text = folder, text
        self._config = folders.configuration(folder)
        self.kind = folders.kind(folder, self._config)
        self._tokenizer = folders.tokenizer(folder)
        self._words = _read(text)
        self._tokens = folders.tokens(self._tokenizer, self._words)
        self._vocabulary: int = self._config.get_text_config().vocab_size
        self.window = self._length(window)
        self._before, self._after = folders.frame(self._tokenizer, self._words[:1000])
        if self.kind == folders.CAUSAL:  # the text goes on behind a window
            self._after = []
        self._inner = self.window - len(self._before) - len(self._after)
        self._refuse_misfit()
        most = MOST_LOGITS // (self.window * self._vocabulary)
        self.batch_size = max(1, min(MOST_WINDOWS, most))

    def model(self, checkpoint: Path) -> nn.Module:
        """The model in a folder; or the tensors of a file, in a model as the first folder's.

        Raises:
            UserError: it lacks weights, is of another kind, or takes the text as other tokens.
        """
        if not checkpoint.is_dir():
            return folders.model_from_file(checkpoint, self.kind, self._config)
        kind = folders.kind(checkpoint, folders.configuration(checkpoint))
        if kind != self.kind:
            raise UserError(f"{checkpoint} is a {kind} model and {self._folder} a {self.kind} one")
        self._refuse_other_tokens(checkpoint)
        return folders.model(checkpoint, kind)

    def data(self, seed: int = 0) -> dict[str, Tensor]:
        """Windows of tokens and their targets, (N, T); `IGNORED` where there is no target."""
        starts = range(0, len(self._tokens), self._inner)
        chunks = [self._tokens[i : i + self._inner] for i in starts]
        rows = [[*self._before, *chunk, *self._after] for chunk in chunks]
        padding = self._tokenizer.pad_token_id or 0
        if self.kind == folders.CAUSAL:
            rows = [row for row in rows if len(row) > 1]
            targets = [[*row[1:], IGNORED] for row in rows]
            # Padding stands behind, where nothing looks at it.
            return {
                "input_ids": self._padded(rows, padding),
                "labels": self._padded(targets, IGNORED),
            }
        ids = self._padded(rows, padding)
        real = self._padded([[1] * len(row) for row in rows], 0)
        ids, labels = self._hidden(ids, [len(chunk) for chunk in chunks], seed)
        return {"input_ids": ids, "attention_mask": real, "labels": labels}

    def loss(self, net: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Cross-entropy of each token in nats, (B, T)."""
        logits = _logits(net, batch)
        wide = logits.to(accumulator(logits.device))
        return F.cross_entropy(wide.mT, batch["labels"], reduction="none", ignore_index=IGNORED)

    def metrics(self, net: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whether the likeliest token is the right one, (B, T)."""
        return {"token_accuracy": _logits(net, batch).argmax(-1) == batch["labels"]}

    def weights(self, batch: Mapping[str, Tensor]) -> Tensor:
        """1 for tokens that are predicted, 0 for the others, (B, T)."""
        return (batch["labels"] != IGNORED).double()

    def _padded(self, rows: list[list[int]], value: int) -> Tensor:
        padded = [row + [value] * (self.window - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64)

    def _hidden(self, ids: Tensor, lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
        """The windows with a choice of tokens hidden, at least one in each, and the targets."""
        generator = torch.Generator().manual_seed(seed)
        shown, labels = ids.clone(), torch.full_like(ids, IGNORED)
        for row, length in enumerate(lengths):
            order = torch.randperm(length, generator=generator)
            chosen = order[: max(1, round(HIDDEN * length))] + len(self._before)
            labels[row, chosen] = right = ids[row, chosen]
            draw = torch.rand(len(chosen), generator=generator)
            others = torch.randint(self._vocabulary, chosen.shape, generator=generator)
            kept = torch.where(draw < AS_MASK + AS_OTHER, others, right)
            shown[row, chosen] = kept.masked_fill(draw < AS_MASK, self._tokenizer.mask_token_id)
        return shown, labels

    def _length(self, asked: int | None) -> int:
        """The window asked for, or `WINDOW`, within what model and tokenizer take."""
        positions = getattr(self._config.get_text_config(), "max_position_embeddings", None)
        stated = (positions, self._tokenizer.model_max_length)
        most = min(int(n) for n in stated if n is not None and n > 0)
        if asked is not None and asked > most:
            raise UserError(f"--window {asked}: {self._folder} takes at most {most} tokens")
        return asked or min(WINDOW, most)

    def _refuse_misfit(self) -> None:
        if self._inner < 2:
            raise UserError(
                f"--window {self.window} leaves no room for text beside the special tokens of "
                f"{self._folder}: take a longer one"
            )
        if len(self._tokens) < self._inner:
            raise UserError(
                f"{self._text} has {len(self._tokens)} tokens, fewer than one window of "
                f"{self._inner}: take a longer text, or a shorter --window"
            )
        if max(self._tokens) >= self._vocabulary:
            raise UserError(
                f"the tokenizer in {self._folder} gives token {max(self._tokens)} and the model "
                f"there knows {self._vocabulary}: they do not belong together"
            )
        if self.kind == folders.MASKED and self._tokenizer.mask_token_id is None:
            raise UserError(f"the tokenizer in {self._folder} has no mask token: give it one")

    def _refuse_other_tokens(self, folder: Path) -> None:
        """Losses per token say nothing of a model with other tokens."""
        mine, other = (f / "tokenizer.json" for f in (self._folder, folder))
        if mine.is_file() and other.is_file() and mine.read_bytes() == other.read_bytes():
            return
        try:
            tokenizer = folders.tokenizer(folder)
        except UserError:  # a folder of a training, without one
            return
        if folders.tokens(tokenizer, self._words) != self._tokens:
            raise UserError(
                f"{folder} cuts {self._text} into other tokens than {self._folder}: losses per "
                "token of the two cannot be compared"
            )


def _logits(net: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    logits: Tensor = net(**inputs).logits  # (B, T, V)
    return logits


def _read(text: Path) -> str:
    try:
        return text.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"--text {text} cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--text {text} is no text in UTF-8 ({error.reason})") from error
