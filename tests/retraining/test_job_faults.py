"""What goes wrong around the scheduled job is reported, and costs nothing but the one run."""

import base64
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from conftest import edit_params
from mlflow import MlflowClient
from retraining_fixtures import age_champion, champions, drop, mlflow_runs, outcomes, records, rows, verified
from retraining_project import NAME, reviews
from warm import Warm

pytestmark = pytest.mark.e2e


@pytest.fixture
def project(job_project: Path) -> Path:
    """The job's project in the state that the test's marker names, not conftest's empty one."""
    return job_project


def test_a_damaged_report_fails_the_run_and_once_it_is_mended_the_next_one_goes_on(project: Path, warm: Warm) -> None:
    report = project / "reports/runs/tiny.json"
    content = report.read_text()
    report.write_text(content[:20])
    drop(project, reviews(30))
    done = warm.run(project, "retrain")
    assert done.code == 3 and "runs/tiny.json" in done.out
    report.write_text(content)
    assert warm.run(project, "retrain").code == 0
    assert outcomes(project) == ["PROMOTED", "FAILED", "PROMOTED"] and champions(project) == ["1", "2"]


def test_a_refused_file_keeps_no_other_from_being_trained_on_and_is_reported(project: Path, warm: Warm) -> None:
    stars = reviews(10, 700).assign(label=[1, 2, 3, 4, 5] * 2)
    drop(project, stars, "stars.csv")
    drop(project, reviews(30), "usable.csv")
    sent = project.parent / "sent"
    done = warm.run(project, "retrain", SENTIMENT_NOTIFY_COMMAND=f"cat > {sent}")
    assert done.code == 0 and outcomes(project)[-1] == "PROMOTED" and len(rows(project)) == 30
    assert "stars.csv: refused as a whole: its labels are of another scale" in sent.read_text()
    assert len(records(project)[-1]["refused"]) == 1
    drop(project, stars, "again.csv")
    done = warm.run(project, "retrain")
    assert done.code == 3 and "nothing was trained: no trigger fires" in done.out and len(rows(project)) == 30
    assert outcomes(project)[-1] == "FAILED" and warm.run(project, "retrain").code == 0


def test_a_record_that_cannot_be_read_is_reported(project: Path, warm: Warm) -> None:
    (project / "reports/retrain/000001.json").write_text("{")
    sent = project / "printed-sent"
    done = warm.run(project, "retrain", SENTIMENT_NOTIFY_COMMAND=f'(echo "$SENTIMENT_OUTCOME"; cat) > {sent}')
    assert done.code == 3 and "000001.json" in sent.read_text() and sent.read_text().startswith("FAILED\n")


def test_a_new_store_gets_a_champion_again(project: Path, warm: Warm) -> None:
    (project / "mlflow.db").unlink()
    done = warm.run(project, "retrain")
    assert done.code == 0 and "it will be registered anew" in done.out, done.out
    assert "Running stage 'train'" not in done.out
    assert outcomes(project) == ["PROMOTED", "PROMOTED"] and records(project)[-1]["champion_after"] == "1"
    assert warm.run(project, "retrain").code == 0 and outcomes(project)[-1] == "SKIPPED"


def test_a_champion_that_was_deleted_is_no_idle_run(project: Path, warm: Warm) -> None:
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    client.delete_model_version(NAME, "1")
    done = warm.run(project, "retrain")
    assert done.code == 1 and outcomes(project)[-1] == "FAILED", done.out
    assert f"error: {NAME} has no champion: version 1, which is it by the last decision, was deleted" in done.out
    assert warm.run(project, "registry", "gate").code == 1  # registers what is trained here
    assert warm.run(project, "registry", "promote", "2", "--reason", "the same").code == 0
    assert warm.run(project, "retrain").code == 0 and outcomes(project)[-1] == "SKIPPED"
    assert verified(warm, project)


@pytest.mark.parametrize("claimed_path", ["reports/train/tiny", "data/labelled/reviews"])
def test_what_a_dvc_claimed_that_is_gone_keeps_nobody_from_running(
    project: Path, warm: Warm, claimed_path: str
) -> None:
    claimed = {"pid": 1, "cmd": "dvc repro"}  # a number that after a reboot is another's
    claims = {"read": {}, "write": {str(project / claimed_path): claimed}}
    (project / ".dvc/tmp/rwlock").write_text(json.dumps(claims))
    drop(project, reviews(30))
    done = warm.run(project, "retrain")
    assert done.code == 0 and outcomes(project) == ["PROMOTED", "PROMOTED"], done.out


