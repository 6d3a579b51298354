"""One engine of each kind for all tests: starting workers takes seconds."""

import importlib.util
from collections.abc import Iterator

import pytest

from federated.engines import Engine, create_engine
from federated.local_training import LocalTraining


@pytest.fixture(scope="session")
def training() -> LocalTraining:
    """Clips some of the tiny devices' updates and not others."""
    return LocalTraining(learning_rate=0.5, clip_norm=0.4)


@pytest.fixture(scope="session")
def tff_engine(training) -> Iterator[Engine]:
    engine = create_engine("tff", training)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def ray_engine(training) -> Iterator[Engine]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: run ./scripts/setup fleet")
    engine = create_engine("ray", training)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def local_engine(training) -> Iterator[Engine]:
    engine = create_engine("local", training)
    yield engine
    engine.close()
