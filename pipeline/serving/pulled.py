"""A registered model's files, brought here and kept: what `sentiment predict` and `score` score with.

Which version a URI names is asked at each call; its files are in a cache, checked by their digest. Where the store does
not answer, the version that it named last serves.
"""

import atexit
import json
import os
import shutil
import sys
import tempfile
from hashlib import sha256
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from pipeline.project.atomic import atomic_write, read_json, write_json
from pipeline.project.errors import DataError, PipelineError, UsageError
from pipeline.registry import model_files
from pipeline.serving import lookup
from pipeline.serving.lookup import NAMED, NoAnswer, Version
from pipeline.tracking import runs

_KEPT = 3
"""Versions of a model that stay in the cache."""
_ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"
_SCORE = """\
import sys
from served_model.scorer import Scorer
for label, probability, *_ in zip(*Scorer().score(sys.argv[1:])): print(f"{label} {probability:.4f}")
"""
_REQUIREMENTS, _NEEDED = "requirements.txt", ("numpy", "onnxruntime")


def model(uri: str) -> Path:
    """Returns the folder with the files of the model that `uri` names: a path, or any URI that MLflow takes.

    Raises:
        UsageError: there is no such model.
        PipelineError: the store does not answer, and nothing was pulled before; or the files are missing or not those
            that were registered.
    """
    if path := _path(uri):
        return path
    if not NAMED.fullmatch(uri):
        return _downloaded(uri)
    try:
        version = lookup.find(uri)
    except NoAnswer as silent:
        version = _last_named(uri, silent)
        print(f"warning: {silent}; version {version.number}, which was named last, is used", file=sys.stderr)
        return _folder(version)
    return of_version(version, uri)


def of_version(version: Version, uri: str) -> Path:
    """Returns the folder with the files of `version`, and remembers that `uri` named it; raises PipelineError as
    `model` does."""
    if version.sha256 is None:  # another project's: nothing says what its files should be
        return _downloaded(version.location)
    folder, pointer = _folder(version), _pointer(uri)
    if not _is_whole(folder, version):
        if not _is_writable(folder):
            return _require_whole(_downloaded(version.location), version)
        with atomic_write(folder) as aside:
            _bring(version.location, aside)
            _require_whole(aside, version)
        _forget_all_but_the_newest(folder.parent)
    named = {"number": version.number, "sha256": version.sha256}
    if _is_writable(pointer) and _named_last(pointer) != named:
        write_json(pointer, named)
    return folder


def served_model(folder: Path) -> Path | None:
    """Returns the folder `served_model` of a model in `folder`; None where it is no model that carries one, as those
    that were registered before there was such a folder, and those of others."""
    places = (folder / "artifacts/served_model", folder / "served_model", folder)
    return next((place for place in places if (place / "loading.py").exists()), None)


def pull(uri: str, out: Path) -> None:
    """Writes the served model that `uri` names to the folder `out`, with a `score.py` that scores its arguments, and
    `requirements.txt`. It needs neither this project nor a registry.

    Raises:
        UsageError: as in `model`; or there is something else at `out`.
        PipelineError: as in `model`; or the model carries no such folder.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "served_model").is_dir())):
        raise UsageError(f"{out} holds something else; give --output the name of a new folder")
    folder = model(uri)
    source = served_model(folder)
    if source is None:
        raise PipelineError(f"{uri} was registered before versions carried what is needed to score without TensorFlow")
    with atomic_write(out) as aside:
        shutil.copytree(source, aside / "served_model", ignore=shutil.ignore_patterns("__pycache__"))
        (aside / "score.py").write_text(_SCORE, encoding="utf-8")
        made_with = folder / _REQUIREMENTS
        pins = made_with.read_text(encoding="utf-8").split() if made_with.exists() else _NEEDED
        needed = (f"{pin}\n" for pin in pins if pin.partition("==")[0] in _NEEDED)
        (aside / _REQUIREMENTS).write_text("".join(needed), encoding="utf-8")


def _path(uri: str) -> Path | None:
    parts = urlsplit(uri)
    path = Path(unquote(parts.path)) if parts.scheme == "file" else Path(uri)
    return path if path.is_dir() else None


def _cache() -> Path:
    """Returns the folder of the cache: beside a SQLite store, else among the user's."""
    if file := runs.sqlite_file():
        return file.with_name(f"{file.name}.pulled")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user / "sentiment-pipeline" / sha256(runs.tracking_uri().encode()).hexdigest()[:16]


