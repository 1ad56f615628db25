"""The champion changes only by a decision: taken once, for a reason, and whatever is killed or moved."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, history
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.splits import split_reviews
from pipeline.registry import champion, evidence

NAME = "imdb-sentiment-sample"
PREAMBLE = f"""
import json, sys
from pathlib import Path
from pipeline.registry import evidence, champion, versions, verification
from pipeline.tracking import runs
from pipeline.project.errors import PipelineError
from pipeline.project.params import load_params
from pipeline.registry.challenge import register_trained
import trained_project
NAME = {NAME!r}
client = runs.connect()
def register(): return register_trained(load_params())
def refused(work):
    try: work()
    except PipelineError as error: return str(error)
def verify(): return [[problem.what, problem.mend] for problem in verification.verify(NAME, ["tiny", "ngrams"])]
def champion_now(): return versions.alias_version(client, NAME, "champion")
"""

Script = Callable[[str], Any]


def environment() -> dict[str, str]:
    others = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "DVC_", "SENTIMENT_"))
    }
    return others | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "MLFLOW_LOGGING_LEVEL": "WARNING"}


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in the folder."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=600
    )


def in_folder(folder: Path, code: str) -> Any:
    """Runs `code` after PREAMBLE in a process of its own; it leaves its result in `result`."""
    done = command(folder, "-c", f"{PREAMBLE}\n{code}\nprint('\\n' + json.dumps(result))")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a project as it stood with version 1 as champion (`one`), with a second model trained on new reviews but
    not registered (`two`), and with that promoted (`three`). MLflow keeps absolute paths, so each is of use in
    `project` alone."""
    folder = tmp_path_factory.mktemp("registry")
    project = folder / "project"
    project.mkdir()
    made = command(project, str(ROOT / "tests/trained_project.py"), str(project))
    assert made.returncode == 0, made.stderr[-3000:]
    steps = {
        "one": "trained_project.train('a'); result = register()",
        "two": "result = trained_project.train('b', new_reviews=5)",
        "three": "result = register()",
    }
    for name, code in steps.items():
        in_folder(project, code)
        subprocess.run(["cp", "-a", str(project), str(folder / name)], check=True)
    return folder


@pytest.fixture
def project(states: Path, request: pytest.FixtureRequest) -> Path:
    """The project in the state that the test's marker names, else with version 2 promoted over version 1."""
    marker = request.node.get_closest_marker("state")
    folder = states / "project"
    shutil.rmtree(folder)
    subprocess.run(["cp", "-a", str(states / (marker.args[0] if marker else "three")), str(folder)], check=True)
    return folder


def lines(project: Path) -> list[dict[str, Any]]:
    """The decisions of a history that is intact."""
    found = history(project, NAME)
    assert not found.problems
    return found.lines


def decided(project: Path) -> list[list[str | None]]:
    return [[line["decision"], line["from"], line["to"]] for line in lines(project)]


HISTORY = [["first", None, "1"], ["promoted", "1", "2"]]


def test_a_report_tells_what_led_to_the_champion_and_what_flipped(project: Path) -> None:
    report = in_folder(project, "result = register()")
    assert [[line["decision"], line["from"], line["to"]] for line in report["history"]] == HISTORY
    assert report["champion_made_from"] == report["challenger_made_from"]
    assert report["champion_made_from"]["version"] == report["champion"] == "2"
    assert report["against"]["made_from"]["version"] == "1"
    made = report["champion_by"]
    assert (made["decision"], made["to"], made["choice"]) == ("promoted", "2", "tiny is the only one.")
    files = list((project / "trained/b").iterdir())
    megabytes = sum(file.stat().st_size for file in files) / 1e6
    assert report["champion_made_from"]["serving"] == {"megabytes": round(megabytes, 3), "milliseconds": 0.5}
    rows = [report["against"]["made_from"]["rows"], report["champion_made_from"]["rows"]]
    assert rows == [{"train": 40, "validation": 20}, {"train": 45, "validation": 20}]
    assert report["week_ago"]["made_from"] is None  # the store is younger
    predictions = [pd.read_parquet(project / f"trained/{which}.parquet") for which in "ba"]
    challenger, champion = ((table["logit"] > 0) == table["label"] for table in predictions)
    flipped = report["against"]["flipped"]
    assert flipped["only_first_right"]["reviews"] == (challenger & ~champion).sum() > 0
    assert flipped["only_second_right"]["reviews"] == (champion & ~challenger).sum()
    texts = pd.read_parquet(project / "data/splits/test.parquet").set_index("id")["text"]
    for example in flipped["only_first_right"]["examples"]:
        assert example["text"][:100] == texts[example["id"]][:100]


