"""The page and the card: readable without a network, safe to open, and true to the reports."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import reported_project
from conftest import ROOT, edit_params
from huggingface_hub import ModelCard

from pipeline.evaluation import curves
from pipeline.project import atomic, paths
from pipeline.project.errors import DataError
from pipeline.project.params import load_params
from pipeline.registry.versions import without_head
from pipeline.reporting import rendering, results, summary
from pipeline.reporting.model_card import model_card
from pipeline.reporting.page import page
from pipeline.stages import compare as compare_stage
from pipeline.stages import report as report_stage

MODELS = ["single", "stacked"]
CANDIDATES = [*MODELS, "ngrams"]
DATASET = "imdb_reviews"
MOST_CHARACTERS = 5000
"""What MLflow's store keeps of a version's description."""


@pytest.fixture
def reported(project: Path) -> Path:
    """A folder with all reports of two networks and the n-grams, stacked the challenger."""
    ask_for(project, MODELS)
    reported_project.write(project)
    return project


def ask_for(project: Path, models: list[str]) -> None:
    """Sets the params to networks of these names and the n-grams."""
    network = load_params().models["single"].model_dump()
    edit_params(project, models=dict.fromkeys(models, network), blend="single", candidates=[*models, "ngrams"])


def rendered() -> str:
    registry = atomic.read_json(paths.REGISTRY_REPORT)
    recurrence = atomic.read_json(paths.RECURRENCE_REPORT)
    params = load_params()
    noise, ablations = results.read_noise(params), results.read_ablations(params)
    return page(results.read(CANDIDATES), registry, recurrence, noise, ablations, DATASET)


def edited(path: Path, edit: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


class Parsed(HTMLParser):
    """The tags with their attributes, the ids, and the visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def values(self, name: str) -> Iterator[str]:
        return (value for _, attributes in self.tags if (value := attributes.get(name)) is not None)


def test_the_page_loads_nothing(reported: Path) -> None:
    html = rendered()
    parsed = Parsed(html)
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "iframe", "object", "embed"})
    assert list(parsed.values("src")) == []
    own_ids = set(parsed.values("id"))
    for target in [*parsed.values("href"), *parsed.values("xlink:href")]:
        assert target == "data_docs/index.html" or target[:22] == "data:image/png;base64," or target[1:] in own_ids
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert len(html) < 2_000_000


def test_a_review_cannot_act_on_the_page(reported: Path) -> None:
    parsed = Parsed(rendered())
    assert reported_project.HOSTILE.strip()[:60] in "".join(parsed.text)  # shown as it was written
    assert not any(attribute.startswith("on") for _, attributes in parsed.tags for attribute in attributes)
    assert "img" not in [tag for tag, _ in parsed.tags]


def test_an_id_stands_for_one_thing(reported: Path) -> None:
    ids = list(Parsed(rendered()).values("id"))
    assert len(ids) == len(set(ids))


def test_the_same_reports_give_the_same_page(reported: Path) -> None:
    assert rendered() == rendered()


def visible(html: str) -> str:
    return " ".join("".join(Parsed(html).text).split())


def test_the_page_opens_with_the_answers(reported: Path) -> None:
    text = visible(rendered())
    for question, answer in {
        "Which candidate is best, and is its lead real?": "the n-gram classifier: its lead of",
        "Why is the champion the champion, and what does it cost to serve?": "Version 4 (stacked): 2.5 MB, 0.90 ms",
        "What data and commit made the champion?": "Version 4 (stacked), commit c0ffee0000",
        "What does stacked get wrong?": "of the test reviews",
        "What does stacked do with negation, names, groups of people?": "Cases that fail: negation ",
        "Does padding matter?": "Not while it is masked; else 21 of 100 labels flip",
        "What changed since last week?": "Version 4 was promoted on 2026-11-23",
    }.items():
        assert answer in text.split(question)[1][:300], question
    assert text.index("What changed since last week?") < text.index("Results Learning curves")


