import hashlib
import io
import json
import os
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from landscape import checkpoint
from landscape.errors import UserError


class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.fc = nn.Linear(2, width)
        self.norm = nn.BatchNorm1d(width)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(4, 2)
        self.head = nn.Linear(2, 4, bias=False)
        self.head.weight = self.embedding.weight


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


class ShellBomb(Bomb):
    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def save(saved, path, **options):
    torch.save(saved, path, **options)
    return path


def old(saved, path):
    return save(saved, path, _use_new_zipfile_serialization=False)


def zip_of(path, *names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")
    return path


def same(a, b):
    return checkpoint.digest(a) == checkpoint.digest(b)


def fit(tensors, net, **options):
    return checkpoint.match(tensors, net, source="a.pt", **options)


# Formats that are read


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.ckpt", "a.pth.tar", "noext"])
@pytest.mark.parametrize("write", [save, old, lambda s, p: safetensors.torch.save_file(s, p)])
def test_content_decides_and_never_the_suffix(tmp_path, state, name, write):
    path = tmp_path / name
    write(state, path)
    read = checkpoint.read(path)
    assert same(read.tensors, state)
    assert (read.path, read.key, read.notes) == (path, "", ())
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_pickle_protocol_that_torch_warns_of_is_read_without_a_warning(tmp_path, state):
    assert same(checkpoint.read(save(state, tmp_path / "a", pickle_protocol=3)).tensors, state)


def test_tensors_are_plain_and_survive_the_loss_of_the_file(tmp_path, net):
    for write in (save, lambda s, p: safetensors.torch.save_file(dict(s), p) or p):
        path = write(dict(net.named_parameters()), tmp_path / "a")
        tensors = checkpoint.read(path).tensors
        expected = checkpoint.digest(dict(net.named_parameters()))
        with path.open("r+b") as handle:
            handle.truncate(0)
        assert checkpoint.digest(tensors) == expected
        assert all(type(t) is torch.Tensor and not t.requires_grad for t in tensors.values())


def shard(folder, state, write, suffix, index):
    folder.mkdir()
    names = list(state)
    weight_map = {}
    for number, part in enumerate((names[:3], names[3:])):
        file = f"part-{number}{suffix}"
        write({name: state[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize(
    ("write", "suffix", "index"),
    [
        (safetensors.torch.save_file, ".safetensors", "model.safetensors.index.json"),
        (save, ".bin", "pytorch_model.bin.index.json"),
    ],
)
def test_shards_are_joined_from_the_folder_or_its_index(tmp_path, state, write, suffix, index):
    folder = shard(tmp_path / "hf", state, write, suffix, index)
    of_folder, of_index = checkpoint.read(folder), checkpoint.read(folder / index)
    assert same(of_folder.tensors, state)
    assert same(of_index.tensors, state)
    lines = "".join(
        f"{hashlib.sha256((folder / n).read_bytes()).hexdigest()}  {n}\n"
        for n in (f"part-0{suffix}", f"part-1{suffix}")
    )
    assert of_folder.sha256 == of_index.sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_a_hugging_face_folder_of_one_file_is_read_safetensors_first(tmp_path, state):
    save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(checkpoint.read(tmp_path).tensors) == ["other"]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    assert same(checkpoint.read(tmp_path).tensors, state)


def test_a_shard_that_is_absent_or_incomplete_is_refused(tmp_path, state):
    folder = shard(tmp_path / "hf", state, save, ".bin", "pytorch_model.bin.index.json")
    save({"fc.bias": state["fc.bias"]}, folder / "part-0.bin")
    with pytest.raises(UserError, match=r"lacks 2 tensors .* the first 'fc.weight' in 'part-0"):
        checkpoint.read(folder)
    save(state, folder / "part-0.bin")
    with pytest.raises(UserError, match=r"part-1.bin' holds 'norm.\w+' again"):
        checkpoint.read(folder)
    (folder / "part-0.bin").unlink()
    with pytest.raises(UserError, match=r"names 2 shards of which 1 .* 'part-0.bin'.*copy or"):
        checkpoint.read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"hidden_size": 3}', "is JSON, but no index of shards"),
        ('{"weight_map": 3}', "is JSON, but no index of shards"),
        ("{broken", "is JSON, but no index of shards"),
        ('{"weight_map": {"a": "../a.bin"}}', "names shards outside its own folder"),
        ('{"weight_map": {}}', "names shards outside its own folder, or none"),
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=message):
        checkpoint.read(tmp_path / "a.json")


# Where the weights stand


@pytest.mark.parametrize(
    ("wrap", "key"),
    [
        (lambda s: {"state_dict": s, "epoch": 3}, "state_dict"),
        (lambda s: {"model": {"state_dict": s}, "lr": 0.1}, "model.state_dict"),
        (lambda s: {"a": {"b": [1, {"c": s}]}}, "a.b.1.c"),
        (lambda s: (s, {"state": {}, "param_groups": []}), "0"),
        (lambda s: {"step": torch.tensor(1.0), "net": s}, "net"),
        (lambda s: {"rng": {"cpu": torch.ones(4, dtype=torch.uint8)}, "gen": s}, "gen"),
    ],
)
@pytest.mark.parametrize("write", [save, old])
def test_weights_are_found_at_any_depth(tmp_path, state, wrap, key, write):
    read = checkpoint.read(write(wrap(state), tmp_path / "a"))
    assert (read.key, read.notes) == (key, ())
    assert same(read.tensors, state)


def test_the_optimisers_tensors_are_not_weights(tmp_path, net):
    optimiser = torch.optim.Adam(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    optimiser.step()
    saved = {"x": optimiser.state_dict(), "optim": {"m": torch.ones(2)}}
    with pytest.raises(UserError, match=r"no named tensors \(its top-level keys are 'x', 'optim'"):
        checkpoint.read(save(saved, tmp_path / "a"))
    read = checkpoint.read(save({**saved, "best": net.state_dict()}, tmp_path / "b"))
    assert (read.key, read.notes) == ("best", ())
    read = checkpoint.read(save({**net.state_dict(), "optimizer": saved["x"]}, tmp_path / "c"))
    assert read.key == ""
    assert read.notes == ("ignored 1 entries that are not weights: 'optimizer'",)


def test_the_state_of_an_optimiser_is_not_that_of_averaged_weights(tmp_path, net, state):
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    saved = {"model": state, "ema": state, "optimizer": adam.state_dict(), "epoch": 7}
    path = save(saved, tmp_path / "a")
    averaged = checkpoint.read(path).training
    assert averaged.optimiser is None
    assert "belongs to the weights that were trained, not to their average" in averaged.note
    own = checkpoint.read(path, weights_key="model").training
    assert own.optimiser.lr == 0.01
    assert averaged.counters == own.counters == {"epoch": 7}


def test_ema_weights_are_preferred_and_said(tmp_path, state):
    ema = {name: tensor + 1 for name, tensor in state.items()}
    path = save({"model": state, "other": state, "model_ema": ema}, tmp_path / "a")
    read = checkpoint.read(path)
    assert read.key == "model_ema"
    assert same(read.tensors, ema)
    assert read.notes == (
        "took the EMA weights 'model_ema'; the file also holds 'model', 'other' "
        "(choose with --weights-key)",
    )
    read = checkpoint.read(path, weights_key="model")
    assert (read.key, read.notes) == ("model", ())
    assert same(read.tensors, state)
    with pytest.raises(UserError, match=r"under 'mode' \(it has 'model', 'other', 'model_ema'\)"):
        checkpoint.read(path, weights_key="mode")


def test_one_of_several_networks_is_taken_with_a_note(tmp_path, state):
    read = checkpoint.read(save({"gen": state, "dis": state}, tmp_path / "a"))
    assert read.notes == (
        "took the weights 'gen'; the file also holds 'dis' (choose with --weights-key)",
    )


def test_entries_that_are_no_tensors_are_left_out_and_said(tmp_path, state):
    extra = {"fc._extra_state": torch.ones(1), "_metadata": {}, "version": 2, "names": ["a"]}
    read = checkpoint.read(save({**state, **extra}, tmp_path / "a"))
    assert same(read.tensors, state)
    assert read.notes == (
        "ignored 4 entries that are not weights: "
        "'fc._extra_state', '_metadata', 'version', 'names'",
    )


@pytest.mark.parametrize("saved", [torch.ones(3), [1, 2], {}, {"a": 1}, {"n": torch.tensor(1)}])
def test_a_file_without_named_tensors_is_refused(tmp_path, saved):
    with pytest.raises(UserError, match=r"a' holds no named tensors \(.*model.state_dict\(\)"):
        checkpoint.read(save(saved, tmp_path / "a"))


def test_a_dictionary_that_holds_itself_ends(tmp_path):
    saved = {"a": torch.ones(1), "b": torch.ones(1)}
    saved["self"] = saved
    with pytest.raises(UserError, match="holds no named tensors"):
        checkpoint.read(save(saved, tmp_path / "a"))


# Refused by name, with the way out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: copy or download it again"),
        (b"\x00garbage" * 99, r"is in no known format \(it begins with b'\\x00garbage'\): pass a"),
        (b"GGUF\x03\x00\x00\x00", "is a GGUF file: pass the safetensors"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), r"is an HDF5 file \(Keras or other\): load it with"),
        (b"\x08\x0a\x12\x07pytorch", "is an ONNX graph: pass the PyTorch checkpoint"),
        (b"\x1f\x8b\x08", "is compressed with gzip: unpack it"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html>", "is a web page .*: download it again"),
        (b"PK\x05\x06" + bytes(18), "is an empty zip archive"),
        (pickle.dumps({"a": 1}), "is a plain pickle, not made by torch.save: load it with"),
        (pickle.dumps({"a": 1}, protocol=0), "is in no known format"),
        (struct.pack("<Q", 900) + b'{"a":', "is a damaged or truncated safetensors file"),
        (b"PK\x03\x04" + bytes(99), "is a truncated or damaged zip archive"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path, content, message):
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(UserError, match=rf"checkpoint '.*weights.pt' {message}"):
        checkpoint.read(tmp_path / "weights.pt")
    with pytest.raises(UserError, match=message):
        checkpoint.read(tmp_path / "weights.pt", trust_pickle=True)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/data.pkl", "a/code/__torch__.py"), r"TorchScript archive: .*`torch.jit.load\(f\)"),
        (("a/models/model.json", "a/data/weights/w"), r"export archive: .*`torch.export.load\(f\)"),
        (("serialized_exported_program.json", "version"), "is a torch.export archive"),
        (("w.npy", "b.npy"), r"is a NumPy archive \(npz\)"),
        (("config.json", "model.weights.h5"), "is a Keras archive"),
        (("policy.pth", "data"), r"not one of torch.save \(it holds 'policy.pth', 'data'\)"),
    ],
)
def test_other_zip_archives_are_refused_by_name(tmp_path, names, message):
    with pytest.raises(UserError, match=message):
        checkpoint.read(zip_of(tmp_path / "a.pt", *names))


def test_what_torchscript_and_export_really_write_is_recognised(tmp_path, net):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script")
    with pytest.raises(UserError, match="is a TorchScript archive"):
        checkpoint.read(tmp_path / "script", trust_pickle=True)


@pytest.mark.slow
def test_what_export_really_writes_is_recognised(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
        torch.export.save(program, tmp_path / "a.pt2")
    with pytest.raises(UserError, match=r"is a torch.export archive"):
        checkpoint.read(tmp_path / "a.pt2")


def test_a_tar_archive_is_refused_by_name(tmp_path):
    with tarfile.open(tmp_path / "a.pt", "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(UserError, match="is a tar archive: unpack it"):
        checkpoint.read(tmp_path / "a.pt")


def test_numpy_archives_are_refused_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(2))
    with pytest.raises(UserError, match="is a NumPy archive"):
        checkpoint.read(tmp_path / "a.npz")


def test_a_distributed_checkpoint_is_refused_whole_and_in_part(tmp_path, state):
    distributed = pytest.importorskip("torch.distributed.checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        distributed.save({"model": state}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    for path in (tmp_path / "dcp", tmp_path / "dcp" / "__0_0.distcp"):
        with pytest.raises(UserError, match=r"distributed checkpoint: .*dcp_to_torch \S*dcp out"):
            checkpoint.read(path)
    with pytest.raises(UserError, match="is a plain pickle"):
        checkpoint.read(tmp_path / "dcp" / ".metadata")


@pytest.mark.parametrize("under", ["", "global_step9"])
def test_a_deepspeed_folder_is_refused_with_its_own_remedy(tmp_path, state, under):
    (tmp_path / under).mkdir(exist_ok=True)
    part = tmp_path / under / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    empty = {name: torch.empty(0) for name in state}
    save({"module": empty, "ds_version": "0.18"}, part)
    with pytest.raises(UserError, match=r"is a DeepSpeed checkpoint: .*zero_to_fp32.py"):
        checkpoint.read(tmp_path)
    with pytest.raises(UserError, match=r"part of a DeepSpeed .* without weights: .*zero_to_fp32"):
        checkpoint.read(part)
    save({"optimizer_state_dict": {"fp32": torch.ones(3)}, "ds_version": "0.18"}, part)
    with pytest.raises(UserError, match=r"holds no named tensors .*zero_to_fp32"):
        checkpoint.read(part)
    save({"module": state, "ds_version": "0.18"}, part)  # without ZeRO all weights are there
    assert same(checkpoint.read(part).tensors, state)


def test_a_folder_of_no_known_layout_names_its_checkpoints(tmp_path, state):
    with pytest.raises(UserError, match=r"folder without weights \(it holds nothing\): pass"):
        checkpoint.read(tmp_path)
    (tmp_path / "log.txt").write_text("x")
    with pytest.raises(UserError, match=r"folder without weights \(it holds 'log.txt'\): pass"):
        checkpoint.read(tmp_path)
    save(state, tmp_path / "b.pt")
    with pytest.raises(UserError, match=r"of no known layout: pass one of its files, 'b.pt'$"):
        checkpoint.read(tmp_path)
    (tmp_path / "saved_model.pb").write_text("x")
    with pytest.raises(UserError, match="is a TensorFlow SavedModel"):
        checkpoint.read(tmp_path)


def test_a_path_that_is_not_there_or_not_readable_is_refused(tmp_path, state, monkeypatch):
    with pytest.raises(UserError, match=r"'.*gone.pt' does not exist: check the path"):
        checkpoint.read(tmp_path / "gone.pt")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UserError, match="is neither a file nor a folder"):
            checkpoint.read(tmp_path / "pipe")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = save(state, tmp_path / "a.pt")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"a.pt' cannot be read \(Permission denied\): check"):
        checkpoint.read(path)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, state, monkeypatch):
    path = save(state, tmp_path / "a.pt")
    load = torch.load

    def slow(*args, **kwargs):
        loaded = load(*args, **kwargs)
        os.utime(path, ns=(1, 1))
        return loaded

    monkeypatch.setattr(torch, "load", slow)
    with pytest.raises(UserError, match="changed while it was read: read a copy of it"):
        checkpoint.read(path)