def test_a_report_tells_who_was_champion_a_week_before(project: Path) -> None:
    report = in_folder(
        project,
        "from datetime import timedelta; from pipeline.registry import challenge; challenge._WEEK = timedelta(0); "
        "result = register()",
    )
    assert report["week_ago"]["made_from"] == report["champion_made_from"]


@pytest.mark.state("one")
def test_a_first_champion_has_nothing_before_it(project: Path) -> None:
    report = in_folder(project, "result = register()")
    assert report["against"] is None and len(report["history"]) == 1


def test_a_version_is_described_by_its_models_card_as_it_stands(project: Path) -> None:
    described = "result = [found.description for found in versions.all_versions(client, NAME).values()]"
    assert in_folder(project, described) == [
        f"# Model card of {model}\n\nTrained on CPU, no commit.\n" for model in "ab"
    ]
    (project / "reports/model_cards/tiny.md").write_text("# Measured anew\n")
    in_folder(project, "result = register()")
    assert in_folder(project, described) == [
        f"# {card}\n\nTrained on CPU, no commit.\n" for card in ("Model card of a", "Measured anew")
    ]


def test_the_registered_model_is_described_by_its_champion_and_the_decision(project: Path) -> None:
    description = "result = client.get_registered_model(NAME).description"
    _, promoted = lines(project)
    told = in_folder(project, description)
    assert "**Champion: version 2, tiny**" in told
    assert f"*promoted* on {promoted['when'][:10]}: {promoted['reason']}" in told
    assert "# Model card of b" in told
    measured = "runs.log_metrics(client.get_model_version(NAME, '1').run_id, {'test/accuracy': 0.75})"
    told = in_folder(project, f"{measured}; champion.rollback(NAME, 'it is rude'); {description}")
    assert "**Champion: version 1, tiny**, test accuracy 0.7500." in told
    assert re.search(r"\*rolled back\* on [\d-]+: it is rude", told)
    assert "# Model card of a" in told and "# Model card of b" not in told
    own = "client.update_registered_model(NAME, 'Ours.'); champion.promote(NAME, '2', 'mended')"
    assert in_folder(project, f"{own}; {description}") == "Ours."


def test_a_run_says_which_version_it_became(project: Path) -> None:
    code = "result = {n: client.get_run(v.run_id).data.tags['registered'] for n, v in found.items()}"
    assert in_folder(project, f"found = versions.all_versions(client, NAME); {code}") == {
        number: f"{NAME}/{number}" for number in "12"
    }


def test_every_decision_has_its_evidence(project: Path) -> None:
    first, second = lines(project)
    assert decided(project) == HISTORY
    assert second["evidence"]["figures"]["new_rows"] == 5
    assert second["evidence"]["figures"]["looks"] == 2
    assert set(second["evidence"]["figures"]["latency_ms"]) == {"challenger", "champion"}
    assert second["evidence"]["figures"]["behaviour"]["capabilities"][0]["capability"] == "names"
    assert second["previous"] == first["hash"]
    assert {"when", "who", "reason", "git_commit", "dvc_lock_sha256"} <= set(second)


def test_the_same_inputs_give_the_same_decision_and_change_nothing(project: Path) -> None:
    report, before = (project / "reports/registry.json").read_text(), lines(project)
    versions = in_folder(project, "register(); result = list(versions.all_versions(client, NAME))")
    assert len(versions) == 2
    assert (project / "reports/registry.json").read_text() == report
    assert lines(project) == before


@pytest.mark.state("one")
def test_a_model_that_is_only_as_good_and_learnt_from_nothing_new_is_kept_out(project: Path) -> None:
    in_folder(project, "trained_project.train('b'); result = register()")
    gate = command(project, "-m", "pipeline.cli", "registry", "gate")  # the decision stands already
    assert gate.returncode == 4, gate.stderr
    assert "no review that the champion has not" in gate.stdout
    assert decided(project) == [["first", None, "1"], ["kept", "1", "1"]]


@pytest.mark.state("two")
def test_on_another_test_set_the_champion_is_scored_anew(project: Path) -> None:
    for file in ("data/splits/test.parquet", "data/predictions/test/tiny.parquet"):
        table = pd.read_parquet(project / file)
        table.iloc[:40].to_parquet(project / file, index=False)
    figures = in_folder(project, "result = register()['evidence']['figures']")
    expected = pd.read_parquet(project / "trained/a.parquet").iloc[:40]
    assert figures["reviews"] == 40
    assert figures["looks"] == 2  # whichever test set the first was at
    assert figures["accuracy"]["champion"] == ((expected["logit"] > 0) == expected["label"]).mean()


