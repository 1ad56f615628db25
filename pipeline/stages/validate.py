"""Stage `validate`: holds the tables against their expectations; a broken critical one stops the pipeline."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.expectations import TABLE_FILES, expected_rows, validate
from pipeline.project.atomic import atomic_write, read_json, read_table, write_json
from pipeline.project.errors import DataError
from pipeline.project.params import load_params
from pipeline.project.paths import DATA_DOCS, DATASET_INFO, REVIEW_COLUMNS, SPLIT_REPORT, VALIDATION_REPORT
from pipeline.project.run_command import run_command

if TYPE_CHECKING:
    import pandas as pd


def main() -> None:
    """Validates all tables; ends with DataError where a critical expectation is broken."""
    rows = expected_rows(load_params().dataset, read_json(DATASET_INFO), read_json(SPLIT_REPORT))
    tables = {name: _read_all_columns(path) for name, path in TABLE_FILES.items()}
    with atomic_write(DATA_DOCS) as aside:
        report = validate(tables, rows, aside)
    write_json(VALIDATION_REPORT, report.as_dict())
    for outcome in report.broken("advisory"):
        print(f"warning: {outcome}", file=sys.stderr)
    if broken := report.broken("critical"):
        raise DataError("\n       ".join(map(str, broken)))


def _read_all_columns(path: Path) -> "pd.DataFrame":
    """Reads a table with whatever columns it has: which ones it should have is for its schema suite to say."""
    return read_table(path, _columns(path))


def _columns(path: Path) -> Sequence[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return [str(name) for name in pq.read_schema(path).names]
    except (pa.ArrowException, OSError):
        return REVIEW_COLUMNS  # read_table says what is wrong with the file


if __name__ == "__main__":
    run_command(main)
