"""The content of a checkpoint file, recognised by its first bytes and never by its suffix.

Two families are read: what `torch.save` wrote (zip, or the older form without one) and
safetensors, alone or as a Hugging Face folder of shards. Everything else is refused under its
own name, with the way out.
"""

import json
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint

from landscape.errors import UserError

HUGGING_FACE = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ZIP = b"PK\x03\x04"
LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's magic number, as pickled by protocols 2 to 5
SAFETENSORS_HEADER = 100_000_000  # bytes, limit of the format's own reader

AGAIN = "copy or download it again"
RESAVE = "load it with what wrote it and torch.save the state_dict() of the PyTorch model"
IN_TASK = (
    "load it in the task, in `def model(checkpoint): ...` that returns the nn.Module, or re-save "
)
GATHER = (
    "run `python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR out.pt` "
    "and pass out.pt"
)
INDEX = ".metadata"  # of a distributed checkpoint
ZERO_TO_FP32 = "run `python zero_to_fp32.py . out` in its folder and pass the out it writes"
MAGIC = (
    (b"GGUF", "is a GGUF file", "pass the safetensors or torch.save file that it was made from"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (Keras or other)", RESAVE),
    (b"\x93NUMPY", "is a NumPy array", RESAVE),
    (b"\x1f\x8b", "is compressed with gzip", "unpack it with gunzip and pass the file inside"),
    (b"PK\x05\x06", "is an empty zip archive", AGAIN),
    (b"version https://git-lfs", "is a Git LFS pointer, not the weights", "run `git lfs pull`"),
    (b"<", "is a web page or XML, not the weights", "download it again and look at the address"),
)
PICKLE = re.compile(rb"\x80[\x02-\x05]")
# ONNX has no magic number: a protobuf whose field 1 is a small version, then a field of its model
ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]")


def refusal(path: Path, cause: str, remedy: str) -> UserError:
    """The error that names the file, what is wrong with it, and what to do."""
    return UserError(f"checkpoint '{path}' {cause}: {remedy}")


def locate(path: Path) -> tuple[list[Path], dict[str, str] | None]:
    """Files that hold the weights, and for shards the file name of each tensor.

    Args:
        path: a file, an index of shards (`*.index.json`), or a folder in the layout of Hugging
            Face.

    Raises:
        UserError: nothing is there, or the folder is of no known layout.
    """
    if path.is_dir():
        path = _in_folder(path)
    elif not path.exists():
        raise refusal(path, "does not exist", "check the path")
    elif not path.is_file():
        raise refusal(path, "is neither a file nor a folder", "pass the file itself")
    head = _head(path)
    if head.startswith(b"{") and not _is_safetensors(head):
        return _shards(path)
    return [path], None