def maps(path):
    """Whether this process has mapped the file into its memory."""
    return str(path) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "zip.safetensors"])
def test_mapped_weights_are_the_file_until_they_are_settled_in_the_network(tmp_path, net, name):
    path, state = tmp_path / name, {n: t.clone() for n, t in net.state_dict().items()}
    state["fc.weight"] = state["fc.weight"].double() / 3  # the network would round them
    write = safetensors.torch.save_file if name == "a.safetensors" else save
    write(state, path)
    assert not maps(path)
    file = checkpoint.read(path, mapped=True)
    assert maps(path) == (name != "zip.safetensors")
    fitted, _ = fit(file.tensors, net)
    checkpoint.load(net, fitted)
    kept, own = checkpoint.settled(net, fitted), net.state_dict()
    checkpoint.unchanged(file)
    del file, fitted
    assert not maps(path)
    assert same(kept, state)
    shared = [n for n in kept if kept[n].data_ptr() == own[n].data_ptr()]
    assert shared == [n for n in kept if n != "fc.weight"]


def test_mapped_weights_are_checked_like_others(tmp_path, state):
    path = save(state, tmp_path / "a.pt")
    content = bytearray(path.read_bytes())
    content[content.index(state["fc.weight"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is damaged \(entry '.*' differs from its checksum\)"):
        checkpoint.read(path, mapped=True)


def test_a_file_that_was_written_before_its_weights_were_copied_is_refused(tmp_path, state):
    file = checkpoint.read(save(state, tmp_path / "a.pt"), mapped=True)
    checkpoint.unchanged(file)
    os.utime(file.path, ns=(1, 1))
    with pytest.raises(UserError, match="changed while it was read: read a copy of it"):
        checkpoint.unchanged(file)


def quantised():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (lambda: {"w": quantised()}, "holds a quantised tensor, 'w': save the dense"),
        (
            lambda: {
                "fc.scale": torch.ones(()),
                "fc._packed_params.dtype": torch.qint8,
                "fc._packed_params._packed_params": (quantised(), None),
            },
            "holds packed quantised weights, 'fc._packed_params._packed_params'",
        ),
        (lambda: {"w": torch.eye(2).to_sparse()}, "holds a sparse or nested tensor, 'w'"),
        (lambda: {"w": torch.ones(2, device="meta")}, r"without values \(device 'meta'\), 'w'"),
    ],
)
@pytest.mark.parametrize("write", [save, old])
def test_tensors_without_plain_values_are_refused_by_name(tmp_path, entries, message, write):
    with pytest.raises(UserError, match=message):
        checkpoint.read(write({"model": entries()}, tmp_path / "a"))


def test_tensors_spread_over_processes_are_refused_by_name(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise pickle.UnpicklingError("``torch.distributed.tensor`` must be imported for DTensors")

    path = save({"w": torch.ones(1)}, tmp_path / "a.pt")
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(UserError, match=r"spread over processes .*full_state_dict=True"):
        checkpoint.read(path)


# Pickles


@pytest.mark.parametrize(("bomb", "named"), [(Bomb, "getattr"), (ShellBomb, r"\w+\.system")])
@pytest.mark.parametrize("write", [save, old])
def test_a_pickle_bomb_is_named_and_never_runs(tmp_path, state, bomb, named, write):
    target = tmp_path / "ran"
    path = write({**state, "note": bomb(str(target))}, tmp_path / "a.pt")
    with pytest.raises(UserError, match=rf"that are not tensors \(.*{named}.*\).*--trust-pickle"):
        checkpoint.read(path)
    assert not target.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("trust", [False, True])
def test_a_bare_pickle_bomb_never_runs_even_if_trusted(tmp_path, protocol, trust):
    target = tmp_path / "ran"
    (tmp_path / "a.pt").write_bytes(pickle.dumps(ShellBomb(str(target)), protocol=protocol))
    with pytest.raises(UserError, match=r"plain pickle|no known format"):
        checkpoint.read(tmp_path / "a.pt", trust_pickle=trust)
    assert not target.exists()


@pytest.mark.parametrize("write", [save, old])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: {"model": n, "epoch": 1}])
def test_a_pickled_module_needs_trust(tmp_path, net, write, wrap):
    path = write(wrap(net), tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"not tensors \(.*test_checkpoint.Net.*state_dict\(\)"):
        checkpoint.read(path)
    assert same(checkpoint.read(path, trust_pickle=True).tensors, net.state_dict())


