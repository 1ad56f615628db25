"""What a scheduler is given is what its own tool accepts, and calls the job as an operator would."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from ruamel.yaml import YAML

DEPLOY = ROOT / "deploy"


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not on this machine")


@needs("systemd-analyze")
def test_systemd_accepts_services_and_timer(tmp_path: Path) -> None:
    for environment in (".venv", ".serving"):
        program = tmp_path / environment / "bin/sentiment"
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    units = []
    for unit in DEPLOY.glob("sentiment-*"):
        units.append(tmp_path / unit.name)
        units[-1].write_text(unit.read_text().replace("/srv/sentiment", str(tmp_path)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True)
    ours = [line for line in done.stderr.splitlines() if "sentiment-" in line]
    assert not ours, done.stderr
    calendar = re.search(r"OnCalendar=(.*)", (DEPLOY / "sentiment-retrain.timer").read_text())
    assert calendar
    assert not subprocess.run(["systemd-analyze", "calendar", calendar[1]], capture_output=True).returncode


def test_github_accepts_the_workflow() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, str(DEPLOY / "github-actions.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("logrotate")
def test_logrotate_accepts_its_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules"
    rules.write_text(re.sub(r"(?m)^ *(su|create) .*\n", "", (DEPLOY / "logrotate.conf").read_text()))
    rules.chmod(0o644)
    done = subprocess.run(["logrotate", "--debug", str(rules)], capture_output=True, text=True)
    assert done.returncode == 0 and "error:" not in done.stderr, done.stderr


def cron_line() -> list[str]:
    """The crontab's one job: five fields of time and the command."""
    lines = [line for line in (DEPLOY / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    (job,) = [line for line in lines if not re.match(r"\w+=", line)]
    return job.split(maxsplit=5)


@needs("crontab")
def test_cron_accepts_the_crontab() -> None:
    done = subprocess.run(["crontab", "-n", str(DEPLOY / "crontab")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("code", "mailed"), [(0, ""), (4, ""), (75, ""), (1, "retraining ended with 1:\nit says why\n")]
)
def test_crons_command_is_silent_unless_somebody_has_to_look(tmp_path: Path, code: int, mailed: str) -> None:
    assert "%" not in cron_line()[5]  # which cron would make a line break of
    program = tmp_path / ".venv/bin/sentiment"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho it says why\nexit {code}\n")
    program.chmod(0o755)
    (tmp_path / "logs").mkdir()
    command = cron_line()[5].replace("/srv/sentiment", str(tmp_path))
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0 if code in (0, 4, 75) else code, mailed)
    assert (tmp_path / "logs/retrain.log").read_text() == "it says why\n"


def test_the_workflows_step_succeeds_where_nothing_is_wrong(tmp_path: Path) -> None:
    workflow = YAML(typ="safe").load((DEPLOY / "github-actions.yml").read_text())
    (script,) = [step["run"] for step in workflow["jobs"]["retrain"]["steps"] if step.get("name") == "Retrain"]
    program = tmp_path / ".venv/bin/sentiment"
    program.parent.mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    ends = {}
    for code in (0, 1, 3, 4, 75):
        program.write_text(f"#!/bin/sh\nexit {code}\n")
        program.chmod(0o755)
        ends[code] = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, capture_output=True).returncode
    assert json.dumps(ends) == json.dumps({0: 0, 1: 1, 3: 3, 4: 0, 75: 0})
