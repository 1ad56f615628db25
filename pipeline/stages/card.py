"""Stage `card`: a model card of each model, from the reports."""

from pipeline import results
from pipeline.artifacts import MODEL_CARD, model_card_file, write_text
from pipeline.errors import run_command
from pipeline.model_card import model_card
from pipeline.params import load_params


def main() -> None:
    params = load_params()
    found = results.read(list(params.models))
    cards = {name: model_card(found, name, params.dataset) for name in params.models}
    for name, card in cards.items():
        write_text(model_card_file(name), card)
    write_text(MODEL_CARD, cards[found.best.name])


if __name__ == "__main__":
    run_command(main)
