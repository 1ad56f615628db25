"""Outputs appear whole or not at all, and inputs that are not what belongs there are named."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

from pipeline.project.atomic import atomic_write, read_json, read_table, write_json, write_table
from pipeline.project.errors import DataError, PipelineError, UsageError
from pipeline.project.run_command import run_command


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    write_json(file, {"accuracy": 0.9})
    with pytest.raises(RuntimeError), atomic_write(file) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert read_json(file) == {"accuracy": 0.9}
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    for name in ("old", "new"):
        with atomic_write(folder) as aside:
            aside.mkdir()
            (aside / name).touch()
    assert [file.name for file in folder.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_there_at_every_moment_of_its_replacement(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    for name in ("old", "new"):
        with atomic_write(folder) as aside:
            aside.mkdir()
            (aside / name).touch()
    program = f"""
import os, sys
from pathlib import Path
from pipeline.project.atomic import atomic_write
folder, seen = Path({str(folder)!r}), []
def look(event, arguments):
    if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "ctypes.call_function"):
        seen.append([file.name for file in folder.iterdir()] if folder.exists() else None)
sys.addaudithook(look)
with atomic_write(folder) as aside:
    aside.mkdir()
    (aside / "newest").touch()
assert seen and all(found in (["new"], ["newest"]) for found in seen), seen
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in folder.iterdir()] == ["newest"]


@pytest.mark.parametrize("killed_after", [1, 2, 3])
def test_where_folders_cannot_be_exchanged_a_kill_loses_neither(tmp_path: Path, killed_after: int) -> None:
    folder = tmp_path / "train"
    with atomic_write(folder) as aside:
        aside.mkdir()
        (aside / "old").touch()
    program = f"""
import os, signal
from pathlib import Path
from pipeline.project import atomic
atomic._RENAME_EXCHANGE = 1 << 20  # a flag that no file system has
renames = 0
def replace(self, target, replace=Path.replace):
    global renames
    replace(self, target)
    renames += 1
    if renames == {killed_after}:
        os.kill(os.getpid(), signal.SIGKILL)
Path.replace = replace
with atomic.atomic_write(Path({str(folder)!r})) as aside:
    aside.mkdir()
    (aside / "new").touch()
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True)
    found = {file.name: [inside.name for inside in file.iterdir()] for file in tmp_path.iterdir()}
    assert ["old"] in found.values() and ["new"] in found.values()
    if killed_after > 1:
        assert found["train"] == ["new"]
    with pytest.raises(RuntimeError), atomic_write(folder):
        raise RuntimeError
    assert [file.name for file in folder.iterdir()] == ["old" if killed_after == 1 else "new"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_number_that_json_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "metrics.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"id,text,label\n1,a,0\n"])
def test_a_missing_truncated_or_foreign_table_is_named_with_the_remedy(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "train.parquet"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"train\.parquet .*dvc repro"):
        read_table(file, ("id", "text"))


def test_a_table_without_the_column_is_named(tmp_path: Path) -> None:
    file = tmp_path / "train.parquet"
    write_table(file, pd.DataFrame({"id": ["train/0"]}))
    with pytest.raises(DataError, match="columns id, text"):
        read_table(file, ("id", "text"))


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"a": 1})[:-1])
    with pytest.raises(DataError, match=r"run\.json is not the JSON file"):
        read_json(file)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PipelineError("it failed"), 1),
        (UsageError("wrong option"), 2),
        (DataError("bad row"), 3),
    ],
)
def test_an_error_ends_a_command_with_one_sentence_and_its_code(error, code, capsys) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as stopped:
        run_command(command)
    assert stopped.value.code == code
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and printed.count("\n") == 1


FULL_DISK = """
import resource, sys
import numpy as np, pandas as pd
from pathlib import Path
from pipeline.project.atomic import write_table
from pipeline.project.run_command import run_command
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
table = pd.DataFrame({"noise": np.random.default_rng(0).random(200_000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
run_command(lambda: write_table(Path("noise.parquet"), table))
"""


def test_a_full_disk_ends_in_one_sentence_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: the same write fails part of the way."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: noise.parquet could not be written") and "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