def test_a_full_disk_loses_nothing(project: Path, warm: Warm) -> None:
    drop(project, reviews(10))
    done = warm.run(project, "retrain", largest_file=9_000)
    assert done.code != 0
    assert "could not be written" in done.out, done.out
    assert (project / "data/incoming/new.csv").exists() and rows(project).empty
    assert warm.run(project, "retrain").code == 0
    assert len(rows(project)) == 10 and champions(project) == ["1"]


def test_little_space_is_reported_before_anything_is_done(project: Path, warm: Warm) -> None:
    edit_params(project, retrain__min_free_gb=1e9)
    file = drop(project, reviews(10))
    done = warm.run(project, "retrain")
    assert done.code == 1 and "GB are free at" in done.out and "retrain.min_free_gb asks for" in done.out
    assert file.exists() and outcomes(project)[-1] == "FAILED"


def test_a_damaged_file_is_kept_the_job_ends_with_3_and_the_next_run_goes_on(project: Path, warm: Warm) -> None:
    drop(project, b"PAR1 torn", "torn.parquet")
    drop(project, reviews(10))
    done = warm.run(project, "retrain")
    assert done.code == 3 and "torn.parquet" in done.out and "is not a Parquet file" in done.out
    assert len(rows(project)) == 10  # the other file was taken in
    assert warm.run(project, "retrain").code == 0
    assert outcomes(project)[1:] == ["FAILED", "SKIPPED"] and champions(project) == ["1"]


def test_a_flood_of_contradictions_stops_before_training(project: Path, warm: Warm) -> None:
    known = reviews(60, start=48)  # the training reviews of the project
    drop(project, known.assign(label=1 - known["label"]))
    assert "decision: fail: data/incoming/new.csv" in warm.run(project, "retrain", "--dry-run").out
    done = warm.run(project, "retrain", "--force")
    assert done.code == 3 and "contradict a label that their text has" in done.out
    assert "Running stage" not in done.out and rows(project).empty


def test_ten_thousand_bad_rows_are_quarantined(project: Path, warm: Warm) -> None:
    drop(project, b"text,label\n" + b"Fine.,maybe\n" * 10_000)
    done = warm.run(project, "retrain")
    assert done.code == 0 and "10,000 quarantined" in done.out
    (file,) = (project / "data/quarantine").iterdir()
    assert len(file.read_text().splitlines()) == 10_000


def test_a_tracking_server_that_is_away_is_reported_and_caught_up_with(project: Path, warm: Warm) -> None:
    drop(project, reviews(10))
    done = warm.run(project, "retrain", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.code == 1 and "cannot be used" in done.out and "the next run does it" in done.out
    assert len(rows(project)) == 10
    assert warm.run(project, "retrain").code == 0
    assert [run["retrain.outcome"] for run in mlflow_runs(project)] == ["PROMOTED", "FAILED", "SKIPPED"]


def test_a_password_in_the_tracking_uri_is_used_and_written_nowhere(project: Path, warm: Warm) -> None:
    seen: set[str] = set()
    pinged: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/ping"):
                pinged.append(self.path)
                self.send_response(200)
                self.end_headers()
            else:
                seen.add(self.headers.get("Authorization", ""))
                self.send_error(401)

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    drop(project, reviews(10))
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://ann:s3cret@127.0.0.1:{server.server_port}"
        env = os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(project)}
        command = [sys.executable, "-m", "pipeline.cli", "retrain", "--commit"]
        env["SENTIMENT_PING_URL"] = f"http://127.0.0.1:{server.server_port}/ping"
        env["SENTIMENT_NOTIFY_COMMAND"] = f"cat > {project.parent / 'sent'}"
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True)
        idle = subprocess.run([*command[:-1], "--max-minutes", "1"], cwd=project, env=env | {"MLFLOW_TRACKING_URI": ""})
        server.shutdown()
    assert idle.returncode == 0 and pinged == ["/ping/start", "/ping/fail", "/ping/start", "/ping"]
    assert done.returncode == 1 and f"http://127.0.0.1:{server.server_port} cannot be used" in done.stderr
    assert seen == {f"Basic {base64.b64encode(b'ann:s3cret').decode()}"}
    assert warm.run(project, "retrain", "--commit").code == 0
    committed = subprocess.run(["git", "log", "--patch", "--all"], cwd=project, capture_output=True, text=True).stdout
    assert "reports/retrain/000002.json" in committed
    written = [done.stdout, done.stderr, committed, (project.parent / "sent").read_text()]
    written += [file.read_bytes().decode(errors="replace") for file in project.rglob("*") if file.is_file()]
    assert not [text[:200] for text in written if "s3cret" in text or "ann:" in text]