@pytest.mark.state("two")
def test_with_other_behavioural_tests_both_are_scored_on_them(project: Path) -> None:
    file = project / "behaviour/names.yaml"
    file.write_text(file.read_text().replace("Omar", "Ivan").replace("names", "own"))
    report = in_folder(project, "result = register()")
    found = report["evidence"]["figures"]["behaviour"]
    assert [one["capability"] for one in found["capabilities"]] == ["own"]
    assert report["evidence"]["behaviour_sha256"] != lines(project)[0]["evidence"]["behaviour_sha256"]


GUARD = """
text,label
A fine film.,positive
A bad film.,negative
"""


@pytest.mark.state("two")
def test_an_evaluation_set_with_a_guard_is_part_of_the_decision(project: Path) -> None:
    (project / "data/evaluation_sets").mkdir(parents=True)
    (project / "data/evaluation_sets/own.csv").write_text(GUARD.strip())
    params = project / "params.yaml"
    entry = "{own: {file: own.csv, guard: 0.5}}"
    params.write_text(params.read_text().replace("evaluation_sets: {}", f"evaluation_sets: {entry}"))
    evidence = in_folder(project, "result = register()")["evidence"]
    (found,) = evidence["figures"]["evaluation_sets"]
    assert (found["evaluation_set"], found["reviews"], found["margin"]) == ("own", 2, 0.5)
    assert set(evidence["guards_sha256"]) == {"own"}


EDITED = """
def edited(name, before, after):
    "Replaces `before` by `after` in a file of the candidate."
    file = Path("served/tiny", name)
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
"""


def test_a_fix_of_the_served_code_takes_over_without_another_look(project: Path) -> None:
    before = lines(project)[-1]["evidence"]["figures"]["looks"]
    report = in_folder(
        project,
        f"""{EDITED}
edited("tokenizer.py", "class SubwordTokenizer:", "# mended\\nclass SubwordTokenizer:")
register()
result = register() | {{"alias": champion_now(), "problems": verify()}}
""",
    )
    assert decided(project) == [*HISTORY, ["updated", "2", "3"]]
    assert (report["decision"], report["champion"], report["alias"], report["problems"]) == ("updated", "3", "3", [])
    assert "It has the weights of version 2 and other code or settings; on the test reviews the" in report["reason"]
    assert "figures" not in report["evidence"]
    again = in_folder(project, "trained_project.train('c', new_reviews=3); result = register()")
    assert again["evidence"]["figures"]["looks"] == before + 1


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_calibration_takes_over_where_it_is_one(project: Path, factor: float) -> None:
    file = project / "data/predictions/test/tiny.parquet"
    logit = pd.read_parquet(file)["logit"] * factor
    pd.read_parquet(file).assign(logit=logit, probability=1 / (1 + np.exp(-logit))).to_parquet(file, index=False)
    weight = f"{EDITED}\nedited('settings.json', '\"network\": 1.0', '\"network\": {factor}')"
    report = in_folder(project, f"{weight}\nresult = register()")
    assert report["challenger"] == "3"
    validation = pd.read_parquet(project / "data/splits/validation.parquet")
    scores = in_folder(
        project,
        "import pandas as pd\nvalidation = pd.read_parquet('data/splits/validation.parquet')\n"
        "from pipeline.registry import evidence\n"
        "result = evidence.score(f'models:/{NAME}/2', validation)[0]['logit'].tolist()",
    )
    losses = [log_loss(validation["label"].to_numpy(), np.array(scores) * scale) for scale in (1, factor)]
    assert (report["decision"] == "updated") == (losses[1] < losses[0])
    if report["decision"] == "updated":
        assert "all labels of the test reviews are the same, and on validation its log loss is" in report["reason"]
    else:
        assert report["decision"] == "kept" and report["evidence"]["figures"]["accuracy"]["challenger"]


def log_loss(label: np.ndarray, logit: np.ndarray) -> float:
    return float(np.logaddexp(0, np.where(label == 1, -logit, logit)).mean())


def test_another_threshold_is_measured_like_any_challenger(project: Path) -> None:
    threshold = f"{EDITED}\nedited('settings.json', '\"threshold\": 0.5', '\"threshold\": 0.0')"
    report = in_folder(project, f"{threshold}\nresult = register()")
    assert (report["decision"], report["challenger"]) == ("kept", "3")
    assert "no review that the champion has not" in report["reason"] and report["evidence"]["figures"]["looks"] == 3