def test_the_best_of_all_is_told_with_its_lead_and_a_picture_of_all(reported: Path) -> None:
    edited(paths.COMPARISON_REPORT, lambda found: found["lead"].update(mcnemar_p=0.01))
    first = rendered().split("</article>")[0]
    text = visible(first[first.index("<section") :])
    lead = atomic.read_json(paths.COMPARISON_REPORT)["lead"]
    assert f"its lead of {100 * lead['difference']:.2f} points over stacked is significant" in text
    assert "The challenger is another, stacked, as chosen on validation: " in text
    for name in CANDIDATES:
        accuracy = atomic.read_json(paths.metrics_file(name))["accuracy"]
        assert f">{accuracy:.2%}</text>" in first and f">{rendering.named(name)}</text>" in first
    edited(paths.COMPARISON_REPORT, lambda found: found["lead"].update(mcnemar_p=0.3))
    assert "points over stacked is not statistically significant" in rendered()


def test_why_the_champion_is_champion_is_told_by_chooser_and_gate(reported: Path) -> None:
    assert (
        "The gate, on 2026-11-23 (promoted): Two. The choice among the candidates: stacked has the least log loss."
        in visible(rendered())
    )
    edited(paths.REGISTRY_REPORT, lambda found: found["champion_made_from"].update(serving=None))
    assert "Version 4 (stacked): its cost was not recorded" in visible(rendered())


def changes() -> dict[str, list[list[str]]]:
    """By kind of thing, the rows of the table of what changed."""
    table = rendered().split("differs from the champion before it")[1].split("</table>")[0]
    kinds = re.findall(r'<th class="kind"[^>]*>([^<]*)</th></tr>(.*?)</tbody>', table, re.DOTALL)
    row = r"<tr><th>([^<]+)</th>((?:<td[^>]*>[^<]*</td>)+)</tr>"
    return {
        kind: [[name, *re.findall(r">([^<]*)</td>", cells)] for name, cells in re.findall(row, rows)]
        for kind, rows in kinds
    }


def test_what_changed_is_told_from_last_week_and_from_the_champion_before(reported: Path) -> None:
    assert changes() == {
        "metrics": [["test accuracy", "0.8501", "0.8611", "0.8655"]],
        "behaviour, cases that fail": [["negation", "48%", "46%", "42%"]],
        "params": [["model", "single", "single", "stacked"], ["learning_rate", "0.001", "0.002", "0.004"]],
        "data": [["train reviews learnt from", "22,301", "22,302", "22,304"]],
        "code and machine: the same": [],
    }
    assert (
        "From version 1, champion on 2026-11-17, to version 4, challenger: metrics: test accuracy 0.8501 → 0.8655; "
        "behaviour, cases that fail: negation 48% → 42%; params: model single → stacked, learning_rate 0.001 → 0.004; "
        "data: train reviews learnt from 22,301 → 22,304; code and machine: the same."
    ) in visible(rendered())


def test_a_champion_of_a_week_that_was_the_one_before_too_is_told_once(reported: Path) -> None:
    edited(paths.REGISTRY_REPORT, lambda found: found["week_ago"].update(made_from=found["against"]["made_from"]))
    assert changes()["metrics"] == [["test accuracy", "0.8611", "0.8655"]]
    edited(paths.REGISTRY_REPORT, lambda found: found["week_ago"].update(made_from=None))
    assert changes()["metrics"] == [["test accuracy", "0.8611", "0.8655"]]
    assert "A week before, on 2026-11-17, there was no champion" in rendered()


@pytest.mark.parametrize(
    ("registry", "said"),
    [
        ({"decision": "not registered", "reason": "wide-otter is a DVC experiment"}, "wide-otter is a DVC experiment"),
        ({"champion_made_from": None, "champion": None, "against": None}, "There is no champion"),
        ({"against": None, "week_ago": {"when": "2026-11-17", "made_from": None}}, "Version 4 (stacked)"),
    ],
)
def test_a_page_without_champion_or_registry_says_so(reported: Path, registry: dict, said: str) -> None:
    content = json.loads(paths.REGISTRY_REPORT.read_text())
    content = registry if "reason" in registry else content | registry
    atomic.write_json(paths.REGISTRY_REPORT, content)
    assert said in rendered()


def test_the_seeds_noise_stands_beside_the_verdict(reported: Path) -> None:
    sentence = "single reaches 0.8600 ± 0.0020, stacked reaches 0.8650 ± 0.0030"
    assert sentence in rendered() and "+0.50 ± 0.31 points" in rendered()
    results.NOISE_REPORT.unlink()
    assert "What the seed does" not in rendered()


