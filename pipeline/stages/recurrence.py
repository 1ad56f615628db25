"""Stage `recurrence`: vanishing gradients, measured: how far back the loss of three recurrent networks reaches."""

from pipeline.project.atomic import read_table, write_json
from pipeline.project.params import load_params
from pipeline.project.paths import RECURRENCE_REPORT, TOKENS
from pipeline.project.run_command import run_command
from pipeline.studies import gradient_reach
from pipeline.text.encoding import load_tokenizer
from pipeline.training import networks


def main() -> None:
    """Measures how far back gradients reach, and writes the report."""
    params = load_params()
    train, validation = (
        read_table(TOKENS / f"{split}.parquet", ("label", "token_ids")) for split in ("train", "validation")
    )
    print(f"measuring gradients on {networks.prepare_device(seed=params.seed, deterministic=True)}", flush=True)
    study = gradient_reach.study(train, validation, vocabulary_size=load_tokenizer().vocabulary_size, seed=params.seed)
    write_json(RECURRENCE_REPORT, study)


if __name__ == "__main__":
    run_command(main)