def test_a_damaged_store_is_notified_and_once_it_is_mended_the_next_run_goes_on(project: Path, warm: Warm) -> None:
    store, sent = project / "mlflow.db", project / "printed-sent"
    content = store.read_bytes()
    store.write_bytes(os.urandom(100) + content[100:])
    drop(project, reviews(30))
    done = warm.run(project, "retrain", SENTIMENT_NOTIFY_COMMAND=f"cat > {sent}")
    assert done.code == 1 and "Traceback" not in done.out
    assert "mlflow.db is damaged" in sent.read_text() and "`sentiment registry restore`" in sent.read_text()
    store.write_bytes(content)
    assert warm.run(project, "retrain").code == 0
    assert outcomes(project) == ["PROMOTED", "FAILED", "PROMOTED"] and verified(warm, project)


def test_a_lost_store_comes_back_from_its_backup_with_the_decisions_since(project: Path, warm: Warm) -> None:
    drop(project, reviews(30))
    assert warm.run(project, "retrain", "--commit").code == 0
    assert warm.run(project, "retrain").code == 0 and outcomes(project)[-1] == "SKIPPED"
    assert warm.run(project, "registry", "promote", "1", "--reason", "after the backup").code == 0
    assert warm.run(project, "registry", "gate").code == 0  # promotes version 2 again, and writes both down for git
    before = champions(project)
    (project / "mlflow.db").unlink()
    done = warm.run(project, "registry", "restore")
    assert done.code == 0 and "decisions that were appended again: 2" in done.out, done.out
    assert champions(project) == [*before, "2"] == ["1", "2", "1", "2", "2"] and verified(warm, project)
    assert warm.run(project, "retrain", "--commit").code == 0
    assert outcomes(project) == ["PROMOTED", "PROMOTED", "SKIPPED", "SKIPPED"]


def test_the_store_is_backed_up_when_it_changed(project: Path, warm: Warm) -> None:
    def backups() -> list[str]:
        return sorted(file.name for file in (project / "mlflow.db.backups").iterdir())

    assert backups() == ["000001.db"]
    assert warm.run(project, "retrain").code == 0 and outcomes(project)[-1] == "SKIPPED"
    assert backups() == ["000001.db"]
    drop(project, reviews(30))
    assert warm.run(project, "retrain").code == 0 and outcomes(project)[-1] == "PROMOTED"
    assert backups() == ["000001.db", "000002.db"]
    shutil.rmtree(project / "mlflow.db.backups")
    (project / "mlflow.db.backups").write_text("no folder")
    done = warm.run(project, "retrain")
    assert done.code == 0 and "warning: the store is not backed up; the next run does it" in done.out, done.out


def test_a_copied_project_trains_and_deletes_in_its_own_folder_alone(project: Path, warm: Warm) -> None:
    def files(folder: Path) -> dict[str, bytes]:
        return {str(file): file.read_bytes() for file in [folder / "mlflow.db", *folder.glob("mlartifacts/**/*.*")]}

    copy = project.parent / "copied project"
    shutil.rmtree(copy, ignore_errors=True)
    subprocess.run(["cp", "-a", str(project), str(copy)], check=True)
    before = files(project)
    drop(copy, reviews(30))
    done = warm.run(copy, "retrain")
    assert done.code == 0, done.out
    with sqlite3.connect(copy / "mlflow.db") as database:
        database.execute("update runs set start_time = start_time - 200 * 86400000")
    assert "runs are past their time" in warm.run(copy, "retrain").out
    assert files(project) == before
    shutil.rmtree(project / "mlartifacts")
    assert champions(copy) == ["1", "2"] and verified(warm, copy)


def test_a_server_that_accepts_and_never_answers_is_notified_within_half_a_minute(project: Path, warm: Warm) -> None:
    sent = project / "printed-sent"
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = warm.run(project, "retrain", MLFLOW_TRACKING_URI=uri, SENTIMENT_NOTIFY_COMMAND=f"cat > {sent}")
    assert time.monotonic() - began < 30
    assert done.code == 1 and f"{uri} cannot be used" in sent.read_text()


def test_a_store_in_a_folder_that_is_not_there_is_wrong_usage_and_makes_nothing(project: Path, warm: Warm) -> None:
    sent = project / "printed-sent"
    done = warm.run(
        project, "retrain", MLFLOW_TRACKING_URI="sqlite:///nowhere/db", SENTIMENT_NOTIFY_COMMAND=f"cat > {sent}"
    )
    assert done.code == 2 and "there is no folder" in sent.read_text()
    assert not (project / "nowhere").exists() and len(records(project)) == 1


