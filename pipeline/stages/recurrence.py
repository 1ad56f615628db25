"""Stage `recurrence`: vanishing gradients, measured: how far back the loss of three recurrent networks reaches."""

from pipeline import model, recurrence
from pipeline.artifacts import RECURRENCE_REPORT, TOKENS, read_table, write_json
from pipeline.errors import run_command
from pipeline.params import load_params
from pipeline.vocabulary import load_tokenizer


def main() -> None:
    params = load_params()
    train, validation = (
        read_table(TOKENS / f"{split}.parquet", ("label", "token_ids")) for split in ("train", "validation")
    )
    print(f"measuring gradients on {model.prepare_device(seed=params.seed, deterministic=True)}", flush=True)
    study = recurrence.study(train, validation, vocabulary_size=load_tokenizer().vocabulary_size, seed=params.seed)
    write_json(RECURRENCE_REPORT, study)


if __name__ == "__main__":
    run_command(main)
