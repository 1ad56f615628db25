"""Stage `download`: the reviews of `dataset`, as Parquet tables."""

from pipeline.data.sources import load_reviews
from pipeline.project.atomic import atomic_write, write_json, write_table
from pipeline.project.params import load_params
from pipeline.project.paths import DATASET_INFO, RAW
from pipeline.project.run_command import run_command


def main() -> None:
    """Loads the reviews of the data set that params.yaml names."""
    tables, info = load_reviews(load_params().dataset)
    with atomic_write(RAW) as folder:
        folder.mkdir()
        for split, table in tables.items():
            write_table(folder / f"{split}.parquet", table)
        write_json(folder / DATASET_INFO.name, info)


if __name__ == "__main__":
    run_command(main)
