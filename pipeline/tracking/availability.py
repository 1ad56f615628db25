"""Whether an MLflow store can be used, told at once and in a sentence: MLflow itself tries again for minutes, ends in
tracebacks, and takes an empty file for a new store.
"""

import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from pipeline.project.errors import PipelineError
from pipeline.project.paths import DECISIONS

SQLITE = "sqlite:///"
_LOCK_WAIT_S = 10
"""Writers hold the file for milliseconds, a migration for seconds."""
_RESTORE = "`sentiment registry restore` puts a backup in its place"


def sqlite_store_exists(file: Path) -> bool:
    """Whether `file` is a whole store of this MLflow; False where there is none yet, or its making was interrupted.

    Raises:
        PipelineError: the file is damaged, locked, not to be read, or another MLflow's.
    """
    if not file.exists():
        return False
    if not file.stat().st_size:
        if any(DECISIONS.glob("*.jsonl")):
            raise PipelineError(
                f"{file} is empty, but {DECISIONS} has the decisions of a registry: {_RESTORE}; or remove the empty "
                "file, and `dvc repro` makes a new store from the outputs"
            )
        return False
    try:
        # Never made by this, and what a killed command had half written is undone, as MLflow would.
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=_LOCK_WAIT_S)) as database:
            ((found,),) = database.execute("pragma quick_check(1)")
            if found != "ok":
                raise PipelineError(f"{file} is damaged ({' '.join(found.split())}); {_RESTORE}")
            return _is_of_this_mlflow(database, file)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise PipelineError(
                f"{file} is locked by another process; wait until that has ended (`fuser {file}` names it)"
            ) from None
        raise PipelineError(f"{file} cannot be read ({error}); where it is damaged, {_RESTORE}") from None
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise PipelineError(f"{file} is damaged ({error}); {_RESTORE}") from None


def _is_of_this_mlflow(database: sqlite3.Connection, file: Path) -> bool:
    tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
    if not {"alembic_version", "experiments"} <= tables:
        return False
    made = [revision for (revision,) in database.execute("select version_num from alembic_version")]
    (used,) = database.execute("select exists(select 1 from experiments)").fetchone()
    if not made or not used:
        return False
    import mlflow

    newest, known = _revisions()
    if made[0] not in known:
        raise PipelineError(
            f"{file} was written by a newer MLflow than {mlflow.__version__} (its schema is {made[0]}); install that "
            "one, as requirements.lock of the newer checkout has it"
        )
    if made[0] != newest:
        raise PipelineError(
            f"{file} was written by an older MLflow than {mlflow.__version__}; keep a copy of it, then "
            f"`mlflow db upgrade {SQLITE}{file}`"
        )
    return True


@cache
def _revisions() -> tuple[str, set[str]]:
    """Returns the schema revision that this MLflow writes, and all that it can bring there."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    return str(scripts.get_current_head()), {script.revision for script in scripts.walk_revisions()}


def require_answer(uri: str) -> None:
    """Raises MlflowException where the server at `uri` refuses, or does not answer within MLFLOW_HTTP_REQUEST_TIMEOUT,
    in one try: the job asks once before its work, and once for its record."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    http_request(get_default_host_creds(uri), "/health", "GET", max_retries=0)