@pytest.mark.parametrize(
    "changed",
    [
        {"tokenize__max_tokens": 512},
        {"models__single__token_dropout": 0.4},
        {"split__validation_fraction": 0.2},
        {"candidates": ["stacked", "ngrams"]},
    ],
)
def test_the_seeds_noise_is_of_the_params_and_candidates_of_the_page_or_not_shown(
    reported: Path, changed: dict[str, Any]
) -> None:
    assert results.read_noise(load_params())
    edit_params(reported, **changed)
    assert results.read_noise(load_params()) is None


def test_another_candidate_leaves_the_noise_of_the_others_as_it_is(reported: Path) -> None:
    network = load_params().models["single"].model_dump()
    edit_params(reported, models=dict.fromkeys([*MODELS, "new"], network), candidates=[*CANDIDATES, "new"])
    assert results.read_noise(load_params())


def test_noise_that_does_not_say_of_which_params_it_is_is_not_shown(reported: Path) -> None:
    edited(results.NOISE_REPORT, lambda noise: noise.pop("params"))
    assert "What the seed does" not in rendered()


def test_networks_are_held_side_by_side_and_it_is_told_whether_like_is_against_like(reported: Path) -> None:
    assert "single and stacked have the same params." in visible(rendered())
    params = paths.train_reports("stacked") / "training.json"
    edited(params, lambda found: found["params"].update(recurrent_units=[64, 32]))
    assert "single and stacked differ in recurrent units alone: like against like." in visible(rendered())
    edited(params, lambda found: found["params"].update(learning_rate=0.005, texts=["train"]))
    html = rendered()
    assert (
        "single and stacked differ in what it learns from, recurrent units and learning rate: what lies between them "
        "is due to no single one of these."
    ) in visible(html)
    assert "<tr><th>recurrent units</th><td>64</td><td>64, 32</td><td>–</td></tr>" in html


def test_what_teaching_does_to_accuracy_and_to_behaviour_stands_in_one_table(reported: Path) -> None:
    table = rendered().split("What the teacher brings")[1].split("</table>")[0]
    accuracy = atomic.read_json(paths.metrics_file("stacked"))["accuracy"]
    assert "<tr><th>test accuracy</th><td>" in table and f"<td>{accuracy:.2%}</td>" in table
    assert "<tr><th>negation</th>" in table and "<tr><th>names</th>" in table


def test_the_n_grams_stand_beside_the_network_on_short_and_on_long_reviews(reported: Path) -> None:
    text = visible(rendered())
    for group in (lengths := atomic.read_json(paths.COMPARISON_REPORT)["lengths"])[0], lengths[-1]:
        assert (
            f"{1 - group['accuracy']['stacked']:.1%} wrong (n-grams {1 - group['accuracy']['ngrams']:.1%})" in text
            or f"{1 - group['accuracy']['stacked']:.1%} (n-grams {1 - group['accuracy']['ngrams']:.1%})" in text
        )


def test_the_broken_expectations_are_listed_all_and_no_others(reported: Path) -> None:
    def add(found: Any) -> None:
        whole = {"unexpected_count": None, "rows": None}
        found["expectations"] += [
            reported_project.expectation("it holds though some rows differ", 7) | {"success": True},
            reported_project.expectation("a table of splits breaks too", 8) | {"table": "test"},
            reported_project.expectation("it is about a whole table", 0) | whole | {"observed": 0.31},
        ]

    edited(paths.VALIDATION_REPORT, add)
    data = visible(rendered().split('<section id="data">')[1].split("</section>")[0])
    assert (
        "a table of splits breaks tootestadvisory8 of 25,000" in data and "a whole tableraw trainadvisory0.31" in data
    )
    assert "it holds though some rows differ" not in data


def test_one_epoch_is_not_called_epochs(reported: Path) -> None:
    edited(paths.train_reports("single") / "training.json", lambda found: found["metrics"].update(epochs=1))
    edited(paths.RECURRENCE_REPORT, lambda found: found.update(epochs=1))
    text = visible(rendered())
    assert "s, 1 epoch" in text and "After 1 epoch" in text and "1 epochs" not in text
    assert "1 epochs" not in summary.table()