def test_a_class_that_cannot_be_imported_is_named(tmp_path, net, monkeypatch):
    path = save(net, tmp_path / "a.pt")
    monkeypatch.delitem(globals(), "Net")
    with pytest.raises(UserError, match=r"not be unpickled \(AttributeError.*imported \(.*Net"):
        checkpoint.read(path, trust_pickle=True)


def test_an_odd_pickle_protocol_needs_trust(tmp_path, state):
    path = save(state, tmp_path / "a.pt", pickle_protocol=4)
    with pytest.raises(UserError, match=r"is oddly pickled .*Unsupported operand.*--trust-pickle"):
        checkpoint.read(path)
    assert same(checkpoint.read(path, trust_pickle=True).tensors, state)


def test_a_lightning_file_is_read_and_its_foreign_classes_refused(tmp_path, net, state):
    lightning = {
        "epoch": 1,
        "pytorch-lightning_version": "2.5",
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "path": "x"}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
    }
    read = checkpoint.read(save(lightning, tmp_path / "a.ckpt"))
    assert (read.key, read.notes) == ("state_dict", ())
    tensors, notes = fit(read.tensors, net)
    assert same(tensors, state)
    assert notes == ("stripped prefix 'model.'",)
    lightning["hyper_parameters"] = {"cfg": Path("x")}
    with pytest.raises(UserError, match=r"objects that are not tensors \(pathlib"):
        checkpoint.read(save(lightning, tmp_path / "b.ckpt"))


