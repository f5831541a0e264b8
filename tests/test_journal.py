"""The journal against cuts at every byte, flipped bits, full disks, and a second writer."""

import errno
import json
import math
import os
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import journal as module
from landscape.errors import UserError
from landscape.journal import Journal, differences

CONFIG = {"seed": 1, "grid": [5, 5]}
RECORDS: list[dict[str, Any]] = [
    {"alpha": 0.1, "loss": 1 / 3},
    {"alpha": -0.0, "loss": math.inf},
    {"alpha": 5e-324, "loss": 1.7976931348623157e308},
    {"name": "a\nb\0é\ud800", "loss": None},
    {},
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "a.h5"


def fill(output: Path, records: list[dict[str, Any]] = RECORDS, **circumstances: Any) -> Path:
    with Journal(output, CONFIG, circumstances) as journal:
        for record in records:
            journal.append(record)
    return journal.path


def read(output: Path) -> list[dict[str, Any]]:
    with Journal(output, CONFIG, {}) as journal:
        return journal.records


def test_the_next_run_finds_what_the_first_one_left(output: Path) -> None:
    path = fill(output)
    assert path == output.with_name("a.h5.journal")
    with Journal(output, CONFIG, {}) as journal:
        assert repr(journal.records) == repr(RECORDS)
        assert journal.changed == {}
        journal.append({"loss": 2.0})
        assert len(journal.records) == len(RECORDS)
    assert read(output) == [*RECORDS, {"loss": 2.0}]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4))
def test_records_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    output = tmp_path_factory.mktemp("journal") / "a.h5"
    fill(output, records)
    assert repr(read(output)) == repr(records)


def test_the_file_reads_in_a_pager(output: Path) -> None:
    lines = fill(output, device="cpu").read_text("ascii").splitlines()
    assert json.loads(lines[0][9:]) == {
        "format": 1,
        "config": CONFIG,
        "circumstances": {"device": "cpu"},
        "pid": os.getpid(),
    }
    assert lines[1].endswith(' [{"alpha": 0.1, "loss": 0.3333333333333333}]')


