"""How results are put into words: the sentences that several readers share, number formats, and templates."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.project.paths import BLEND, NGRAMS
from pipeline.reporting.results import Report, Results

TEMPLATES = Path(__file__).parent / "templates"
ALPHA = 0.05
"""p below which a difference is called significant, as in the gate's usual level."""


def render(template: str, **values: Any) -> str:
    """Returns the template of this name filled with `values`; one that ends in `.html` escapes them all but SVG that
    is marked as such (`markupsafe.Markup`). A name that a template misspells is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": "{:,}".format,
        "fixed": lambda value, digits=4: f"{value:.{digits}f}",
        "percent": lambda value, digits=1: f"{value:.{digits}%}",
        "span": lambda interval, digits=4: f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}",
        "over_seeds": over_seeds,
        "tiny": tiny,
        "named": named,
        "words": lambda name: name.replace("_", " "),
        "counted": counted,
        "cell": lambda text: " ".join(text.split()).replace("|", "\\|"),  # of a Markdown table
    }
    return environment.get_template(template).render(values)


def points(value: float) -> str:
    """Returns a difference of accuracies in percentage points with its sign."""
    return f"{100 * value:+.2f}".replace("-", "−")


def over_seeds(values: Mapping[Any, float]) -> str:
    """Returns the mean of values by seed and, where there are several, the lowest and the highest."""
    mean = f"{statistics.mean(values.values()):.4f}"
    return f"{mean} ({min(values.values()):.4f} to {max(values.values()):.4f})" if len(values) > 1 else mean


def tiny(value: float) -> str:
    """Returns a small number as one digit and a power of ten, such as 1 × 10⁻⁷."""
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit}\u00a0×\u00a010{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def named(name: str) -> str:
    """Returns a model's name as tables and figures show it."""
    return "n-grams" if name == NGRAMS else name


def counted(number: int, thing: str) -> str:
    """Returns how many things there are, such as 1 epoch or 5 epochs."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Returns names as a sentence lists them."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def subject(name: str) -> str:
    """Returns a model's name as a sentence says it."""
    return {NGRAMS: "the n-gram classifier", BLEND: "the blend"}.get(name, name)


def verdict(pair: Report) -> str:
    """Returns in a few words which of two compared models is better, or that their difference is not significant."""
    first, second = subject(pair["first"]), subject(pair["second"])
    if pair["mcnemar_p"] >= ALPHA:
        return f"the difference between {first} and {second} is not statistically significant"
    return f"{first if pair['difference'] > 0 else second} is better, significant at α = {ALPHA}"


def paired_sentence(results: Results, pair: Report) -> str:
    """Says how far apart two models are on the same test reviews, and whether that is significant."""
    first, second, p = subject(pair["first"]), subject(pair["second"]), pair["mcnemar_p"]
    low, high = pair["interval"]
    side = "above" if pair["difference"] >= 0 else "below"
    significant = "significant" if p < ALPHA else "not statistically significant"
    return (
        f"On the same {results.comparison['reviews']:,} test reviews the accuracy of {first} lies "
        f"{100 * abs(pair['difference']):.2f} points {side} that of {second} (95% interval of the difference "
        f"{points(low)} to {points(high)}), which is {significant} at α = {ALPHA} (exact McNemar p "
        f"{'< 0.0001' if p < 0.0001 else f'= {p:.2g}'}, one seed): {pair['only_first_right']:,} reviews that only "
        f"{first} gets right, {pair['only_second_right']:,} that only {second} does."
    )


def noise_sentence(noise: Report) -> str:
    """Says how much validation accuracy moves when a model is trained again with another seed, and what that does to
    the models' differences."""
    models = {name: model["validation"] for name, model in noise["models"].items()}
    differences = {pair.replace(" - ", " − "): found["validation"] for pair, found in noise["differences"].items()}
    seeds = len(next(iter(models.values()))["values"])
    reached = ", ".join(f"{name} reaches {one['mean']:.4f} ± {one['deviation']:.4f}" for name, one in models.items())
    apart = "".join(
        f"; {pair} is {points(one['mean'])} ± {100 * one['deviation']:.2f} points" for pair, one in differences.items()
    )
    of_what = "mean and standard deviation of validation accuracy, each on a split of its own"
    return f"Trained with {seeds} seeds, {reached} ({of_what}){apart}."


