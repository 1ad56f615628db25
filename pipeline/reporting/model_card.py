"""The model card (Mitchell et al. 2019) of one model: what it is for, what it knows, how good it is and where it fails.

It begins with the YAML that model hubs read (https://huggingface.co/docs/hub/model-cards). It speaks of the model
alone, not of the run that trained it, its version or whether it is champion: a version's description adds its run.
"""

from pipeline.project.paths import NGRAMS
from pipeline.reporting.rendering import paired_sentence, render
from pipeline.reporting.results import Results


def model_card(found: Results, name: str, dataset: str) -> str:
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
        params=model.training["params"],
        html=next((one for one in found.validation["expectations"] if "HTML" in one["sentence"]), None),
        rows=[(one, other.metrics) for one, other in found.models.items() if one in (name, found.best.name, NGRAMS)],
        paired=paired_sentence(found, pair) if pair else "",
    )
