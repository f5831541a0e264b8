"""How processes find each other, and what is told of a run that ended badly."""

import pytest
import torch

from landscape import process_group
from landscape.cli import ends
from landscape.cli.ends import DONE, ERROR, LOST, STOPPED, USAGE, End
from landscape.errors import UserError

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
WHOLE = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def refused(monkeypatch, device, **changed):
    """What `start` says of an environment."""
    for name, value in {**WHOLE, **changed}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as error:
        process_group.start(device)
    return str(error.value)


@pytest.mark.parametrize("missing", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_world_size_without_a_place_to_meet_is_refused(monkeypatch, missing):
    said = refused(monkeypatch, CPU, **{missing: None})
    assert said.startswith(f"WORLD_SIZE is 2 and {missing} not set: start the command with torchru")


def test_what_is_no_number_is_refused(monkeypatch):
    assert "WORLD_SIZE=many, which is no number" in refused(monkeypatch, CPU, WORLD_SIZE="many")
    assert "RANK is 2 and WORLD_SIZE 2" in refused(monkeypatch, CPU, RANK="2")


@pytest.mark.skipif(torch.distributed.is_nccl_available(), reason="this build has NCCL")
def test_cuda_without_nccl_is_refused(monkeypatch):
    assert "has no NCCL" in refused(monkeypatch, CUDA)


def test_a_device_that_cannot_sum_is_refused(monkeypatch):
    assert "cannot sum on --device mps" in refused(monkeypatch, torch.device("mps"))


def test_nobody_at_the_address_is_an_error(monkeypatch):
    monkeypatch.setattr(process_group, "TIMEOUT", process_group.timedelta(seconds=1))
    said = refused(monkeypatch, CPU, RANK="1")
    assert said.startswith("the 2 processes do not find each other at 127.0.0.1:1: ")


def test_each_rank_has_a_cuda_device_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert process_group.own_cuda(4) == "cuda:3"
    with pytest.raises(UserError, match="4 processes on a machine with 2 CUDA devices: start 2"):
        process_group.own_cuda(2)


def test_alone_there_is_no_group_to_join_or_to_leave(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    process_group.start(CPU)
    assert process_group.leave_word("nothing") == {}
    process_group.finish()


def test_the_cause_is_told_and_not_what_followed_from_it():
    lost, stopped = End(LOST, 1, "lost"), End(STOPPED, 143, "terminated")
    own, usage = End(ERROR, 1, "no disk"), End(USAGE, 2, "no such thing", "--which")

    def told(*given, silent="", stopped=False):
        return ends.of_run(dict(enumerate(given)), silent, stopped=stopped)

    assert told(lost, own).text == "rank 1: no disk"
    assert told(own, own).text == "no disk"
    assert told(stopped, own, silent="rank 2 was killed") == End(ERROR, 1, "rank 1: no disk")
    assert told(usage, usage) == usage
    assert told(stopped, stopped) == stopped
    assert told(stopped, lost, silent="rank 1 was killed").text.startswith("rank 1 was killed; the")
    assert told(stopped, lost, silent="rank 1 was killed", stopped=True) == stopped
    assert told(lost, lost) == lost


def test_an_end_is_read_as_it_was_written():
    for end in (End(DONE, 3), End(USAGE, 2, 'of "x"', "--which")):
        assert ends.read(str(end)) == end