def test_every_table_can_be_scrolled_from_the_keyboard_and_says_so_on_a_phone(reported: Path) -> None:
    parsed = Parsed(rendered())
    scrolled = [attributes for _, attributes in parsed.tags if attributes.get("class") == "scroll"]
    assert len(scrolled) == len([tag for tag, _ in parsed.tags if tag == "table"]) > 10
    assert all(one["tabindex"] == "0" and one["role"] == "region" and one["aria-label"] for one in scrolled)
    assert "".join(parsed.text).count("This table scrolls sideways") == len(scrolled)


def test_terms_are_explained_where_they_first_stand(reported: Path) -> None:
    text = visible(rendered())
    table = text.index("behaviour failed")
    for term, explained in {
        "ECE": "ECE, the expected calibration error, is",
        "token dropout": "Token dropout is the share of a review's tokens that are hidden",
        "look": "A look is a decision for which held-out reviews were scored",
    }.items():
        assert explained in text, term
    assert text.index("ECE, the expected calibration error, is") - table < 1500


def test_reviews_that_were_taken_in_are_told_of(reported: Path) -> None:
    assert "taken in" not in rendered() + model_card(results.read(CANDIDATES), "single", DATASET)
    edited(paths.SPLIT_REPORT, lambda split: split["labelled"].update(kept=1234))
    assert "<th>new labelled reviews taken in</th><td>1,234</td>" in rendered()
    assert "And 1,234 labelled reviews taken in since" in model_card(results.read(CANDIDATES), "single", DATASET)


def test_the_best_model_is_compared_with_the_strongest_of_the_others(reported: Path) -> None:
    def add_a_rival(compared: Any) -> None:
        weak, ngrams = compared["pairs"]
        rival = weak | {"second": "rival", "difference": 0.0001, "mcnemar_p": 0.9}
        compared["pairs"] = [weak, rival, ngrams | {"difference": 0.1}]

    edited(paths.COMPARISON_REPORT, add_a_rival)
    found = results.read(CANDIDATES)
    assert found.closest["second"] == "rival"
    assert "of stacked lies 0.01 points above that of rival" in model_card(found, "stacked", DATASET)
    assert "the difference between stacked and rival is not statistically significant" in rendered()


def test_a_champion_that_was_kept_is_not_said_to_differ_from_another(reported: Path) -> None:
    def keep(registry: Any) -> None:
        registry["history"][-1] |= {"decision": "kept", "from": "2", "to": "2"}
        registry |= {"champion": "2", "decision": "kept", "champion_made_from": registry["against"]["made_from"]}

    edited(paths.REGISTRY_REPORT, keep)
    assert changes()["metrics"] == [["test accuracy", "0.8501", "0.8611", "0.8655"]]
    assert "The champion, version 2, was kept on 2026-11-23" in rendered()


def test_a_run_without_an_lstm_has_no_gates(reported: Path) -> None:
    for model in MODELS:
        (paths.evaluation_reports(model) / "gates.json").unlink()
    assert "No model of this run is an LSTM" in rendered()