def contents(path: Path, *, trust_pickle: bool, mapped: bool = False) -> Any:
    """What was saved in one file, with its tensors on the CPU.

    The checksums of a zip are verified, a block at a time, which `torch.load` never does. The
    older torch.save form and safetensors have none: damage that leaves them well formed cannot be
    seen.

    Args:
        path: one file, as `locate` gives it.
        trust_pickle: a pickle that needs more than tensors and plain containers may run code.
        mapped: map the file into memory; the older form is read all the same.

    Raises:
        UserError: the file is empty, damaged, of a format that is not read, or asks for trust.
    """
    head = _head(path)
    if not head:
        raise refusal(path, "is empty", AGAIN)
    if _is_safetensors(head):
        return _safetensors(path, mapped)
    if head.startswith(ZIP):
        _check_zip(path)
        # torch.load maps a path only, and one with this suffix it does not ask for its content.
        return _torch(path, trust_pickle, mapped and path.suffix != ".safetensors")
    if _is_legacy(head):
        return _torch(path, trust_pickle, False)
    for magic, cause, remedy in MAGIC:
        if head.startswith(magic):
            raise refusal(path, cause, remedy)
    if head[257:262] == b"ustar":
        raise refusal(path, "is a tar archive", "unpack it and pass the file inside")
    if ONNX.match(head):
        raise refusal(path, "is an ONNX graph", "pass the PyTorch checkpoint it was exported from")
    if PICKLE.match(head):
        raise refusal(path, "is a plain pickle, not made by torch.save", RESAVE)
    raise refusal(
        path,
        f"is in no known format (it begins with {head[:8]!r})",
        "pass a torch.save or safetensors file, or a Hugging Face folder",
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(512)


def _is_safetensors(head: bytes) -> bool:
    if len(head) < 9 or head[8:9] != b"{":
        return False
    return bool(struct.unpack("<Q", head[:8])[0] <= SAFETENSORS_HEADER)


def _is_legacy(head: bytes) -> bool:
    return head[:1] == b"\x80" and LEGACY in head[:32]


def _in_folder(folder: Path) -> Path:
    for name in HUGGING_FACE:
        if (folder / name).is_file():
            return folder / name
    inside = sorted(folder.iterdir())
    names = {file.name for file in inside}
    if INDEX in names or any(name.endswith(".distcp") for name in names):
        out = f"{GATHER}, or read it as it is with --fsdp --trust-pickle over several processes"
        raise refusal(folder, "is a distributed checkpoint", out.replace("DIR", str(folder)))
    if any(next(folder.glob(at + "*mp_rank_*_states.pt"), None) for at in ("", "*/")):
        raise refusal(folder, "is a DeepSpeed checkpoint", ZERO_TO_FP32)
    if "saved_model.pb" in names:
        raise refusal(folder, "is a TensorFlow SavedModel", RESAVE)
    readable = [file.name for file in inside if file.is_file() and _is_read(_head(file))]
    if readable:
        raise refusal(
            folder, "is a folder of no known layout", f"pass one of its files, {quoted(readable)}"
        )
    raise refusal(
        folder,
        f"is a folder without weights (it holds {quoted(f.name for f in inside) or 'nothing'})",
        f"pass a file, or a folder with one of {', '.join(HUGGING_FACE)}",
    )


def _is_read(head: bytes) -> bool:
    return head.startswith(ZIP) or _is_legacy(head) or _is_safetensors(head)


def _shards(index: Path) -> tuple[list[Path], dict[str, str]]:
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(weight_map.values()))
        plain = all(isinstance(name, str) and Path(name).name == name for name in names)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise refusal(
            index,
            "is JSON, but no index of shards (it has no readable 'weight_map')",
            "pass the weights themselves, or the folder that holds them",
        ) from None
    if not plain or not names:
        raise refusal(index, "names shards outside its own folder, or none", AGAIN)
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise refusal(
            index,
            f"names {len(names)} shards of which {len(missing)} are not beside it, "
            f"the first '{missing[0]}'",
            "copy or download all of them",
        )
    return [index.parent / name for name in names], weight_map


def _safetensors(path: Path, mapped: bool) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors if mapped else {name: t.clone() for name, t in tensors.items()}
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        cause = f"is a damaged or truncated safetensors file ({_reason(error)})"
        raise refusal(path, cause, AGAIN) from error


def _check_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_foreign_zip(path, archive)
            damaged = archive.testzip()
    except (UserError, OSError):
        raise
    except Exception as error:  # damage makes zipfile raise nearly anything
        cause = f"is a truncated or damaged zip archive ({_reason(error)})"
        raise refusal(path, cause, AGAIN) from error
    if damaged is not None:
        raise refusal(
            path,
            f"is damaged (entry '{damaged}' differs from its checksum)",
            f"{AGAIN}; if it was saved under set_crc32_options(False), save it without",
        )


