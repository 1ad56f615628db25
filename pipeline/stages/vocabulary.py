"""Stage `vocabulary`: builds the subword vocabulary from the raw training texts."""

from pipeline.project.atomic import atomic_write
from pipeline.project.params import load_params
from pipeline.project.paths import RAW, TOKENIZER, VOCABULARY
from pipeline.project.run_command import run_command
from pipeline.served_model.tokenizer import SubwordTokenizer
from pipeline.text.encoding import read_texts
from pipeline.text.vocabulary import build_vocabulary


def main() -> None:
    """Builds the vocabulary and saves it."""
    params = load_params()
    texts = read_texts(RAW / "train.parquet", labelled=True)["text"]
    tokenizer = SubwordTokenizer(build_vocabulary(texts, params.tokenize.vocabulary_size))
    with atomic_write(TOKENIZER) as folder:
        folder.mkdir()
        tokenizer.save(folder / VOCABULARY.name)
    print(f"vocabulary: {tokenizer.vocabulary_size:,} token ids")


if __name__ == "__main__":
    run_command(main)
