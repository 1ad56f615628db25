"""`sentiment` starts at once and says what is missing."""

import socket
import subprocess
import sys
from pathlib import Path

HEAVY = {"tensorflow", "keras", "mlflow", "great_expectations", "pandas", "sklearn", "matplotlib", "dvc"}
HELP = f"""
import sys
from pipeline.cli import app
try:
    app(["--help"])
finally:
    print("loaded:", *sorted({HEAVY!r} & set(sys.modules)))
"""


def sentiment(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)


def test_help_loads_no_heavy_library() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=60)
    assert "summary" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"


def test_a_summary_without_reports_says_how_to_make_them(project: Path) -> None:
    done = sentiment(project, "summary")
    assert done.returncode == 3
    assert done.stderr == "error: reports/test/single-labels.json does not exist; run `dvc repro` to make it\n"


def test_the_ui_on_a_port_in_use_prints_no_address(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = sentiment(project, "ui", "--port", str(other.getsockname()[1]))
    assert done.returncode == 1 and not done.stdout
    assert "cannot be listened on: Address already in use; name another --port" in done.stderr
    assert not (project / "mlflow.db").exists()


def test_the_ui_outside_a_project_makes_no_store(tmp_path: Path) -> None:
    done = sentiment(tmp_path, "ui")
    assert done.returncode == 2 and "run the command from the project's root" in done.stderr
    assert not list(tmp_path.iterdir())
