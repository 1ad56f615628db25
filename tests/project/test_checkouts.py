"""What git says of this folder, and that a git that fails is not taken for none."""

import subprocess
from pathlib import Path

import pytest
from conftest import FAILING_GIT

from pipeline.project import checkouts, provenance
from pipeline.project.checkouts import Head
from pipeline.project.errors import PipelineError


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def project_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project as a sub-folder of a larger repository, with one commit."""
    folder = tmp_path / "repository" / "project"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    (folder / "params.yaml").touch()
    git("-C", "..", "init", "--quiet", "--initial-branch", "main")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return folder


def test_a_sub_folder_of_a_repository_has_its_commit(project_of_a_repository: Path) -> None:
    assert checkouts.head() == Head(git("rev-parse", "HEAD"), "main")
    git("checkout", "--quiet", "--detach")
    assert checkouts.head() == Head(git("rev-parse", "HEAD"), None)
    assert provenance.git_commit() == git("rev-parse", "HEAD")


def test_without_a_repository_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")  # and git is not asked
    assert checkouts.head() is None and provenance.git_commit() is None


def test_a_repository_without_a_commit_has_a_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet", "--initial-branch", "main")
    Path("params.yaml").touch()
    assert checkouts.head() is None  # not tracked yet
    git("add", ".")
    assert checkouts.head() == Head(None, "main")


def test_a_copy_that_the_repository_ignores_is_not_what_its_commit_holds(
    project_of_a_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project_of_a_repository / ".gitignore").write_text("/copy/\n")
    (project_of_a_repository / "copy").mkdir()
    monkeypatch.chdir(project_of_a_repository / "copy")
    Path("params.yaml").touch()
    assert checkouts.head() is None


@pytest.mark.parametrize(("variable", "value", "reason"), FAILING_GIT)
def test_a_git_that_fails_says_why_and_is_not_taken_for_none(
    project_of_a_repository: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    reason: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(PipelineError, match=reason):
        checkouts.head()
    provenance.warn.cache_clear()
    assert provenance.git_commit() is None
    assert reason in capfd.readouterr().err
