"""Any checkpoint file as named tensors, and those tensors in a network: safely and strictly.

A half-loaded network has a landscape too, the wrong one. Hence nothing is skipped in silence:
what does not fit is an error, what was chosen or left out is a note.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from landscape import checkpoint_formats as formats
from landscape import checkpoint_weights, training
from landscape.errors import UserError
from landscape.training import Training

PREFIXES = ("module.", "model.", "net.")  # at the front of a name
WRAPPING = (  # anywhere in a name: no module is called so by its author
    *("_orig_mod.", "_forward_module."),
    *("_fsdp_wrapped_module.", "_checkpoint_wrapped_module."),
)


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one checkpoint, as they stand in it.

    If it was read as `mapped`, its tensors are the file itself, mapped into memory. They are to be
    copied soon (`load`), `unchanged` is to be asked then, and `settled` gives what may be kept.
    """

    path: Path
    tensors: dict[str, Tensor]  # by their names in the file, on the CPU
    key: str  # where in the file the weights stood: "" if bare, "state_dict", "model.state_dict"
    notes: tuple[str, ...]  # what the reader of a result must be told
    sha256: str  # of the file; of several files: of the lines `sha256sum` prints, sorted by name
    training: Training = field(default_factory=Training)  # what stands beside the weights
    stamps: tuple[tuple[Path, int, int], ...] = ()  # size and time of the files as they were read


def read(
    path: str | Path,
    *,
    weights_key: str | None = None,
    trust_pickle: bool = False,
    mapped: bool = False,
) -> Checkpoint:
    """The weights in a file of torch.save or safetensors, or in a Hugging Face folder.

    EMA weights come first where a file holds several, then the usual names of wrappers, then
    the first dictionary of tensors that is not the optimiser's; the choice is in the notes.

    Args:
        path: file, folder, or `*.index.json` of shards; recognised by content.
        weights_key: where in the file the weights stand, keys joined by dots; None to search.
        trust_pickle: read files that hold more than tensors, which can run any code.
        mapped: map files into memory where their format allows it, instead of reading them: no
            memory is taken, but the tensors change, or the process dies, when whatever wrote the
            file writes it again.

    Raises:
        UserError: the path holds no weights that can be read safely; the text names the cause
            and the way out.
    """
    path = Path(path)
    try:
        files, weight_map = formats.locate(path)
        stamps = tuple(_stamp(file) for file in files)
        key = ""
        notes: tuple[str, ...] = ()
        tensors: dict[str, Tensor] = {}
        beside = Training()  # not kept whole: an optimiser's state is larger than the weights
        for file in files:
            saved = formats.contents(file, trust_pickle=trust_pickle, mapped=mapped)
            beside = training.read(saved) if len(files) == 1 else beside
            key, found, said = checkpoint_weights.find(file, saved, weights_key)
            twice = sorted(tensors.keys() & found.keys())
            if twice:
                raise formats.refusal(file, f"holds '{twice[0]}' again", formats.AGAIN)
            tensors |= found
            notes += said
        if set(key.split(".")) & set(checkpoint_weights.EMA):
            beside = training.of_average(beside)
        folder = weight_map is not None or path.is_dir()
        sha256 = digest_of_files(files) if folder else _sha256_of_file(files[0])
        _refuse_changed(path, stamps)
    except OSError as error:
        cause = f"cannot be read ({error.strerror or error})"
        raise formats.refusal(path, cause, "check the file and its permissions") from error
    lost = sorted(set(weight_map or ()) - set(tensors))
    if weight_map and lost:
        raise formats.refusal(
            path,
            f"lacks {len(lost)} tensors that its index lists, "
            f"the first '{lost[0]}' in '{weight_map[lost[0]]}'",
            formats.AGAIN,
        )
    return Checkpoint(path, tensors, key, notes, sha256, beside, stamps)


