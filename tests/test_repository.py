"""No tracked file names a package index or one machine's folders, and lock files are pinned by hash."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-gpu.lock"])
def test_a_lock_file_pins_every_package_by_hash_and_names_no_index(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text and "index" not in text.replace("pyproject-index", "")
    packages = re.split(r"\n(?=\S)", text.strip())
    assert len(packages) > 100
    for package in packages:
        assert re.match(r"[A-Za-z0-9_.\[\]-]+==\S+", package) and "--hash=sha256:" in package, package[:80]


def test_no_tracked_file_is_large_or_holds_a_path_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        file = ROOT / name
        if not file.is_file():
            continue
        assert file.stat().st_size < 4_000_000, name
        if file.suffix not in (".png", ".parquet", ".gz"):
            assert not re.search(r"(^|[ \"'=(:])/(work|root|home)/[a-z.]", file.read_text()), name
