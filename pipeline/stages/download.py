"""Stage `download`: the reviews of `dataset`, as Parquet tables."""

from pipeline.artifacts import DATASET_INFO, RAW, write_json, write_table, written_whole
from pipeline.errors import run_command
from pipeline.params import load_params
from pipeline.reviews import load_reviews


def main() -> None:
    tables, info = load_reviews(load_params().dataset)
    with written_whole(RAW) as folder:
        folder.mkdir()
        for split, table in tables.items():
            write_table(folder / f"{split}.parquet", table)
        write_json(folder / DATASET_INFO.name, info)


if __name__ == "__main__":
    run_command(main)