def behaviour_noise_sentence(noise: Report) -> str:
    """Says how many pairs of seeds of one model the gate lets pass in behaviour."""
    pairs = noise["behaviour"]["pairs"]
    share = pairs["passed"] / pairs["pairs"]
    return (
        f"Of {pairs['pairs']} pairs of trainings of one network with two seeds, one as challenger of the other, the "
        f"gate lets {pairs['passed']} pass in behaviour ({share:.0%}) and takes {pairs['better'] or 'none'} for better."
    )


def leads(pair: Report) -> str:
    """Says by how much the best candidate of all leads over the next, and whether that is more than chance."""
    first, second, lead = subject(pair["first"]), subject(pair["second"]), 100 * pair["difference"]
    real = "significant" if pair["mcnemar_p"] < ALPHA else "not statistically significant"
    return f"{first}: its lead of {lead:.2f} points over {second} is {real}"


_TEACHER = ("learns_from", "by", "label_weight", "temperature", "texts")
"""Params that say together what a network learns from."""


def unlike(networks: Mapping[str, Report]) -> list[str]:
    """Says of each network in what it differs from the one that is most like it, and whether that tells what a
    difference of their results is due to.

    Args:
        networks: their params, by name.
    """
    sentences: dict[tuple[str, str], str] = {}
    for name in networks:
        apart = {other: _apart(networks[other], networks[name]) for other in networks if other != name}
        if apart:
            other = min(apart, key=lambda one: len(apart[one]))
            first, second = (one for one in networks if one in (name, other))
            sentences.setdefault((first, second), _unlike(first, second, apart[other]))
    return list(sentences.values())


def _apart(first: Report, second: Report) -> list[str]:
    differing = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    learns = ["what it learns from"] if set(_TEACHER) & set(differing) else []
    return learns + [name.replace("_", " ") for name in differing if name not in _TEACHER]


def _unlike(first: str, second: str, apart: Sequence[str]) -> str:
    if not apart:
        return f"{first} and {second} have the same params."
    if len(apart) == 1:
        return f"{first} and {second} differ in {apart[0]} alone: like against like."
    return f"{first} and {second} differ in {listed(apart)}: what lies between them is due to no single one of these."


def worsened(results: Results) -> list[tuple[Report, Report, str]]:
    """Returns the behavioural tests in which the challenger fails more often than the network that learnt from labels
    alone, each with that network's result, the challenger's and where it comes from, empty where there is no such
    network."""
    alone = next((pair["second"] for pair in results.comparison["taught"]), None)
    if alone is None:
        return []
    tests = {name: found["tests"] for name, found in results.behaviour.items()}
    return [
        (before, after, _origin(results, before, after, {name: tests[name][row] for name in tests}))
        for row, (before, after) in enumerate(zip(tests[alone], tests[results.best.name], strict=True))
        if after["failure_rate"] > before["failure_rate"]
    ]


def _origin(results: Results, before: Report, after: Report, by_candidate: dict[str, Report]) -> str:
    """Says where a worsening comes from, as far as the reports can tell."""
    if after.get("mean_span", 1.0) < before.get("mean_span", 0.0):
        return (
            f"the probability moves less, by {after['mean_span']:.2f} instead of {before['mean_span']:.2f} on average, "
            "but crosses 0.5 more often"
        )
    parts = (results.best.training["params"].get("blend"), NGRAMS) if results.best.name == BLEND else ()
    rates = {name: by_candidate[name]["failure_rate"] for name in parts if name in by_candidate}
    if rates and max(rates.values()) >= after["failure_rate"]:
        worst = max(rates, key=lambda name: rates[name])
        others = "".join(f", {subject(name)} alone {rate:.0%}" for name, rate in rates.items() if name != worst)
        return f"it comes with {subject(worst)}, alone {rates[worst]:.0%}{others}"
    (low, _), (_, high) = after["interval"], before["interval"]
    return "within what so few cases can tell apart" if low <= high else "not explained"


def batching_sentence(results: Results) -> str:
    """Says what bucketing by length saves."""
    train = results.batching["train"]
    return (
        f"Padding is {train['padding_share']:.1%} of the tokens in the training batches; in shuffled batches of 64 it "
        f"would be {train['classic_padding_share']:.0%}."
    )