@pytest.mark.state("one")
def test_a_version_from_before_the_code_was_part_of_it_is_replaced_without_a_look(project: Path) -> None:
    report = in_folder(project, 'client.delete_model_version_tag(NAME, "1", versions.SERVED); result = register()')
    assert decided(project) == [HISTORY[0], ["updated", "1", "2"]]
    assert "the largest difference of a probability is 0" in report["reason"]


@pytest.mark.state("two")
@pytest.mark.parametrize(
    "wrong",
    [
        EDITED + "edited('scorer.py', 'encode_batch(texts, self._max_tokens)', 'encode_batch(texts)')",
        EDITED + "edited('settings.json', '\"network\": 1.0', '\"network\": 1.01')",
        "import shutil\nshutil.copy('trained/c/network.onnx', 'served/tiny')",
    ],
    ids=["texts not truncated", "another weight", "another network"],
)
def test_what_does_not_score_as_it_was_tested_is_not_registered(project: Path, wrong: str) -> None:
    refusal, there = in_folder(
        project, f"{wrong}\nresult = [refused(register), list(versions.all_versions(client, NAME))]"
    )
    assert "gives probabilities that differ by" in refusal and "from those of the stage `test`" in refusal
    assert there == ["1"]


TWO_CANDIDATES = """
import shutil
from pipeline.project import atomic, paths
trained_project.train("b", new_reviews=5)
Path("params.yaml").write_text(Path("params.yaml").read_text().replace("[tiny]", "[tiny, blend]"))
for of in (paths.candidate_folder, paths.train_reports):
    shutil.copytree(of("tiny"), of("blend"))
for of in (paths.predictions_file, paths.model_card_file, paths.run_file):
    shutil.copy(of("tiny"), of("blend"))
trained_project.train("c")
def choose(name):
    choice = {"chosen": name, "best": "tiny", "reason": f"{name} is cheaper."}
    choice |= {"standings": [{"name": name, "milliseconds": 0.5}]}
    atomic.write_json(paths.COMPARISON_REPORT, {"best": name, "choice": choice})
"""


@pytest.mark.state("one")
def test_of_several_candidates_the_chosen_one_alone_becomes_a_version(project: Path) -> None:
    report, models = in_folder(
        project,
        f"""{TWO_CANDIDATES}
choose("blend")
result = [register(), {{number: one.tags["model"] for number, one in versions.all_versions(client, NAME).items()}}]
""",
    )
    assert models == {"1": "tiny", "2": "blend"}
    assert (report["challenger"], report["version"]["model"], report["choice"]["chosen"]) == ("2", "blend", "blend")
    assert lines(project)[-1]["evidence"]["choice"] == "blend is cheaper."


def test_a_version_that_was_rolled_back_sets_no_bar(project: Path) -> None:
    accuracy = {
        which: float(((table["logit"] > 0) == table["label"]).mean())
        for which in "ab"
        for table in [pd.read_parquet(project / f"trained/{which}.parquet")]
    }
    assert accuracy["a"] > accuracy["b"], "or the bar would be the champion's own"
    report = in_folder(
        project,
        "champion.promote(NAME, '1', 'a try'); champion.rollback(NAME, 'worse in use')\n"
        "trained_project.train('c', new_reviews=3); result = register()",
    )
    assert report["evidence"]["champion"] == report["evidence"]["best_ever"] == "2"
    assert set(report["evidence"]["figures"]["against"]) == {"champion"}


@pytest.mark.state("one")
def test_a_challenger_that_is_better_on_fresh_reviews_alone_is_promoted(project: Path) -> None:
    report = in_folder(project, "trained_project.train('b', fresh_reviews=60); result = register()")
    fresh = report["evidence"]["figures"]["fresh"]
    assert (fresh["reviews"], fresh["counts"], fresh["accuracy"]["challenger"]) == (60, True, 1.0)
    assert report["decision"] == "promoted" and "On fresh reviews it is significantly better" in report["reason"]
    assert report["evidence"]["figures"]["new_rows"] == 0


@pytest.mark.state("one")
def test_fresh_reviews_that_the_champion_has_trained_on_do_not_count(project: Path) -> None:
    fresh = pd.read_parquet(project / "data/splits/train.parquet")
    fresh["text"] = fresh["text"].str.upper() + " <br />"
    report = in_folder(
        project,
        f"""
import io, pandas as pd
pd.read_json(io.StringIO({fresh.to_json()!r})).to_parquet("data/splits/fresh.parquet")
trained_project.train('b'); result = register()
""",
    )
    assert report["evidence"]["figures"]["fresh"] is None and report["decision"] == "kept"