FIGURES: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "accuracy": ("test/stacked.json", lambda c: c.update(accuracy=0.123456), "0.1235"),
    "interval": ("test/stacked.json", lambda c: c["intervals"].update(accuracy=[0.1357, 0.2468]), "0.2468"),
    "n-grams": ("test/ngrams.json", lambda c: c.update(roc_auc=0.3141), "0.3141"),
    "slice": ("test/stacked.json", lambda c: c["slices"][0].update(accuracy=0.2718), "0.2718"),
    "paired": ("comparison.json", lambda c: c["pairs"][0].update(only_first_right=4321), "4,321"),
    "behaviour": ("behaviour/stacked.json", lambda c: c["capabilities"]["names"].update(mean_span=0.87), "0.87"),
    "evaluation set": (
        "behaviour/stacked.json",
        lambda c: c["evaluation_sets"]["rewritten"].update(both_right=0.4321),
        "43.2%",
    ),
    "copies": ("split.json", lambda c: c["dropped_from_train"].update(surplus_copies=98765), "98,765"),
    "near-copies": ("split.json", lambda c: c["near_copies"].update(text_also_in_test=86421), "86,421"),
    "fresh": ("metrics/stacked.json", lambda c: c.update(fresh=c["validation"] | {"accuracy": 0.4321}), "0.4321"),
    "parameters": ("train/stacked/training.json", lambda c: c["metrics"].update(parameters=7654321), "7,654,321"),
    "HTML": ("validation.json", lambda c: c["expectations"][0].update(unexpected_count=13579), "13,579"),
}
ON_THE_PAGE_ALONE: dict[str, tuple[str, Callable[[Any], None], str]] = {
    "log loss": ("comparison.json", lambda c: c["choice"]["standings"][0].update(loss=0.7531), "0.7531"),
    "teaching": ("comparison.json", lambda c: c["taught"][0].update(difference=0.98765), "98.77 points"),
    "weight": ("metrics/single.json", lambda c: c["calibration"]["weights"].update(network=7.53), "7.53"),
    "padding": (
        "evaluate/stacked/padding_study.json",
        lambda c: c["unmasked"]["padded_to_2048"].update(flipped=77),
        "77 flip",
    ),
    "batching": ("batching.json", lambda c: c["train"].update(padding_share=0.4242), "42.4%"),
    "reach": ("recurrence.json", lambda c: c["cells"]["lstm"]["trained"].update(reach=246), "246 steps"),
    "mistake": ("comparison.json", lambda c: c["mistakes"]["stacked"][0].update(text="Dullish."), "Dullish."),
    "decision": ("registry.json", lambda c: c["history"][0].update(reason="A new reason."), "A new reason."),
    "weights": ("train/single/training.json", lambda c: c.update(weights_sha256="beef"), "beef"),
    "run": ("runs/single.json", lambda c: c.update(run_id="f00d" * 8), "f00d" * 8),
    "seconds": ("runs/stacked.json", lambda c: c["metrics"].update(training_seconds=5544.0), "5544 s"),
    "n-grams' seconds": ("runs/ngrams.json", lambda c: c["metrics"].update(training_seconds=8642.0), "8642 s"),
    "device": ("runs/stacked.json", lambda c: c["tags"].update(device="GPU: A Card"), "GPU: A Card"),
}


@pytest.mark.parametrize(
    ("render", "figures"),
    [
        (lambda: "".join(Parsed(rendered()).text), FIGURES | ON_THE_PAGE_ALONE),
        (lambda: model_card(results.read(CANDIDATES), "stacked", DATASET), FIGURES),
    ],
    ids=["page", "card"],
)
def test_a_figure_is_that_of_its_report(
    reported: Path, render: Callable[[], str], figures: dict[str, tuple[str, Callable[[Any], None], str]]
) -> None:
    before = render()
    for report, edit, _ in figures.values():
        edited(paths.REPORTS / report, edit)
    after = render()
    for name, (_, _, shown) in figures.items():
        assert after.count(shown) > before.count(shown), name


@pytest.mark.parametrize("model", CANDIDATES)
@pytest.mark.parametrize("dataset", [DATASET, "sample"])
def test_a_model_hub_reads_what_a_card_says(reported: Path, model: str, dataset: str) -> None:
    data = ModelCard(model_card(results.read(CANDIDATES), model, dataset)).data  # refuses what is not of its schema
    assert data.model_name == model and data.license == "mit" and data.datasets == ["stanfordnlp/imdb"]
    metrics = atomic.read_json(paths.metrics_file(model))
    found = {one.metric_type: (one.dataset_type, one.dataset_split, one.metric_value) for one in data.eval_results}
    assert found == {name: ("stanfordnlp/imdb", "test", round(metrics[name], 4)) for name in ("accuracy", "roc_auc")}
    assert sorted(found) == sorted(data.metrics)


@pytest.mark.parametrize("model", MODELS)
def test_a_card_fits_a_versions_description_and_is_whole_tables(reported: Path, model: str) -> None:
    card = without_head(model_card(results.read(CANDIDATES), model, DATASET))
    assert card.startswith(f"# Model card: {model}\n")
    assert len(card) <= MOST_CHARACTERS
    for table in re.findall(r"(?m)(?:^\|.*\n)+", card):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    for part in ("Intended use", "known defects", "Results", "Behaviour", "Training", "Licence and citation"):
        assert re.search(rf"(?m)^## .*{part}", card)
    assert "\n\n\n" not in card and "  " not in card


