"""A local store whose project was moved or copied: MLflow keeps where files are as absolute paths (its issue #3144).

After `mv` they lead nowhere; after `cp -a` they lead into the original, where a run of the copy would write its files
and retention delete them. So whatever lies in another `mlartifacts` than the one beside the store is entered anew.
"""

import atexit
import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pipeline.project.atomic import atomic_write

ARTIFACTS = "mlartifacts"
"""The folder beside a SQLite store that has its files."""
_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def misplaced(file: Path) -> dict[str, Path]:
    """Returns the locations in the store `file` that are in another `mlartifacts` than its own, and where they would be
    in its own. Locations on a server, or that somebody chose, are none."""
    own = file.parent.resolve() / ARTIFACTS
    with closing(sqlite3.connect(file)) as database:
        return {location: own / rest for location in _locations(database) if (rest := _rest(location, own)) is not None}


def place(location: str, file: Path) -> Path | None:
    """Returns where the files at a `location` of the store `file` are now, as `readable_copy` has it; None where they
    are on a server."""
    if urlsplit(location).scheme not in ("", "file"):
        return None
    own = file.parent.resolve() / ARTIFACTS
    rest = _rest(location, own)
    return _path(location) if rest is None or _is_elsewhere(location, own / rest) else own / rest


def _locations(database: sqlite3.Connection) -> Iterator[str]:
    for table, column in _COLUMNS:
        found = database.execute(f"select distinct {column} from {table} where {column} like ?", [f"%/{ARTIFACTS}%"])
        yield from (location for (location,) in found)


def _rest(location: str, own: Path) -> Path | None:
    """Returns the path below `mlartifacts` of a location that is not in `own`; None where it is, or is no file's."""
    path = _path(location)
    if not path.is_absolute() or path.is_relative_to(own) or ARTIFACTS not in path.parts:
        return None
    return Path(*path.parts[len(path.parts) - path.parts[::-1].index(ARTIFACTS) :])


def _path(location: str) -> Path:
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme == "file" else Path(location)


def relocate(file: Path) -> int:
    """Enters the own place of all that `misplaced` found, and copies there what is still at the other place alone, as
    where the database was copied without its files. The other place stays as it is.

    Returns:
        How many locations were entered anew.
    """
    moved = misplaced(file)
    own = file.parent.resolve() / ARTIFACTS
    for location, place in moved.items():
        if place != own and _is_elsewhere(location, place):
            with atomic_write(place) as aside:
                shutil.copytree(_path(location), aside)
    with closing(sqlite3.connect(file)) as database, database:
        _enter(database, moved, moved)
    return len(moved)


def _is_elsewhere(location: str, place: Path) -> bool:
    return not place.exists() and _path(location).is_dir()


def _enter(database: sqlite3.Connection, moved: dict[str, Path], chosen: Collection[str]) -> None:
    for table, column in _COLUMNS:
        for location in chosen:
            entered = moved[location].as_uri() if location.startswith("file:") else str(moved[location])
            database.execute(f"update {table} set {column} = ? where {column} = ?", [entered, location])


def readable_copy(file: Path) -> Path:
    """Returns a copy of the store `file` in which locations lead to the files where they are now, for this process."""
    return _copy(file, file.stat().st_mtime_ns)


@cache
def _copy(file: Path, _: int) -> Path:
    moved = misplaced(file)
    folder = Path(tempfile.mkdtemp(prefix="mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / file.name
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        with target:
            _enter(target, moved, [location for location, place in moved.items() if not _is_elsewhere(location, place)])
    return copy