@pytest.mark.state("one")
def test_an_experiment_that_was_tested_is_a_look(project: Path) -> None:
    code = """
run = trained_project.train('c')
client.set_tag(run, "dvc.experiment", "wide-otter")
runs.log_metrics(run, {"test/accuracy": 0.5})
trained_project.train('b', new_reviews=3)
result = register()["evidence"]["figures"]["looks"]
"""
    assert in_folder(project, code) == 3


def test_what_was_rolled_back_comes_back_by_hand_alone(project: Path) -> None:
    result = in_folder(
        project,
        """
champion.rollback(NAME, "too slow")
kept = register()
result = [kept["decision"], kept["reason"], champion_now(), register() == kept]
champion.promote(NAME, "2", "faster now")
result += [champion_now(), register()["reason"], champion.promote(NAME, "champion", "again"), verify()]
""",
    )
    assert result[0] == "kept" and "rolled back" in result[1] and "too slow" in result[1]
    assert result[2:] == ["1", True, "2", "faster now", None, []]
    assert decided(project) == [*HISTORY, ["rolled back", "2", "1"], ["kept", "1", "1"], ["promoted", "1", "2"]]


def test_an_alias_moved_by_hand_is_noticed_and_can_be_entered(project: Path) -> None:
    result = in_folder(
        project,
        """
client.set_registered_model_alias(NAME, "champion", "1")
result = [verify(), refused(register), refused(lambda: champion.rollback(NAME, "why"))]
champion.promote(NAME, "1", "I meant it")
result += [champion_now(), verify()]
client.delete_registered_model_alias(NAME, "champion")
result += [verify()[0][0]]
""",
    )
    for message in (result[0][0][0], result[1], result[2]):
        assert "the alias champion points at version 1, but by the last decision the champion is version 2" in message
    assert "registry promote" in result[0][0][1]
    assert result[3:5] == ["1", []]
    assert "points nowhere" in result[5]
    assert lines(project)[-1]["evidence"]["alias_was"] == "1"


def test_files_that_are_gone_or_changed_are_told_and_such_a_version_is_never_promoted(project: Path) -> None:
    result = in_folder(
        project,
        """
import shutil
version = client.get_model_version(NAME, "1")
logged = client.get_logged_model(version.source.removeprefix("models:/"))
folder = Path(logged.artifact_location.removeprefix("file://"))
settings = next(folder.rglob("settings.json"))
settings.write_text(settings.read_text() + " ")
result = [verify(), refused(lambda: champion.promote(NAME, "1", "why"))]
shutil.rmtree(folder)
result += [verify(), refused(lambda: champion.rollback(NAME, "why")), champion_now()]
""",
    )
    for message in (result[0][0][0], result[1]):
        assert "are not those registered" in message
    for message in (result[2][0][0], result[3]):
        assert "are missing" in message
    assert result[4] == "2"


def test_runs_and_outputs_without_each_other_are_told(project: Path) -> None:
    result = in_folder(
        project,
        """
import shutil
from pipeline.project.paths import run_file
root = Path("mlartifacts")
(root / ("0" * 32)).mkdir()
(root / ("0" * 32) / "curve").write_text("")
(root / ("1" * 32)).mkdir()
stray = client.create_run(runs.experiment_id(client), run_name="stray")
for name, kind in (("lost", runs.TRAINING), ("nightly", "retrain")):
    made = client.create_run(runs.experiment_id(client), run_name=name, tags={runs.KIND: kind})
    client.set_terminated(made.info.run_id)
import subprocess
dead = subprocess.run([sys.executable, "-c", '''
import os, mlflow
from pipeline.tracking import runs
with runs.training_run("tiny", None, {"model": "tiny"}, {}):
    os.kill(os.getpid(), 9)
'''])
record = run_file("tiny")
shutil.copy(record, run_file("ngrams"))
record.write_text(record.read_text().replace(json.loads(record.read_text())["run_id"], "f" * 32))
Path("models/tiny/weights.npz").unlink()
result = verify()
""",
    )
    expected = [
        ("though its process is gone", "marks it KILLED"),
        ("(stray) is RUNNING and says of no process", "mlflow runs delete"),
        ("(lost) has lost its outputs", "mlflow runs delete"),
        ("000 holds the outputs of a run that is not in the store", "remove the folder"),
        ("runs/tiny.json names run fff", "--single-item register"),
        ("models/tiny/weights.npz does not exist", "dvc checkout models/tiny`"),
        ("served/ngrams does not exist", "dvc checkout served/ngrams`"),
    ]
    found = {what: [problem for problem in result if what in problem[0]] for what, _ in expected}
    assert all(len(problems) == 1 for problems in found.values()), result
    assert len(result) == len(expected), result
    for what, mend in expected:
        assert mend in found[what][0][1]