def test_what_labelling_pays_is_told_as_far_as_it_is_measured(reported: Path) -> None:
    assert "How much labelling pays" not in rendered()
    row = {"what": "taught", "labels": 1000, "labelled": 1000, "accuracy": {1: 0.8601, 2: 0.8705}, "ngrams": {1: 0.85}}
    whole = row | {"labels": None, "labelled": 22301}
    registry, recurrence = (atomic.read_json(file) for file in (paths.REGISTRY_REPORT, paths.RECURRENCE_REPORT))
    ablations = {"rows": [row, whole], "left": 7}
    html = page(results.read(CANDIDATES), registry, recurrence, None, ablations, DATASET)
    text = " ".join("".join(Parsed(html).text).split())
    for said in ("0.8653 (0.8601 to 0.8705)0.8500", "all 22,301", "7 more settings to measure"):
        assert said in text, said


def rates(model: str, changed: dict[str, dict[str, Any]]) -> None:
    """Gives the behavioural tests of these names other results."""

    def edit(content: Any) -> None:
        for test in content["tests"]:
            test.update(changed.get(test["test"], {}))

    edited(paths.behaviour_file(model), edit)


def test_each_worsening_against_labels_alone_is_listed_with_its_origin(reported: Path) -> None:
    assert rendering.worsened(results.read(CANDIDATES)) == []
    alone, best = {"failure_rate": 0.1, "interval": [0.05, 0.2]}, {"failure_rate": 0.4, "interval": [0.3, 0.5]}
    names = ("religion", "words of blame", "words of praise", "negated praise")
    rates("single", dict.fromkeys(names, alone) | {"religion": alone | {"mean_span": 0.3}})
    changed: dict[str, dict[str, Any]] = dict.fromkeys(names, best)
    changed |= {"religion": best | {"mean_span": 0.1}, "words of praise": best | {"interval": [0.15, 0.5]}}
    rates("stacked", changed | {"negated blame": {"failure_rate": 0.0}})
    origins = {after["test"]: origin for _, after, origin in rendering.worsened(results.read(CANDIDATES))}
    assert origins == {
        "religion": "the probability moves less, by 0.10 instead of 0.30 on average, but crosses 0.5 more often",
        "negated praise": "not explained",
        "words of praise": "within what so few cases can tell apart",
        "words of blame": "not explained",
    }
    page = "".join(Parsed(rendered()).text)
    assert "In 4 of the" in page and "crosses 0.5 more often" in page


def test_a_worsening_of_the_blend_is_looked_for_in_its_parts(reported: Path) -> None:
    for of in (paths.behaviour_file, paths.metrics_file, paths.evaluated_file, paths.serving_file):
        shutil.copy(of("ngrams"), of("blend"))
    shutil.copytree(paths.train_reports("ngrams"), paths.train_reports("blend"))
    edited(paths.train_reports("blend") / "training.json", lambda found: found["params"].update(blend="stacked"))
    edited(paths.COMPARISON_REPORT, lambda found: found.update(best="blend"))
    for model, rate in {"single": 0.1, "stacked": 0.2, "ngrams": 0.5, "blend": 0.4}.items():
        rates(model, {"words of blame": {"failure_rate": rate}})
    found = results.read([*CANDIDATES, "blend"])
    ((_, _, origin),) = [one for one in rendering.worsened(found) if one[1]["test"] == "words of blame"]
    assert origin == "it comes with the n-gram classifier, alone 50%, stacked alone 20%"


