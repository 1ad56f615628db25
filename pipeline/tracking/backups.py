"""Backups of a local store: copies of its SQLite file that SQLite makes itself, in a folder beside it, numbered.

A store on a server is backed up where its database runs.
"""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from shutil import copyfile

from pipeline.project import provenance
from pipeline.project.atomic import atomic_write
from pipeline.project.errors import PipelineError, UsageError
from pipeline.tracking import availability, runs

KEPT = 7
_REPLACED = "replaced-"
_LOCK_WAIT_S = 10
_JOURNALS = ("-journal", "-wal", "-shm")
"""What SQLite keeps beside a file that is, or was, in use, and applies to whatever has its name then."""
_CONTENT = (
    "select * from registered_models order by name",
    "select * from registered_model_tags order by name, key",
    "select * from registered_model_aliases order by name, alias",
    "select * from model_versions order by name, version",
    "select * from model_version_tags order by name, version, key",
    "select run_uuid, status, lifecycle_stage from runs join tags using (run_uuid) "
    f"where key = '{runs.KIND}' and value = '{runs.TRAINING}' order by run_uuid",
)
"""What a change of the store is: an idle run's own record is none, or such would push the others out within hours."""


def folder(store: Path) -> Path:
    """Returns where the backups of the SQLite file `store` lie."""
    return store.with_name(f"{store.name}.backups")


def backups(store: Path) -> list[Path]:
    """Returns the backups of the SQLite file `store`, the oldest first."""
    return sorted(file for file in folder(store).glob("*.db") if file.stem.isdecimal())


def back_up() -> Path | None:
    """Backs up a local store, and drops all but the KEPT newest backups. Where neither its registry nor its trainings
    changed since the newest one, this is made anew.

    Returns:
        The backup, None where there is no local store.

    Raises:
        PipelineError: the store is damaged or locked, or the disk is full.
    """
    store = runs.sqlite_file()
    if store is None or not availability.sqlite_store_exists(store):
        return None
    made = backups(store)
    newest = int(made[-1].stem) if made else 0
    same = made and _content(made[-1]) == _content(store)
    backup = folder(store) / f"{newest if same else newest + 1:06}.db"
    _copy(store, backup)
    for old in backups(store)[:-KEPT]:
        old.unlink()
    return backup


def _content(file: Path) -> list[list[tuple[object, ...]]] | None:
    """Returns what counts of a store, None where the file is damaged."""
    with suppress(sqlite3.DatabaseError), closing(_opened(file)) as database:
        return [database.execute(query).fetchall() for query in _CONTENT]
    return None


def _opened(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.resolve().as_uri()}?mode=rw", uri=True, timeout=_LOCK_WAIT_S)


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as aside, closing(_opened(source)) as whole, closing(sqlite3.connect(aside)) as copy:
        whole.backup(copy)


def restore(backup: Path | None) -> tuple[Path, Path | None]:
    """Puts a backup, by default the newest, in the place of a local store. This process has not connected to it yet.

    What was there is kept beside the backups, with its journals, which SQLite would apply to the backup. Killed in
    between, it is to be called again.

    Returns:
        The backup, and where the store that was there is now, None where there was none.

    Raises:
        UsageError: the store is on a server, or `backup` is no store.
        PipelineError: there is no backup, it is damaged, or something is at work on the store.
    """
    store = runs.sqlite_file()
    if store is None:
        raise UsageError(f"{runs.tracking_uri()} is no local store: its database is backed up where it runs")
    made = backups(store)
    if backup is None and not made:
        raise PipelineError(f"there is no backup in {folder(store)}; name a file that is one")
    chosen = (backup or made[-1]).resolve()
    if not availability.sqlite_store_exists(chosen):
        raise UsageError(f"{chosen} is no MLflow store")
    if store.exists():
        _require_idle(store)
    replaced = _put_aside(store)
    _copy(chosen, store)
    return chosen, replaced


def _require_idle(store: Path) -> None:
    """Raises PipelineError if another process writes to the store, or a run may be at work; a damaged one says none."""
    try:
        with closing(_opened(store)) as database:
            database.execute("begin exclusive")
            running = "select run_uuid from runs where status = 'RUNNING' and lifecycle_stage = 'active'"
            for (run_id,) in database.execute(running).fetchall():
                tags = dict(database.execute("select key, value from tags where run_uuid = ?", [run_id]).fetchall())
                if not provenance.is_gone(tags):
                    raise PipelineError(
                        f"run {run_id} is RUNNING and would lose what it logs; wait for its end, or if nothing is at "
                        f"work on it: `mlflow runs delete --run-id {run_id}`"
                    )
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            raise PipelineError(f"{store} is locked by another process; wait until that has ended") from None


def _put_aside(store: Path) -> Path | None:
    """Keeps the store, and takes its journals away; returns where it is kept, None where there was none."""
    numbers = [int(file.name.removeprefix(_REPLACED)[:6]) for file in folder(store).glob(f"{_REPLACED}*")]
    replaced = folder(store) / f"{_REPLACED}{max(numbers, default=0) + 1:06}.db"
    if store.exists():
        with atomic_write(replaced) as aside:
            copyfile(store, aside)
    for journal in _JOURNALS:
        with suppress(FileNotFoundError):
            store.with_name(f"{store.name}{journal}").replace(replaced.with_name(f"{replaced.name}{journal}"))
    return replaced if replaced.exists() else None