TIDY = """
import subprocess
def mlflow(*arguments):
    subprocess.run([sys.executable, "-m", "mlflow", *arguments], check=True, capture_output=True)
def gc(): mlflow("gc", "--backend-store-uri", "sqlite:///mlflow.db", "--tracking-uri", "sqlite:///mlflow.db")
def run_of(number): return client.get_model_version(NAME, number).run_id
def collect(number):
    client.delete_logged_model(client.get_model_version(NAME, number).source.removeprefix("models:/"))
    client.delete_run(run_of(number))
    gc()
"""


def test_a_former_champion_whose_run_and_files_were_collected_is_registered_anew(project: Path) -> None:
    result = in_folder(
        project,
        TIDY
        + """
collect("1")
result = [verify()]
trained_project.train("a", new_reviews=3)
result += [register()["decision"], champion_now()]
client.delete_model_version(NAME, "1")
result += [verify()]
""",
    )
    files, run = result[0]
    assert files[0].startswith("version 1: the files of") and run[0].startswith("version 1 belongs to run")
    assert all("or delete the version in MLflow's UI" in mend for _, mend in (files, run))
    assert result[1:] == ["promoted", "3", []]


@pytest.mark.state("two")
def test_a_champion_that_cannot_be_measured_names_the_way_out_and_it_works(project: Path) -> None:
    result = in_folder(
        project,
        TIDY
        + """
collect("1")
result = [refused(register)]
champion.promote(NAME, "2", "the other one has no files")
result += [register()["decision"], champion_now(), [what for what, _ in verify() if "version 2" in what]]
""",
    )
    assert "the champion, version 1, cannot be measured" in result[0]
    assert "`sentiment registry promote` another version" in result[0]
    assert result[1:] == ["promoted", "2", []]


def test_a_run_in_the_trash_is_restored_from_there(project: Path) -> None:
    result = in_folder(
        project,
        TIDY
        + """
client.delete_run(run_of("2"))
result = [verify(), run_of("2")]
mlflow(*result[0][0][1].strip("`").split()[1:])
result += [verify()]
""",
    )
    found, run_id, afterwards = result
    assert [what.endswith(f"run {run_id}, which is in MLflow's trash") for what, _ in found] == [True, True]
    assert {mend for _, mend in found} == {f"`mlflow runs restore --run-id {run_id}`"} and afterwards == []


def test_an_experiment_that_was_renamed_makes_no_orphans_and_is_named_back(project: Path) -> None:
    result = in_folder(
        project,
        TIDY
        + """
client.rename_experiment(runs.experiment_id(client), "mine")
runs.connect.cache_clear()
client = runs.connect()
result = [verify()]
for command in result[0][0][1].split("`")[1::2]:
    mlflow(*command.split()[1:])
result += [verify(), register()["decision"]]
""",
    )
    found, *afterwards = result
    assert len(found) == 3 and all("in the experiment mine, which was imdb-sentiment" in what for what, _ in found)
    assert not any("remove" in mend or "delete" in mend for _, mend in found)
    assert afterwards == [[], "promoted"]


def test_verify_advises_nothing_that_a_registered_version_would_miss(project: Path) -> None:
    result = in_folder(
        project,
        TIDY
        + """
import shutil
reopened, collected = run_of("2"), run_of("1")
client.update_run(reopened, "RUNNING")
client.delete_tag(reopened, "process.host")
held = Path(client.get_run(collected).info.artifact_uri.removeprefix("file://"))
shutil.copytree(held, "aside")
client.delete_run(collected)
gc()
shutil.copytree("aside", held)
result = verify()
client.set_terminated(reopened)
shutil.rmtree(Path("mlartifacts") / reopened)
result += verify()
""",
    )
    (running,) = [problem for problem in result if "is RUNNING" in problem[0]]
    assert "set_terminated" in running[1]
    (lost,) = [problem for problem in result if "has lost its outputs" in problem[0]]
    assert lost[1] == "put its files back from a backup of mlartifacts/"
    assert not any("runs delete" in mend or "remove the folder" in mend for _, mend in result)


@pytest.mark.state("one")
def test_a_champion_that_was_deleted_is_told_and_the_remedy_makes_one(project: Path) -> None:
    result = in_folder(
        project,
        """
from pipeline.serving import models
client.delete_model_version(NAME, "1")
result = [verify(), refused(lambda: models.load(None)), refused(lambda: champion.rollback(NAME, "why"))]
result += [refused(register)]
champion.promote(NAME, "2", "it is the same")
result += [champion_now(), verify(), register()["decision"]]
""",
    )
    ((what, mend),) = result[0]
    assert "has no champion: version 1" in what and "--single-item register` registers what is trained here" in mend
    assert result[1] == result[2] == f"{what}; {mend}"
    assert "makes one of the versions 2 champion" in result[3]
    assert result[4:] == ["2", [], "promoted"]


