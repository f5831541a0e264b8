"""Fixtures of all tests. Threads must not spin while others use the cores."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch

# As many processes as cores run tests at once, each of them on one.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


def _devices() -> list[str]:
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    present["mps"] = torch.backends.mps.is_available()
    return [name for name, there in present.items() if there]


@pytest.fixture(params=_devices())
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each kind of device that this machine has."""
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