def test_a_conflict_in_git_is_reported_before_anything_is_done(project: Path, warm: Warm) -> None:
    def git(*arguments: str) -> int:
        return subprocess.run(["git", *arguments], cwd=project, capture_output=True).returncode

    lock = project / "dvc.lock"
    git("checkout", "-b", "theirs")
    lock.write_text(lock.read_text() + "# theirs\n")
    git("commit", "--all", "--message", "theirs")
    git("checkout", "-")
    lock.write_text(lock.read_text() + "# ours\n")
    git("commit", "--all", "--message", "ours")
    assert git("merge", "theirs") != 0
    file = drop(project, reviews(10))
    done = warm.run(project, "retrain")
    assert done.code == 1 and "git has conflicts in dvc.lock; resolve them first" in done.out
    assert file.exists() and len(records(project)) == 1
    assert git("merge", "--abort") == 0
    assert warm.run(project, "retrain").code == 0


def test_commit_asks_for_a_clean_tree(project: Path, warm: Warm) -> None:
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# edited\n")
    done = warm.run(project, "retrain", "--commit")
    assert done.code == 2 and "--commit needs a clean tree" in done.out and "params.yaml" in done.out
    assert len(records(project)) == 1


def test_commit_asks_for_a_branch_and_for_a_git_that_works(project: Path, warm: Warm) -> None:
    subprocess.run(["git", "checkout", "--quiet", "--detach"], cwd=project, check=True)
    done = warm.run(project, "retrain", "--commit")
    assert done.code == 2 and "HEAD is detached; `git switch` to a branch first" in done.out
    done = warm.run(project, "retrain", "--commit", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
    assert done.code == 2 and "--commit needs git: git ls-files failed: fatal: detected dubious ownership" in done.out
    assert len(records(project)) == 1
    assert warm.run(project, "retrain", GIT_TEST_ASSUME_DIFFERENT_OWNER="1").code == 0


def test_a_commit_that_fails_leaves_the_rest_as_it_was_decided(project: Path, warm: Warm) -> None:
    (project / ".git/index.lock").touch()
    drop(project, reviews(10))
    done = warm.run(project, "retrain", "--commit")
    assert done.code == 0 and "warning: nothing was committed: git" in done.out and "index.lock" in done.out
    (project / ".git/index.lock").unlink()
    drop(project, reviews(5, 600), "later.csv")
    assert warm.run(project, "retrain", "--commit").code == 0
    assert not subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True).stdout


def test_a_clock_that_went_backwards_changes_no_order(project: Path, warm: Warm) -> None:
    age_champion(project, days=400)
    record = project / "reports/retrain/000001.json"
    record.write_text(record.read_text().replace('"begun": "20', '"begun": "21'))
    drop(project, reviews(10))
    os.utime(project / "data/incoming/new.csv", (5e9, 5e9))
    done = warm.run(project, "retrain")
    assert done.code == 0 and "a clock went backwards" in done.out
    assert len(rows(project)) == 10 and outcomes(project) == ["PROMOTED", "SKIPPED"]


def test_what_is_past_its_time_goes_and_what_was_promoted_stays(project: Path, warm: Warm) -> None:
    edit_params(project, retrain__retention__records=2)
    for _ in range(3):
        assert warm.run(project, "retrain").code == 0
    assert [record["run"] for record in records(project)] == [2, 3, 4]
    with sqlite3.connect(project / "mlflow.db") as database:
        database.execute("update runs set start_time = start_time - 200 * 86400000")
    planned = warm.run(project, "retrain", "--dry-run").out
    assert "1 records, 0 versions and 4 runs are past their time" in planned
    assert warm.run(project, "retrain").code == 0
    assert [tags["retrain.run"] for tags in mlflow_runs(project)] == ["5"]
    assert champions(project) == ["1"] and verified(warm, project)


def test_of_a_shared_cache_nothing_is_dropped_nor_of_what_a_sweep_uses(project: Path, warm: Warm) -> None:
    def unused(project: Path) -> int:
        return int(re.search(r"after a training, (\d+) objects", warm.run(project, "retrain", "--dry-run").out)[1])

    cache, clone = project / ".dvc/cache", project / ".sweep"
    subprocess.run(["git", "clone", "--quiet", str(project), str(clone)], check=True)
    (clone / ".dvc/config.local").write_text(f"[cache]\n    dir = {cache}\n")
    (clone / "only-there").write_text("what a training left")
    subprocess.run([sys.executable, "-m", "dvc", "add", "--quiet", "only-there"], cwd=clone, check=True)
    assert unused(project) == 0
    shutil.rmtree(clone)
    assert unused(project) == 1
    (project / ".dvc/config.local").write_text(f"[cache]\n    dir = {shutil.move(cache, project.parent / 'shared')}\n")
    assert unused(project) == 0
    assert "lies outside this checkout" in (project / "printed").read_text()


def test_an_experiment_of_dvc_is_no_place_for_it(project: Path, warm: Warm) -> None:
    done = warm.run(project, "retrain", DVC_EXP_NAME="wide-otter")
    assert done.code == 2 and "wide-otter is a DVC experiment" in done.out