def test_the_commands_answer_in_a_sentence_and_with_an_exit_code(project: Path) -> None:
    result = in_folder(
        project,
        """
import contextlib, io
from pipeline import cli
def sentiment(*arguments):
    sys.argv = ["sentiment", "registry", *arguments]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try: cli.main()
        except SystemExit as exit: return [exit.code, printed.getvalue()]
result = [sentiment("list"), sentiment("show", "champion"), sentiment("history", "--json"),
    sentiment("promote", "9", "--reason", "why"), sentiment("promote", "1", "--reason", " ")]
result += [sentiment("verify")]
""",
    )
    listed, shown, decisions, unknown, unexplained, verified = result
    assert listed[0] == 0 and "champion" in listed[1] and "promoted" in listed[1]
    assert shown[0] == 0 and f"{NAME} 2" in shown[1] and "weights_sha256" in shown[1]
    assert decisions[0] == 0 and json.loads(decisions[1].splitlines()[1])["decision"] == "promoted"
    assert unknown[0] == 2 and "there are versions 1, 2 and aliases challenger, champion" in unknown[1]
    assert unexplained[0] == 2 and "--reason is empty" in unexplained[1]
    assert verified == [0, "decisions, aliases, versions, runs and outputs agree\n"]
    assert decided(project) == HISTORY


def twice_at_once(project: Path, *arguments: str) -> list[tuple[str, int]]:
    """Runs `sentiment registry …` in two processes; returns what each printed, and its exit code."""
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "registry", *arguments],
            cwd=project,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    return [(process.communicate(timeout=120)[0], process.returncode) for process in both]


def test_of_two_promotions_at_once_one_wins(project: Path) -> None:
    answers = twice_at_once(project, "promote", "1", "--reason", "why")
    assert {code for _, code in answers} == {0}
    # The second finds it done, or, where it came before the alias was moved, completes it.
    done = ["champion already" in printed or "promoted: version 2 → 1" in printed for printed, _ in answers]
    assert done == [True, True] and not all("champion already" in printed for printed, _ in answers)
    assert decided(project) == [*HISTORY, ["promoted", "2", "1"]]


@pytest.mark.state("two")
def test_of_two_registrations_at_once_one_version_comes(project: Path) -> None:
    answers = twice_at_once(project, "gate")
    assert {code for _, code in answers} <= {0, 75} and 0 in {code for _, code in answers}, answers
    assert in_folder(project, "result = list(versions.all_versions(client, NAME))") == ["1", "2"]
    assert decided(project) == HISTORY


@pytest.mark.parametrize(
    ("state", "action", "ends"),
    [
        ("two", ("register", "model_version_tags"), HISTORY),
        ("three", ("promote",), [*HISTORY, ["promoted", "2", "1"]]),
        ("three", ("rollback",), [*HISTORY, ["rolled back", "2", "1"]]),
    ],
)
def test_killed_after_any_side_effect_the_next_run_completes_it(
    states: Path, project: Path, state: str, action: tuple[str, ...], ends: list[list[str | None]]
) -> None:
    kills = kill_everywhere(states, project, state, *action)
    assert len(kills) >= 3
    for kill in kills:
        assert kill["killed"] == -9
        assert kill["between"]["champion"] in ("1", "2")  # and its files are whole
        assert kill["after"] == {"versions": ["1", "2"], "champion": ends[-1][2], "decisions": ends}, kill
        assert kill["problems"] == []
    refused = [kill["side_effect"] for kill in kills if kill["refused"]]
    # Once a rollback is done, and its description too, another would go further back than there is to go.
    assert refused == (["model_version_tags", "registered_models"] if action == ("rollback",) else [])


def test_killed_while_logging_a_model_the_next_run_logs_it_once(states: Path, project: Path) -> None:
    kills = kill_everywhere(states, project, "two", "log")
    assert {"logged_model_tags", "file", "logged_models"} <= {kill["side_effect"] for kill in kills}
    for kill in kills:
        assert kill["killed"] == -9 and kill["refused"] is None
        ((status, files_sha256),) = kill["returned"].values()  # one model alone
        assert status == "READY" and len(files_sha256) == 64
        assert kill["problems"] == []