def test_each_record_is_one_write(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write
    with Journal(output, CONFIG, {}) as journal:
        monkeypatch.setattr(os, "write", lambda fd, data: written.append(data) or write(fd, data))
        journal.append({"loss": 1.0})
        monkeypatch.undo()
    assert len(written) == 1
    assert written[0].endswith(b"\n")


# Damage


def test_a_cut_at_any_byte_keeps_every_whole_record_and_the_run_goes_on(output: Path) -> None:
    path = fill(output)
    data = path.read_bytes()
    header = data.index(b"\n") + 1
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        if 0 < cut < header:
            with pytest.raises(UserError, match="is not a journal of landscape, or its first line"):
                read(output)
            continue
        whole = RECORDS[: max(data[:cut].count(b"\n") - 1, 0)]
        with Journal(output, CONFIG, {}) as journal:
            assert repr(journal.records) == repr(whole)
            journal.append({"more": cut})
        assert repr(read(output)) == repr([*whole, {"more": cut}])


def test_a_flipped_bit_ends_the_records_and_never_changes_one(output: Path) -> None:
    path = fill(output)
    data = path.read_bytes()
    header = data.index(b"\n") + 1
    chance = random.Random(0)
    for _ in range(2000):
        place = chance.randrange(len(data))
        flipped = bytearray(data)
        flipped[place] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        if place < header:
            with pytest.raises(UserError, match="is not a journal of landscape, or its first line"):
                read(output)
            continue
        whole = RECORDS[: data[:place].count(b"\n") - 1]
        assert repr(read(output)) == repr(whole)


def test_a_line_that_is_lost_or_moved_ends_the_records(output: Path) -> None:
    path = fill(output)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert read(output) == RECORDS[:1]
    path.write_bytes(b"".join([*lines[:2], lines[3], lines[2]]))
    assert read(output) == RECORDS[:1]


def test_a_file_of_somebody_else_is_refused_and_left_alone(output: Path) -> None:
    path = output.with_name("a.h5.journal")
    path.write_text("dear diary\n")
    with pytest.raises(UserError, match="delete it, pass --overwrite, or choose another -o"):
        Journal(output, CONFIG, {})
    assert path.read_text() == "dear diary\n"
    with Journal(output, CONFIG, {}, overwrite=True) as journal:
        assert journal.records == []
    assert read(output) == []


def test_a_newer_format_asks_for_an_upgrade(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FORMAT", 2)
    fill(output)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has journal format 2 and this version reads up to 1"):
        read(output)


def limited(size: int, journal: Journal, record: dict[str, Any]) -> None:
    """Append on a disk on which the file may have `size` bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        journal.append(record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("room", [0, 1, 20])
def test_a_full_disk_is_told_and_harms_no_record(output: Path, room: int) -> None:
    with Journal(output, CONFIG, {}) as journal:
        journal.append({"loss": 1.0})
        size = journal.path.stat().st_size
        with pytest.raises(UserError, match=r"journal' \(.*\): free some space and run the same"):
            limited(size + room, journal, {"loss": 2.0})
        assert journal.path.stat().st_size == size
        journal.append({"loss": 3.0})
    assert read(output) == [{"loss": 1.0}, {"loss": 3.0}]


def test_a_torn_line_that_cannot_be_cut_off_closes_the_journal(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Journal(output, CONFIG, {}) as journal:
        journal.append({"loss": 1.0})
        monkeypatch.setattr(os, "ftruncate", refuse)
        with pytest.raises(UserError, match="free some space"):
            limited(journal.path.stat().st_size + 20, journal, {"loss": 2.0})
        monkeypatch.undo()
        with pytest.raises(ValueError, match=r"a\.h5\.journal' is closed"):
            journal.append({"loss": 3.0})
    assert read(output) == [{"loss": 1.0}]


def test_an_interrupt_during_a_write_leaves_the_journal_usable(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def interrupted(fd: int, data: bytes) -> int:
        write(fd, data)
        raise KeyboardInterrupt

    with Journal(output, CONFIG, {}) as journal:
        monkeypatch.setattr(os, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append({"loss": 1.0})
        monkeypatch.undo()
        journal.append({"loss": 2.0})
    assert read(output) == [{"loss": 2.0}]


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"\(Not a directory\): choose another -o"):
        Journal(tmp_path / "file" / "a.h5", CONFIG, {})
    with pytest.raises(UserError, match="create its folder first, or choose another -o"):
        Journal(tmp_path / "absent" / "a.h5", CONFIG, {})


def test_a_read_only_folder_is_an_error_of_the_user(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, flags: int, mode: int) -> int:  # root may write everywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"\(Permission denied\): choose another -o"):
        Journal(output, CONFIG, {})


# Another run


def test_another_configuration_lists_what_differs(output: Path) -> None:
    path = fill(output)
    before = path.read_bytes()
    with pytest.raises(
        UserError,
        match=r"journal' belongs to a run with another configuration \(seed: 1 -> 2; "
        r"rho: null -> 0.5\): pass --overwrite to start anew, or choose another -o",
    ):
        Journal(output, {**CONFIG, "seed": 2, "rho": 0.5}, {})
    assert path.read_bytes() == before
    with Journal(output, {**CONFIG, "seed": 2}, {}, overwrite=True) as journal:
        assert journal.records == []


def test_configurations_are_compared_as_json() -> None:
    assert differences({"a": (1, 2), "b": math.nan}, {"b": math.nan, "a": [1, 2]}) == {}
    assert differences({"a": {"x": 1}}, {"a": {"x": 1.5}}) == {"a": ({"x": 1}, {"x": 1.5})}
    assert differences({"a": 1}, {"a": True}) == {"a": (1, True)}


def test_circumstances_that_made_a_record_and_differ_now_are_told(output: Path) -> None:
    fill(output, RECORDS[:1], device="cpu", torch="2.10")
    fill(output, [], device="mps", torch="2.10")  # made nothing
    with Journal(output, CONFIG, {"device": "cuda", "torch": "2.10"}) as journal:
        assert journal.changed == {"device": ("cpu", "cuda")}
        journal.append({})
    with Journal(output, CONFIG, {"device": "cuda", "torch": "2.11"}) as journal:
        assert journal.changed == {"device": ("cpu", "cuda"), "torch": ("2.10", "2.11")}


# The lock

HOLD = """
import sys
from pathlib import Path
from landscape.journal import Journal
with Journal(Path(sys.argv[1]), {"seed": 1, "grid": [5, 5]}, {}) as journal:
    journal.append({"loss": 1.0})
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_with_the_pid_of_the_first(output: Path) -> None:
    fill(output, [])  # by this process: the pid of the latest run counts
    command = [sys.executable, "-c", HOLD, str(output)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for overwrite in (False, True):
            with pytest.raises(
                UserError, match=rf"is being written by process {process.pid}: wait for it, stop it"
            ):
                Journal(output, CONFIG, {}, overwrite=overwrite)
        process.kill()
    assert read(output) == [{"loss": 1.0}]


def test_a_writer_that_has_not_said_its_pid_holds_the_lock_too(output: Path) -> None:
    with Journal(output, CONFIG, {}) as journal:
        os.truncate(journal.path, 0)
        with pytest.raises(UserError, match="is being written by another process"):
            Journal(output, CONFIG, {})


def test_a_refused_journal_lets_go_of_its_lock(output: Path) -> None:
    fill(output)
    with pytest.raises(UserError, match="another configuration"):
        Journal(output, {}, {})
    assert read(output) == RECORDS


def test_a_forked_worker_that_lives_on_does_not_keep_the_lock(output: Path) -> None:
    with Journal(output, CONFIG, {}) as journal:
        copy = os.dup(journal._fd)  # what a fork leaves in its child
    try:
        assert read(output) == []
    finally:
        os.close(copy)


def test_the_lock_is_not_fooled_by_a_file_removed_before_it(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, attempts = module._lock, []

    def removed_first(fd: int, path: Path) -> None:
        attempts.append(fd)
        if len(attempts) == 1:
            path.unlink()
        if len(attempts) == 2:
            path.unlink()
            path.touch()  # another process has begun a new one
        lock(fd, path)

    monkeypatch.setattr(module, "_lock", removed_first)
    with Journal(output, CONFIG, {}) as journal:
        journal.append({"loss": 1.0})
    assert len(attempts) == 3
    assert read(output) == [{"loss": 1.0}]


def test_a_file_system_without_locks_still_has_journals(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module.fcntl, "flock", unsupported)
    fill(output)
    monkeypatch.undo()
    assert read(output) == RECORDS


def test_a_system_without_locks_still_has_journals(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "fcntl", None)
    fill(output)
    assert read(output) == RECORDS
    Journal(output, CONFIG, {}).remove()
    assert not output.with_name("a.h5.journal").exists()


def test_a_complete_run_removes_its_journal(output: Path) -> None:
    with Journal(output, CONFIG, {}) as journal:
        journal.append({"loss": 1.0})
        journal.remove()
        assert not journal.path.exists()
    journal.close()
    assert read(output) == []
