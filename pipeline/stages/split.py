"""Stage `split`: train, validation, test and fresh tables that share no text."""

from pipeline.data.labelled import read_labelled
from pipeline.data.splits import split_reviews
from pipeline.data.verdicts import corrections, read_verdicts
from pipeline.project.atomic import atomic_write, read_table, write_json, write_table
from pipeline.project.params import load_params
from pipeline.project.paths import RAW, REVIEW_COLUMNS, SPLIT_REPORT, SPLIT_TABLES
from pipeline.project.run_command import run_command


def main() -> None:
    """Divides the reviews and reports what was dropped."""
    params = load_params()
    verdicts, test = read_verdicts(), read_table(RAW / "test.parquet", REVIEW_COLUMNS)
    tables, report = split_reviews(
        read_table(RAW / "train.parquet", REVIEW_COLUMNS),
        test,
        read_labelled(),
        validation_fraction=params.split.validation_fraction,
        fresh_rows=params.split.fresh_rows,
        seed=params.seed,
        verdicts=verdicts,
    )
    tables["corrections"] = corrections(test, verdicts)
    with atomic_write(SPLIT_TABLES) as folder:
        folder.mkdir()
        for split, table in tables.items():
            write_table(folder / f"{split}.parquet", table)
    write_json(SPLIT_REPORT, report)


if __name__ == "__main__":
    run_command(main)
