"""Stage `split`: train, validation and test tables that share no text."""

from pipeline.artifacts import (
    RAW,
    REVIEW_COLUMNS,
    SPLIT_REPORT,
    SPLIT_TABLES,
    read_table,
    write_json,
    write_table,
    written_whole,
)
from pipeline.errors import run_command
from pipeline.labelled import read_labelled
from pipeline.params import load_params
from pipeline.splits import split_reviews


def main() -> None:
    params = load_params()
    tables, report = split_reviews(
        read_table(RAW / "train.parquet", REVIEW_COLUMNS),
        read_table(RAW / "test.parquet", REVIEW_COLUMNS),
        read_labelled(),
        validation_fraction=params.split.validation_fraction,
        seed=params.seed,
    )
    with written_whole(SPLIT_TABLES) as folder:
        folder.mkdir()
        for split, table in tables.items():
            write_table(folder / f"{split}.parquet", table)
    write_json(SPLIT_REPORT, report)


if __name__ == "__main__":
    run_command(main)