# Damage


def damaged(path, state, content):
    """Whether it was refused; what is read in spite of damage has to be bit-identical."""
    path.write_bytes(content)
    try:
        read = checkpoint.read(path)
    except UserError:
        return True
    assert same(read.tensors, state)
    return False


def flip(content, bit):
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def test_bits_flipped_in_a_zip_are_refused_or_harmless(tmp_path, state):
    content = save(state, tmp_path / "a.pt").read_bytes()
    bits = random.Random(0).sample(range(8 * len(content)), 150)
    refused = sum(damaged(tmp_path / "b.pt", state, flip(content, bit)) for bit in bits)
    assert refused > 30  # the rest hit padding and unused fields of the zip


def test_every_bit_of_a_weight_in_a_zip_is_guarded(tmp_path, state):
    content = save(state, tmp_path / "a.pt").read_bytes()
    start = 8 * content.index(state["fc.weight"].numpy().tobytes())
    for bit in random.Random(0).sample(range(start, start + 8 * 24), 20):
        (tmp_path / "b.pt").write_bytes(flip(content, bit))
        with pytest.raises(UserError, match=r"is damaged \(entry 'a/data/0' differs from its ch"):
            checkpoint.read(tmp_path / "b.pt")


@pytest.mark.parametrize("write", [save, old, lambda s, p: safetensors.torch.save_file(s, p) or p])
def test_truncated_files_are_refused(tmp_path, state, write):
    content = write(state, tmp_path / "a.pt").read_bytes()
    for length in random.Random(0).sample(range(len(content)), 30):
        assert damaged(tmp_path / "b.pt", state, content[:length])


