"""A local MLflow store of the test's own."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import track_in

from pipeline.tracking import runs

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a store without runs; making it takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        track_in(folder, patch)
        runs.connect.cache_clear()
        runs.connect()
        runs.connect.cache_clear()
    return folder / "mlflow.db"


@pytest.fixture
def store(empty_store: Path, project: Path) -> Iterator[Path]:
    """The file of a store in the test's project folder, that nothing has connected to yet."""
    runs.connect.cache_clear()
    yield Path(shutil.copy(empty_store, project))
    runs.connect.cache_clear()


@pytest.fixture
def client(store: Path) -> "MlflowClient":
    """A client of the test's store."""
    return runs.connect()