def _folder(version: Version) -> Path:
    # A number may be given again, once its version was deleted.
    return _cache() / quote(version.name, safe="") / f"{version.number}-{str(version.sha256)[:16]}"


def _pointer(uri: str) -> Path:
    return _cache() / f"{quote(uri.removeprefix('models:/'), safe='@')}.json"


def _last_named(uri: str, silent: NoAnswer) -> Version:
    """Returns the version that `uri` named when the store answered last; raises `silent` if its files are not here."""
    named, last = NAMED.fullmatch(uri), _named_last(_pointer(uri))
    assert named
    if last is None:
        raise silent
    version = Version(named["name"], last["number"], "", last["sha256"])
    if not _is_whole(_folder(version), version):
        raise silent
    return version


def last_named(uri: str) -> str | None:
    """Returns the number of the version that `uri` named when the store answered last, None where it never did."""
    last = _named_last(_pointer(uri))
    return last["number"] if last else None


def _named_last(pointer: Path) -> dict[str, str] | None:
    try:
        return read_json(pointer, ("number", "sha256"))
    except DataError:
        return None


def _is_whole(folder: Path, version: Version) -> bool:
    return folder.is_dir() and model_files.digest(folder) == version.sha256


def _require_whole(folder: Path, version: Version) -> Path:
    if not _is_whole(folder, version):
        raise PipelineError(
            f"the files of version {version.number} of {version.name} ({version.location}) are not those that were "
            "registered"
        )
    return folder


def _is_writable(path: Path) -> bool:
    """Whether `path` can be made: the store may be mounted to be read alone."""
    return os.access(next(folder for folder in path.parents if folder.exists()), os.W_OK)


def _forget_all_but_the_newest(folder: Path) -> None:
    for old in sorted(folder.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def _downloaded(location: str) -> Path:
    """Returns a copy of the files at `location`, for this process."""
    folder = Path(tempfile.mkdtemp(prefix="sentiment-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _bring(location, folder / "model")
    return folder / "model"


def _bring(location: str, folder: Path) -> None:
    """Copies the files at `location` to the new `folder`: from a path, from the tracking server's own artifacts, or by
    MLflow in a process of its own."""
    if path := _path(location):
        shutil.copytree(path, folder)
        return
    parts, server = urlsplit(location), runs.tracking_uri()
    if parts.scheme in ("", "file"):
        raise PipelineError(f"the model's files are missing: there is no {location} here")
    if parts.scheme == "mlflow-artifacts" and not parts.netloc and server.startswith(("http://", "https://")):
        folder.mkdir(parents=True)
        with lookup.told(server):
            _bring_of_server(server, parts.path.strip("/"), folder)
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
        shutil.copytree(lookup.download(location, Path(aside)), folder)


def _bring_of_server(server: str, path: str, folder: Path) -> None:
    with lookup.opened(server, _ARTIFACTS, path=path) as answer:
        listed = json.load(answer)["files"]
    for entry in listed:
        name = str(entry["path"])
        if PurePosixPath(name).name != name or name in ("", ".", ".."):
            raise ValueError(f"it lists the file {name!r}")
        if entry.get("is_dir"):
            (folder / name).mkdir()
            _bring_of_server(server, f"{path}/{name}", folder / name)
            continue
        with lookup.opened(server, f"{_ARTIFACTS}/{path}/{name}") as content, (folder / name).open("wb") as file:
            shutil.copyfileobj(content, file)