def test_truncation_is_called_so(tmp_path, state):
    for write in (save, old, lambda s, p: safetensors.torch.save_file(s, p) or p):
        content = write(state, tmp_path / "a.pt").read_bytes()
        (tmp_path / "b.pt").write_bytes(content[: len(content) - 9])
        with pytest.raises(UserError, match=r"b.pt' is .*truncated.*: copy or download it again"):
            checkpoint.read(tmp_path / "b.pt")


def test_bits_flipped_where_there_is_no_checksum_raise_nothing_but_user_errors(tmp_path, state):
    # the older form and safetensors: a flipped weight is a weight, and reads as one
    for write in (old, lambda s, p: safetensors.torch.save_file(s, p) or p):
        content = write(state, tmp_path / "a.pt").read_bytes()
        refused = 0
        for bit in random.Random(0).sample(range(8 * len(content)), 150):
            (tmp_path / "b.pt").write_bytes(flip(content, bit))
            try:
                checkpoint.read(tmp_path / "b.pt")
            except UserError:
                refused += 1
        assert refused > 20


def test_a_zip_saved_without_checksums_is_refused_with_the_reason(tmp_path, state):
    torch.serialization.set_crc32_options(False)
    try:
        save(state, tmp_path / "a.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(UserError, match=r"from its checksum.*set_crc32_options\(False\)"):
        checkpoint.read(tmp_path / "a.pt")


# Fitting


@pytest.mark.parametrize(
    "prefixes",
    [
        ("module.",),
        ("_orig_mod.",),
        ("module.", "model."),
        ("_forward_module.", "_orig_mod.", "net."),
        ("_orig_mod.", "_orig_mod."),
    ],
)
def test_stacked_prefixes_are_stripped_and_said(net, state, prefixes):
    tensors, notes = fit({"".join(prefixes) + name: t for name, t in state.items()}, net)
    assert same(tensors, state)
    assert sorted(notes) == sorted(f"stripped prefix '{prefix}'" for prefix in prefixes)


def test_a_prefix_stays_where_the_network_has_it_too(state):
    wrapped = nn.ModuleDict({"model": Net(), "module": Net()})
    saved = wrapped.state_dict()
    tensors, notes = fit(saved, wrapped)
    assert list(tensors) == list(saved)
    assert notes == ()
    tensors, notes = fit({f"module.{name}": t for name, t in saved.items()}, wrapped)
    assert same(tensors, saved)
    assert notes == ("stripped prefix 'module.'",)


def test_a_wrapped_network_takes_the_weights_of_the_plain_one(net, state):
    torch.manual_seed(1)
    compiled = torch.compile(Net(), backend="eager")
    for wrapped in (compiled, nn.DataParallel(compiled)):
        tensors, notes = fit(state, wrapped)
        assert all("is not in the file" in note for note in notes)
        checkpoint.load(wrapped, tensors)
    assert same(compiled._orig_mod.state_dict(), state)


def test_a_compiled_part_of_a_network_is_recognised(net, state):
    saved = {name.replace("fc.", "fc._orig_mod."): t for name, t in state.items()}
    assert same(fit(saved, net)[0], state)


def test_an_averaged_model_of_torch_loads(tmp_path, net, state):
    averaged = torch.optim.swa_utils.AveragedModel(net)
    path = save({"model": state, "ema": averaged.state_dict()}, tmp_path / "a")
    tensors, notes = fit(checkpoint.read(path).tensors, net)
    assert same(tensors, state)
    assert notes == ("stripped prefix 'module.'",)


def test_what_does_not_fit_is_listed_with_names_shapes_and_counts(net, state):
    state["fc.bias"] = torch.ones(4)
    state["encoder.norm.weight"] = state.pop("norm.weight")
    state["head"] = torch.ones(2, 2)
    with pytest.raises(UserError) as error:
        fit(state, net)
    assert str(error.value) == (
        "checkpoint 'a.pt' does not fit the network, 8 tensors in the file and 7 in the network: "
        "1 missing, 'norm.weight' (3,) (the file has 'encoder.norm.weight'); "
        "2 unexpected, 'encoder.norm.weight' (3,), 'head' (2, 2); "
        "1 of another shape, 'fc.bias' (4,) in the file and (3,) in the network. "
        "Build in the task the network that was saved, or allow names with --allow-missing REGEX "
        "and --allow-unexpected REGEX, which match whole names (never shapes)"
    )


def test_expressions_allow_names_in_full_and_never_shapes(net, state):
    del state["fc.bias"]
    state["head.weight"] = torch.ones(2)
    allow = {"allow_missing": r"fc\..*", "allow_unexpected": r"head\..*"}
    tensors, notes = fit(state, net, **allow)
    assert set(tensors) == set(net.state_dict()) - {"fc.bias"}
    assert notes == (
        "1 tensors not in the file keep the network's values: 'fc.bias'",
        "ignored 1 tensors of the file: 'head.weight'",
    )
    with pytest.raises(UserError, match=r"1 unexpected, 'head.weight'"):
        fit(state, net, allow_missing=".*", allow_unexpected="head")
    with pytest.raises(UserError, match=r"1 missing, 'fc.bias'"):
        fit(state, net, allow_missing="fc", allow_unexpected=".*")
    state["fc.weight"] = torch.ones(1)
    with pytest.raises(UserError, match=r"1 of another shape, 'fc.weight' \(1,\) in the file"):
        fit(state, net, allow_missing=".*", allow_unexpected=".*")
    with pytest.raises(UserError, match="has no tensor of the network"):
        fit({"x": torch.ones(1)}, net, allow_missing=".*", allow_unexpected=".*")
    with pytest.raises(UserError, match=r"--allow-missing '\(' is no regular expression"):
        fit(state, net, allow_missing="(")


def test_counts_of_batches_may_be_missing_and_non_persistent_buffers_are_not_expected(net, state):
    net.register_buffer("mask", torch.ones(2), persistent=False)
    del state["norm.num_batches_tracked"]
    tensors, notes = fit(state, net)
    assert same(tensors, state)
    assert notes == ()


def test_tied_names_may_be_left_out_and_have_to_agree():
    net = Tied()
    weight = torch.randn(4, 2)
    for name in ("embedding.weight", "head.weight"):
        tensors, notes = fit({name: weight}, net)
        assert set(tensors) == {"embedding.weight", "head.weight"}
        assert notes == ()
        checkpoint.load(net, tensors)
        assert torch.equal(net.head.weight, weight)
        assert net.head.weight is net.embedding.weight
    fit({"embedding.weight": weight, "head.weight": weight.clone()}, net)
    with pytest.raises(UserError, match=r"different values for 'embedding.weight' and 'head.weig"):
        fit({"embedding.weight": weight, "head.weight": weight + 1}, net)
    half = torch.tensor([1.0, torch.nan]).expand(4, 2)
    with pytest.raises(UserError, match=r"4 of 8 in 'embedding.weight' and 8 in all"):
        fit({"embedding.weight": half, "head.weight": half.clone()}, net)
    with pytest.raises(UserError, match=r"2 missing, 'embedding.weight'"):
        fit({"x": weight}, net)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_weights_are_refused_and_counted(net, state, value):
    state["norm.running_var"][0] = value  # a buffer may be a mask of -inf
    fit(state, net)
    state["fc.weight"][1, 1] = value
    state["norm.bias"][:2] = value
    with pytest.raises(UserError, match=r"1 of 6 in 'fc.weight' and 3 in all.*diverged"):
        fit(state, net)


def test_a_float8_weight_is_checked_and_loads():
    net = nn.Linear(2, 2, bias=False)
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    checkpoint.load(net, fit({"weight": weight.to(torch.float8_e4m3fn)}, net)[0])
    assert torch.equal(net.weight, weight)
    with pytest.raises(UserError, match="NaN or infinite"):
        fit({"weight": (weight * torch.nan).to(torch.float8_e4m3fn)}, net)


def test_whole_numbers_for_weights_are_refused(net, state):
    state["fc.weight"] = torch.ones(3, 2, dtype=torch.int8)
    with pytest.raises(UserError, match=r"torch.int8 numbers in 'fc.weight'.*quantised"):
        fit(state, net)


@pytest.mark.parametrize("net", [nn.LazyLinear(2), nn.Linear(2, 2, device="meta")])
def test_a_network_without_values_is_refused(net):
    with pytest.raises(UserError, match=r"'weight' of the network has no values yet .*on a batch"):
        fit({"weight": torch.ones(2, 2)}, net)


def test_what_hooks_make_of_the_state_dict_is_not_loaded_in_silence(net, state):
    def double(module, saved, prefix, metadata):
        saved["fc.bias"] = saved["fc.bias"] * 2

    def drop(module, saved, prefix, metadata):
        del saved["fc.bias"]

    hook = net.register_state_dict_post_hook(double)
    with pytest.raises(UserError, match=r"'fc.bias' in the network's state_dict\(\) is made by a"):
        fit(state, net)
    hook.remove()
    net.register_state_dict_post_hook(drop)
    del state["fc.bias"]
    assert fit(state, net)[1] == (
        "1 weights that the network's state_dict() leaves out keep its values: 'fc.bias'",
    )


# Loading and digests


def test_loading_copies_in_the_networks_dtypes_and_keeps_its_tensors(net, state):
    torch.manual_seed(1)
    double = Net().double()
    before = {name: (id(t), t.dtype) for name, t in double.state_dict(keep_vars=True).items()}
    digest = checkpoint.digest(state)
    checkpoint.load(double, fit(state, double)[0])
    after = double.state_dict(keep_vars=True)
    assert {name: (id(t), t.dtype) for name, t in after.items()} == before
    assert all(torch.equal(after[name], state[name].to(after[name].dtype)) for name in state)
    assert checkpoint.digest(state) == digest
    with pytest.raises(ValueError, match=r"no tensor 'fc.bias' of shape \(1,\)"):
        checkpoint.load(double, {"fc.bias": torch.ones(1)})
    with pytest.raises(ValueError, match=r"no tensor 'x' of shape \(\)"):
        checkpoint.load(double, {"x": torch.ones(())})


def test_matching_changes_neither_network_nor_tensors(net, state):
    before = checkpoint.digest(net.state_dict()), checkpoint.digest(state)
    fit({f"module.{name}": tensor for name, tensor in state.items()}, net)
    assert (checkpoint.digest(net.state_dict()), checkpoint.digest(state)) == before


def test_a_digest_is_of_values_and_not_of_layout_or_order():
    tensor = torch.arange(6.0).reshape(2, 3)
    complex_ = torch.tensor([1 + 2j])
    state = {"a": tensor, "b": complex_.conj()}
    other = {"b": torch.tensor([1 - 2j]), "a": tensor.t().contiguous().t()}
    assert same(state, other)
    # by hand: name, dtype and shape as JSON, then the bytes
    text = b'["x", "torch.bfloat16", []]' + b"\x80\x3f"
    assert checkpoint.digest({"x": torch.ones((), dtype=torch.bfloat16)}) == (
        hashlib.sha256(text).hexdigest()
    )


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.zeros(2)},
        {"a": torch.zeros(2, 1)},
        {"a": torch.zeros(2, dtype=torch.int32)},
        {"a": torch.tensor([0.0, 1.0])},
        {"a": torch.zeros(2), "b": torch.zeros(0)},
        {},
    ],
)
def test_a_digest_tells_names_shapes_dtypes_and_values_apart(other):
    assert not same({"a": torch.zeros(2)}, other)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(max_size=8), st.lists(st.integers(0, 3), max_size=3), min_size=1),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float64, torch.float16]),
)
def test_any_names_and_shapes_survive_both_formats(tmp_path_factory, shapes, dtype):
    shapes = {n: s for n, s in shapes.items() if n.rpartition(".")[2][:1] != "_"} or {"a": []}
    state = {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}
    path = tmp_path_factory.mktemp("any") / "a"
    assert same(checkpoint.read(save(state, path)).tensors, state)
    safetensors.torch.save_file(state, path)
    assert same(checkpoint.read(path).tensors, state)
