"""The model card (Mitchell et al. 2019) of one model: what it is for, what it knows, how good it is and where it fails.

It speaks of the model alone, not of the run that trained it, its version or whether it is champion: a version's
description adds its run.
"""

from pipeline.project.paths import NGRAMS
from pipeline.reporting import results
from pipeline.reporting.rendering import render

MOST_CHARACTERS = 5000
"""What MLflow's store keeps of a version's description."""


def model_card(found: results.Results, name: str, dataset: str) -> str:
    """Returns the card of model `name` as Markdown, every figure in it taken from the reports `found`."""
    model = found.models[name]
    with_best = (pair for pair in found.comparison["pairs"] if pair["second"] == name)
    pair = found.closest if model is found.best else next(with_best)
    return render(
        "model_card.md",
        dataset=dataset,
        results=found,
        model=model,
        trained=model.training["metrics"],
        layers=_layers(model.params),
        html=next((one for one in found.validation["expectations"] if "HTML" in one["sentence"]), None),
        rows=[*((other.name, other.metrics) for other in found.models.values()), (NGRAMS, found.ngrams)],
        paired=results.paired_sentence(found, pair),
    )


def _layers(params: results.Report) -> str:
    """Returns the model's layers in words, from the params that its run recorded."""
    cell = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "simple RNN"}[params["cell"]]
    units = " and ".join(str(units) for units in params["recurrent_units"])
    layers = "layer" if len(params["recurrent_units"]) == 1 else "layers"
    return (
        f"Embedding of {params['embedding_dim']}, {len(params['recurrent_units'])} bidirectional {cell} {layers} of "
        f"{units} units a direction, {params['pooling']} state, dense {params['dense_units']}"
    )