def kill_everywhere(states: Path, project: Path, state: str, *arguments: str) -> list[dict[str, Any]]:
    done = command(project, str(ROOT / "tests/kill_everywhere.py"), str(states / state), *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


READER = """
import json, mlflow, pandas as pd
from pathlib import Path
from pipeline.tracking import runs
mlflow.set_tracking_uri(runs.tracking_uri())
review = pd.read_parquet("data/splits/test.parquet")[["text"]].head(1)
scores = []
while not Path("swapped").exists():
    model = mlflow.pyfunc.load_model("models:/imdb-sentiment-sample@champion")
    scores.append([model.metadata.run_id, float(model.predict(review)["logit"].iloc[0])])
    if len(scores) == 1: print("reading", flush=True)
print(json.dumps(scores))
"""

SWAPS = """
for _ in range(100):
    champion.promote(NAME, "1", "to")
    champion.rollback(NAME, "fro")
result = {version.run_id: version.version for version in versions.all_versions(client, NAME).values()}
"""


def test_a_reader_of_champion_never_fails_nor_sees_a_mix_during_200_swaps(project: Path) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-c", READER],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert reader.stdout is not None and reader.stdout.readline() == "reading\n"
    try:
        version_of_run = in_folder(project, SWAPS)
    finally:
        (project / "swapped").touch()
        printed, errors = reader.communicate(timeout=120)
    assert reader.returncode == 0, errors[-3000:]
    expected = {
        str(version): float(pd.read_parquet(project / f"trained/{model}.parquet")["logit"].iloc[0])
        for version, model in ((1, "a"), (2, "b"))
    }
    seen = [(str(version_of_run[run_id]), logit) for run_id, logit in json.loads(printed)]
    for version, logit in seen:
        assert logit == pytest.approx(expected[version], abs=1e-5)
    assert {version for version, _ in seen} == {"1", "2"}
    assert len(lines(project)) == 202


@given(st.lists(st.sampled_from("1234"), min_size=1, max_size=12), st.integers(0, 12))
def test_rollbacks_retrace_the_promotions(versions: list[str], back: int) -> None:
    expected: list[str] = []
    lines = []
    for version in versions:
        lines.append({"decision": "promoted", "from": expected[-1] if expected else None, "to": version})
        if expected[-1:] != [version]:
            expected.append(version)
    for _ in range(min(back, len(expected) - 1)):
        goal = champion.promoted(lines)[-2]
        lines.append({"decision": "rolled back", "from": expected.pop(), "to": goal})
        assert goal == expected[-1]
    assert champion.promoted(lines) == expected


def test_another_draw_of_the_validation_split_brings_no_new_rows(reviews: pd.DataFrame) -> None:
    train, test = reviews.iloc[:500], reviews.iloc[500:600]

    def rows(seed: int, known: pd.DataFrame) -> pd.DataFrame:
        tables, _ = split_reviews(known, test, known.head(0), validation_fraction=0.2, fresh_rows=0, seed=seed)
        return evidence.training_rows(tables["train"], tables["validation"])

    more = pd.concat([train, reviews.iloc[600:650]], ignore_index=True)
    assert evidence.new_rows(rows(2, train), rows(1, train)) == 0
    assert 0 < (evidence.new_rows(rows(2, more), rows(1, train)) or 0) <= 50
    assert evidence.new_rows(rows(2, more), None) is None
    assert evidence.rows_digest(rows(1, train)) == evidence.rows_digest(rows(1, train).iloc[::-1])


def test_a_review_without_its_label_is_no_review_that_the_champion_knows(reviews: pd.DataFrame) -> None:
    train, validation, unlabelled = reviews.iloc[:50], reviews.iloc[50:60], reviews.iloc[60:90][["id", "text"]]
    champion = evidence.training_rows(train, validation, unlabelled)
    challenger = evidence.training_rows(reviews.iloc[:80], validation)
    assert evidence.new_rows(challenger, champion) == 20
    assert evidence.rows_digest(champion) == evidence.rows_digest(evidence.training_rows(train, validation))
    # For a fair comparison on held-out reviews it is one all the same: their texts were learnt from.
    assert evidence.unknown(reviews.iloc[55:95], [champion]).sum() == 5


def test_a_test_set_is_its_ids_labels_and_texts(reviews: pd.DataFrame) -> None:
    some = reviews.head(20)
    shuffled, changed = some.sample(frac=1, random_state=0), some.copy()
    changed.loc[3, "text"] += " "
    assert evidence.reviews_digest(some) == evidence.reviews_digest(shuffled)
    assert evidence.reviews_digest(some) != evidence.reviews_digest(changed)
    assert len(evidence.reviews_digest(some)) == len(hashlib.sha256().hexdigest())
