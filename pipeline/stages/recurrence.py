"""Stage `recurrence`: vanishing gradients, measured: how far back the loss of three recurrent networks reaches."""

from pipeline.project.atomic import write_json
from pipeline.project.params import load_params
from pipeline.project.paths import RECURRENCE_REPORT, TOKENS
from pipeline.project.run_command import run_command
from pipeline.studies import gradient_reach
from pipeline.text.encoding import load_tokenizer
from pipeline.text.token_arrays import read_tokens
from pipeline.training import networks


def main() -> None:
    """Measures how far back gradients reach, and writes the report."""
    params = load_params()
    tokens = [read_tokens(TOKENS / split) for split in ("train", "validation")]
    train, validation = ((one, one.label) for one in tokens if one.label is not None)
    print(f"measuring gradients on {networks.prepare_device(seed=params.seed, deterministic=True)}", flush=True)
    study = gradient_reach.study(train, validation, vocabulary_size=load_tokenizer().vocabulary_size, seed=params.seed)
    write_json(RECURRENCE_REPORT, study)


if __name__ == "__main__":
    run_command(main)
