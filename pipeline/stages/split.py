"""Stage `split`: train, validation, test and fresh tables that share no text, the unlabelled reviews that share none
with them, and sentences of those."""

from pipeline.data.copies import keyed
from pipeline.data.labelled import read_labelled
from pipeline.data.sentences import draw_sentences
from pipeline.data.splits import split_reviews, unlabelled_reviews
from pipeline.data.verdicts import corrections, read_verdicts
from pipeline.project.atomic import atomic_write, read_table, write_json, write_table
from pipeline.project.params import load_params
from pipeline.project.paths import (
    RAW,
    RAW_SPLITS,
    REVIEW_COLUMNS,
    SENTENCES,
    SPLIT_REPORT,
    SPLIT_TABLES,
    TEXT_COLUMNS,
    UNLABELLED,
)
from pipeline.project.run_command import run_command


def main() -> None:
    """Divides the reviews, draws sentences of the unlabelled ones, and reports what was dropped."""
    params = load_params()
    verdicts = read_verdicts()
    train, test = (keyed(read_table(RAW / f"{split}.parquet", REVIEW_COLUMNS)) for split in RAW_SPLITS)
    labelled = keyed(read_labelled())
    tables, report = split_reviews(
        train,
        test,
        labelled,
        validation_fraction=params.split.validation_fraction,
        fresh_rows=params.split.fresh_rows,
        seed=params.seed,
        verdicts=verdicts,
    )
    raw_unlabelled = read_table(RAW / f"{UNLABELLED}.parquet", TEXT_COLUMNS)
    unlabelled, report[UNLABELLED] = unlabelled_reviews(raw_unlabelled, train, test, labelled)
    sentences, report[SENTENCES] = draw_sentences(
        unlabelled, train, test, labelled, per_review=params.split.sentences_per_review, seed=params.seed
    )
    for name, table in {UNLABELLED: unlabelled, SENTENCES: sentences}.items():
        tables[name] = table[list(TEXT_COLUMNS)]
        report["rows"][name] = len(table)
    report["raw_rows"][UNLABELLED] = len(raw_unlabelled)
    tables["corrections"] = corrections(test, verdicts)
    with atomic_write(SPLIT_TABLES) as folder:
        folder.mkdir()
        for split, table in tables.items():
            write_table(folder / f"{split}.parquet", table)
    write_json(SPLIT_REPORT, report)


if __name__ == "__main__":
    run_command(main)
