"""The files of a registered model, wherever they lie: MLflow's folder, a copy of it, or one that was pulled."""

import hashlib
from pathlib import Path

TAG = "files_sha256"
"""The tag of a version with the digest of its files."""
_LEFT_BY_LOADING = {"__pycache__", "registered_model_meta"}
"""Names beside a model's files that are none of them."""


def digest(folder: Path) -> str:
    """Returns the SHA-256 over the names and contents of a model's files, which the version's tag TAG holds."""
    found = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder)
        if file.is_file() and not set(name.parts) & _LEFT_BY_LOADING:
            found.update(f"{name.as_posix()}\t{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()