def test_the_stages_write_the_cards_and_the_page_and_load_no_heavy_library(reported: Path) -> None:
    atomic.write_json(paths.REGISTRY_REPORT, {"decision": "not registered", "reason": "none"})
    for stage, loaded in (("compare", ["sklearn"]), ("report", [])):  # the curves are scikit-learn's
        code = (
            f"import sys; from pipeline.stages import {stage}; {stage}.main(); "
            "print(sorted({'tensorflow', 'mlflow', 'keras', 'sklearn', 'dvc'} & set(sys.modules)))"
        )
        environment = {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout.splitlines()[-1] == str(loaded)
    best = atomic.read_json(paths.COMPARISON_REPORT)["best"]
    lead = atomic.read_json(paths.COMPARISON_REPORT)["lead"]
    right = {name: atomic.read_json(paths.metrics_file(name))["accuracy"] for name in CANDIDATES}
    assert [lead["first"], lead["second"]] == sorted(right, key=lambda name: -right[name])[:2]
    assert paths.MODEL_CARD.read_text() == paths.model_card_file(best).read_text()
    assert paths.model_card_file("single").exists()
    assert paths.REPORT_PAGE.read_text().startswith("<!doctype html>")
    assert str(Path.cwd()) not in paths.REPORT_PAGE.read_text()


def test_a_third_model_stands_wherever_the_two_do(project: Path) -> None:
    reported_project.write(project, reported_project.TWO | {"another": 0.85})
    ask_for(project, [*MODELS, "another"])
    found = results.read([*CANDIDATES, "another"])
    registry, recurrence = (atomic.read_json(file) for file in (paths.REGISTRY_REPORT, paths.RECURRENCE_REPORT))
    html = page(found, registry, recurrence, None, None, DATASET)
    assert f"{found.models['another'].metrics['accuracy']:.4f}" in html
    assert html.count("another") > html.count("single") / 2
    assert "another" in summary.table() and "# Model card: another" in model_card(found, "another", DATASET)


@pytest.mark.parametrize(
    ("stage", "report"),
    [
        (compare_stage, "metrics/single.json"),
        (compare_stage, "metrics/ngrams.json"),
        (compare_stage, "train/stacked/training.json"),
        (report_stage, "comparison.json"),
        (report_stage, "runs/single.json"),
        (report_stage, "runs/ngrams.json"),
    ],
)
def test_a_missing_report_is_named(reported: Path, stage: Any, report: str) -> None:
    (paths.REPORTS / report).unlink()
    with pytest.raises(DataError, match=rf"reports/{re.escape(report)} does not exist; run `dvc repro`"):
        stage.main()


def test_a_card_speaks_of_the_weights_and_not_of_the_run_that_made_them(reported: Path) -> None:
    cards = [model_card(results.read(CANDIDATES), model, DATASET) for model in MODELS]
    for model in CANDIDATES:
        paths.run_file(model).unlink()
    assert [model_card(results.read(CANDIDATES), model, DATASET) for model in MODELS] == cards


def test_each_model_has_its_own_curves_in_the_tables_of_all(reported: Path) -> None:
    found = results.read(CANDIDATES)
    for name in CANDIDATES:
        predictions = atomic.read_table(paths.predictions_file(name), ("label", "logit"))
        drawn = curves.curves(predictions["label"].to_numpy(), predictions["logit"].to_numpy(), bins=15)
        for kind, table in drawn.items():
            pd.testing.assert_frame_equal(found.table(name, kind), table.round(6).reset_index(drop=True))


@pytest.mark.parametrize(
    ("second", "difference", "p", "verdict", "sentence"),
    [
        ("single", 0.004, 0.01, "stacked is better, significant at α = 0.05", "of single"),
        ("single", -0.004, 0.01, "single is better, significant at α = 0.05", "which is significant at α = 0.05"),
        ("single", 0.004, 0.2, "the difference between stacked and single is not statistically significant", "p = 0.2"),
        (
            "single",
            0.004,
            0.05,
            "the difference between stacked and single is not statistically significant",
            "p = 0.05",
        ),
        ("ngrams", -0.05, 1e-9, "the n-gram classifier is better, significant at α = 0.05", "p < 0.0001, one seed)"),
        ("ngrams", -0.05, 0.5, "the difference between stacked and the n-gram classifier is not", "which is not stat"),
    ],
)
def test_a_difference_is_significant_only_below_alpha(
    reported: Path, second: str, difference: float, p: float, verdict: str, sentence: str
) -> None:
    found = results.read(CANDIDATES)
    pair = found.closest | {"second": second, "difference": difference, "mcnemar_p": p}
    assert rendering.verdict(pair).startswith(verdict)
    assert sentence in rendering.paired_sentence(found, pair)