def _refuse_foreign_zip(path: Path, archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    inner = [name.partition("/")[2] for name in names]
    if any(name.startswith("code/") for name in inner):
        raise refusal(
            path,
            "is a TorchScript archive",
            f"{IN_TASK}`torch.jit.load(f).state_dict()` with torch.save",
        )
    if (
        "models/model.json" in inner
        or "archive_format" in inner
        or any(name.endswith("serialized_exported_program.json") for name in names)
    ):
        raise refusal(
            path,
            "is a torch.export archive",
            f"{IN_TASK}`torch.export.load(f).state_dict` with torch.save",
        )
    if names and all(name.endswith(".npy") for name in names):
        raise refusal(path, "is a NumPy archive (npz)", RESAVE)
    if any(name.endswith(".h5") for name in names):
        raise refusal(path, "is a Keras archive", RESAVE)
    if "data.pkl" not in inner:
        raise refusal(
            path,
            f"is a zip archive, but not one of torch.save (it holds {quoted(names) or 'nothing'})",
            "unpack it and pass the checkpoint inside",
        )
    if min(entry.header_offset for entry in entries) > 0:
        raise refusal(
            path,
            "is several archives in a row, a piece of a distributed checkpoint",
            GATHER.replace("DIR", str(path.parent)),
        )


def _torch(path: Path, trust_pickle: bool, mapped: bool) -> Any:
    try:
        return _load(path, weights_only=True, mapped=mapped)
    except OSError:
        raise
    except Exception as error:  # torch.load has no error of its own for damage
        cause = error
    foreign = _foreign_globals(path, cause)
    names = first(foreign)
    if re.search("DTensor|ShardedTensor", f"{foreign} {cause}"):
        raise refusal(
            path,
            "holds tensors that are spread over processes (DTensor or ShardedTensor)",
            "re-save the gathered ones, get_model_state_dict(model, "
            "options=StateDictOptions(full_state_dict=True))",
        ) from cause
    if not foreign and not isinstance(cause, pickle.UnpicklingError):
        raise refusal(path, f"is damaged or truncated ({_reason(cause)})", AGAIN) from cause
    if not trust_pickle:
        what = f"holds objects that are not tensors ({names})" if foreign else "is oddly pickled"
        raise refusal(
            path,
            f"{what} and would have to run code to be read"
            + ("" if foreign else f", or is damaged ({_reason(cause)})"),
            "pass --trust-pickle if you trust who made it, "
            "or re-save the weights alone with torch.save(model.state_dict(), 'new.pt')",
        ) from cause
    try:
        return _load(path, weights_only=False, mapped=mapped)
    except Exception as error:
        raise refusal(
            path,
            f"could not be unpickled ({type(error).__name__}: {_reason(error)})",
            f"run where its classes can be imported ({names or 'see the error'}), "
            "or re-save the weights alone",
        ) from error


def _load(path: Path, *, weights_only: bool, mapped: bool) -> Any:
    # A handle, because torch.load of a path goes by the suffix .safetensors before the content.
    # Its warnings are of pickle protocols and deprecations; what matters here is refused by name.
    with path.open("rb") as handle, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = path if mapped else handle
        return torch.load(source, map_location="cpu", weights_only=weights_only, mmap=mapped)


def _foreign_globals(path: Path, error: Exception) -> list[str]:
    """Names of the classes and functions a pickle asks for; nothing of it is run."""
    try:
        with path.open("rb") as handle:
            return sorted(get_unsafe_globals_in_checkpoint(handle))
    except Exception:  # the older form, which torch does not scan, or an odd pickle
        return re.findall(r"GLOBAL (\S+) ", str(error))[:1]


def _reason(error: Exception) -> str:
    text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return (text.strip().splitlines() or [type(error).__name__])[0][:160].rstrip(" .:")


def quoted(names: Iterable[str]) -> str:
    """The first few names, each in quotation marks, and how many more there are."""
    return first(f"'{name}'" for name in names)


def first(texts: Iterable[str]) -> str:
    """The first few texts, with commas between, and how many more there are."""
    texts = list(texts)
    return ", ".join(texts[:6]) + (f" and {len(texts) - 6} more" if len(texts) > 6 else "")