def match(
    tensors: Mapping[str, Tensor],
    net: nn.Module,
    *,
    source: str | Path,
    allow_missing: str | None = None,
    allow_unexpected: str | None = None,
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors under the names of `net.state_dict()`, and notes on what was done to them.

    Prefixes that wrappers leave (`module.`, `_orig_mod.`, `model.`, ...) are stripped, in the
    file or in the network, only where more names match for it. A name the file leaves out is
    filled from the name it is tied to. Only `num_batches_tracked` may be missing unasked.

    Args:
        tensors: as `read` gives them.
        net: the network they are for; it is not changed.
        source: name of the checkpoint, for messages.
        allow_missing: regular expression; names of the network it matches in full may be
            missing and keep the network's values.
        allow_unexpected: regular expression; names in the file it matches in full are ignored.

    Raises:
        UserError: tensors are missing, unexpected or of another shape; tied names differ; a
            weight is NaN or infinite (there is no landscape there).
    """
    may_miss = _pattern("--allow-missing", allow_missing)
    may_exceed = _pattern("--allow-unexpected", allow_unexpected)
    own = _own(net, source)
    names, stripped, notes = _pair(tensors, own)
    fitted = {names[name]: tensor for name, tensor in tensors.items() if name in names}
    twins = _fill_tied(fitted, own)

    missing = [name for name in own if name not in fitted and not _is_count(name)]
    unexpected = [name for name in tensors if name not in names]
    if "module." in stripped and "n_averaged" in unexpected:
        unexpected.remove("n_averaged")  # of torch.optim.swa_utils.AveragedModel
    kept = [name for name in missing if may_miss and may_miss.fullmatch(name)]
    ignored = [name for name in unexpected if may_exceed and may_exceed.fullmatch(name)]
    _refuse_misfit(
        source,
        {name: own[name] for name in missing if name not in kept},
        {name: tensors[name] for name in unexpected if name not in ignored},
        {name: tensor for name, tensor in fitted.items() if tensor.shape != own[name].shape},
        tensors,
        own,
    )
    if own and not fitted:
        raise UserError(
            f"checkpoint '{source}' has no tensor of the network, all of it is allowed to miss: "
            "narrow --allow-missing and --allow-unexpected"
        )
    _refuse_unusable_weights(source, fitted, own)
    _refuse_unequal_twins(source, twins, fitted, own)
    if kept:
        notes.append(
            f"{len(kept)} tensors not in the file keep the network's values: {formats.quoted(kept)}"
        )
    saved = {id(tensor) for tensor in own.values()}
    unsaved = [name for name, weight in net.named_parameters() if id(weight) not in saved]
    if unsaved:
        notes.append(
            f"{len(unsaved)} weights that the network's state_dict() leaves out keep its values: "
            f"{formats.quoted(unsaved)}"
        )
    if ignored:
        notes.append(f"ignored {len(ignored)} tensors of the file: {formats.quoted(ignored)}")
    return fitted, tuple(notes)


def load(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies tensors into the parameters and buffers of a network, in the network's dtypes.

    Args:
        net: is written to; its tensors stay the same objects.
        tensors: by names of `net.state_dict()`, as `match` gives them.

    Raises:
        ValueError: a name or a shape that the network does not have.
    """
    own = net.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if name not in own or own[name].shape != tensor.shape:
                raise ValueError(f"the network has no tensor {name!r} of shape {_size(tensor)}")
            own[name].copy_(tensor)


def unchanged(file: Checkpoint) -> None:
    """Refuse a file that was written since `read` began, once its tensors have been copied."""
    _refuse_changed(file.path, file.stamps)


def settled(net: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values as `tensors`, which were loaded into `net`, without the file they are in.

    The network's own where it has them in the same dtype, which takes no memory, else copies.
    """
    own = net.state_dict()
    return {n: own[n] if own[n].dtype == t.dtype else t.clone() for n, t in tensors.items()}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and values: equal for equal weights in any order or layout.

    Args:
        tensors: dense, on any device.
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().resolve_conj().resolve_neg()
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return total.hexdigest()


def digest_of_files(files: list[Path]) -> str:
    """SHA-256 of the lines that `sha256sum` prints of files in one folder, sorted by name."""
    sums = {file.name: _sha256_of_file(file) for file in files}
    lines = "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))
    return hashlib.sha256(lines.encode()).hexdigest()


def _stamp(file: Path) -> tuple[Path, int, int]:
    status = file.stat()
    return file, status.st_size, status.st_mtime_ns


def _refuse_changed(path: Path, stamps: tuple[tuple[Path, int, int], ...]) -> None:
    if any(_stamp(stamp[0]) != stamp for stamp in stamps):
        raise formats.refusal(path, "changed while it was read", "read a copy of it")


def _sha256_of_file(file: Path) -> str:
    total = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _own(net: nn.Module, source: str | Path) -> dict[str, Tensor]:
    own = {
        name: tensor
        for name, tensor in net.state_dict(keep_vars=True).items()
        if isinstance(tensor, Tensor) and not checkpoint_weights.is_extra(name)
    }
    held = {id(tensor) for tensor in (*net.parameters(), *net.buffers())}
    for name, tensor in own.items():
        if id(tensor) not in held:
            raise UserError(
                f"checkpoint '{source}' cannot be loaded, as '{name}' in the network's "
                "state_dict() is made by a hook and is none of its parameters or buffers: "
                "return a network without the hook from the task"
            )
        if isinstance(tensor, (UninitializedParameter, UninitializedBuffer)) or tensor.is_meta:
            raise UserError(
                f"checkpoint '{source}' cannot be loaded, as '{name}' of the network has no values "
                "yet (lazy, or on device 'meta'): build it on the CPU in the task, and run a lazy "
                "one on a batch first"
            )
    return own


def _pair(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, str], tuple[str, ...], list[str]]:
    """Names in the file to names in the network, what was stripped in the file, and notes."""
    choices = product(_strippings(tensors), _strippings(own))
    fewest_first = sorted(choices, key=lambda choice: len(choice[0][0]) + len(choice[1][0]))
    (stripped, short), (added, own_short) = max(  # the first of equals
        fewest_first, key=lambda choice: len(set(choice[0][1]) & set(choice[1][1]))
    )
    back = dict(zip(own_short, own, strict=True))
    names = {name: back[s] for name, s in zip(tensors, short, strict=True) if s in back}
    notes = [f"stripped prefix '{prefix}'" for prefix in stripped]
    notes += [f"the network's prefix '{prefix}' is not in the file" for prefix in added]
    return names, stripped, notes


def _strippings(names: Iterable[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Stacks of up to four prefixes and the names without them, the fewest prefixes first."""
    queue: list[tuple[tuple[str, ...], tuple[str, ...]]] = [((), tuple(names))]
    seen: set[tuple[str, ...]] = set()
    for stack, short in queue:  # grows as it is walked
        if short in seen or len(set(short)) < len(short):
            continue
        seen.add(short)
        yield stack, short
        if len(stack) < 4:
            queue += [
                ((*stack, prefix), tuple(_strip(name, prefix) for name in short))
                for prefix in PREFIXES + WRAPPING
            ]


def _strip(name: str, prefix: str) -> str:
    if prefix in WRAPPING:
        return f".{name}".replace(f".{prefix}", ".")[1:]
    return name.removeprefix(prefix)


def _fill_tied(fitted: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[list[str]]:
    """Fills in names the file leaves out; returns the tied names of which it holds several."""
    tied: dict[int, list[str]] = {}
    for name, tensor in own.items():
        tied.setdefault(id(tensor), []).append(name)
    several = []
    for names in tied.values():
        present = [name for name in names if name in fitted]
        if len(present) > 1:
            several.append(present)
        if present:
            fitted |= {name: fitted[present[0]] for name in names if name not in fitted}
    return several


def _refuse_misfit(
    source: str | Path,
    missing: Mapping[str, Tensor],
    unexpected: Mapping[str, Tensor],
    misshapen: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> None:
    parts = []
    if missing:
        like = [f"'{name}'" for name in tensors if name.endswith("." + next(iter(missing)))]
        hint = f" (the file has {like[0]})" if like else ""
        sizes = formats.first(f"'{name}' {_size(tensor)}" for name, tensor in missing.items())
        parts.append(f"{len(missing)} missing, {sizes}{hint}")
    if unexpected:
        sizes = formats.first(f"'{name}' {_size(tensor)}" for name, tensor in unexpected.items())
        parts.append(f"{len(unexpected)} unexpected, {sizes}")
    if misshapen:
        sizes = formats.first(
            f"'{name}' {_size(tensor)} in the file and {_size(own[name])} in the network"
            for name, tensor in misshapen.items()
        )
        parts.append(f"{len(misshapen)} of another shape, {sizes}")
    if parts:
        raise UserError(
            f"checkpoint '{source}' does not fit the network, {len(tensors)} tensors in the file "
            f"and {len(own)} in the network: {'; '.join(parts)}. Build in the task the network "
            "that was saved, or allow names with --allow-missing REGEX and --allow-unexpected "
            "REGEX, which match whole names (never shapes)"
        )


def _refuse_unequal_twins(
    source: str | Path,
    twins: list[list[str]],
    fitted: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> None:
    for first, *others in twins:
        dtype = own[first].dtype
        for other in others:
            if not torch.equal(fitted[first].to(dtype), fitted[other].to(dtype)):
                raise UserError(
                    f"checkpoint '{source}' has different values for '{first}' and '{other}', "
                    "which the network ties to one tensor: untie them in the task, as in the "
                    "network that was saved"
                )


def _refuse_unusable_weights(
    source: str | Path, fitted: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> None:
    """Parameters only: a buffer may be a mask of -inf, or another kind of number in old files."""
    weights = {
        id(tensor): (name, tensor)
        for name, tensor in fitted.items()
        if isinstance(own[name], nn.Parameter)
    }
    bad = []
    for name, tensor in weights.values():
        if _kind(tensor) != _kind(own[name]):
            raise UserError(
                f"checkpoint '{source}' has {tensor.dtype} numbers in '{name}', where the network "
                f"has {own[name].dtype} weights (quantised?): save the floating-point weights"
            )
        wide = tensor if tensor.element_size() > 1 else tensor.float()  # isfinite lacks float8
        count = int((~torch.isfinite(wide)).sum())
        if count:
            bad.append((name, count))
    if bad:
        raise UserError(
            f"checkpoint '{source}' has NaN or infinite weights, {bad[0][1]} of "
            f"{fitted[bad[0][0]].numel()} in '{bad[0][0]}' and {sum(n for _, n in bad)} in all, "
            "and no landscape exists there: take a checkpoint from before training diverged"
        )


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "floating" if tensor.is_floating_point() else "integer"


def _pattern(option: str, text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UserError(
            f"{option} '{text}' is no regular expression ({error}): write a literal dot as \\., "
            "and .* for anything"
        ) from error


def _is_count(name: str) -> bool:
    return name.rpartition(".")[2] == "num_batches_tracked"  # absent from files of torch < 0.4.1


def _size(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
