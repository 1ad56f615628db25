"""What people decided about labels: `data/labelled/verdicts.csv`, one line a verdict, appended and never changed.

Git holds the file, and the stage `split` depends on its folder. A verdict is about a text, whatever its id: the last
one on it counts, for all its copies. `turn` says that the label it was given with is wrong, `drop` that the text has
none that is right, `keep` that the label is right after all.
"""

import csv
import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.data.copies import key
from pipeline.project.atomic import write_text
from pipeline.project.errors import DataError, one_line
from pipeline.project.paths import VERDICTS

if TYPE_CHECKING:
    import pandas as pd

KEEP, TURN, DROP = "keep", "turn", "drop"


def _name(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("it must be a name, on one line")
    return text


class Verdict(BaseModel):
    """One line: the review that somebody read (`id`, for readers), its text's identity (`text_digest`), the label that
    it had, what became of it, who said so and when."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    text_sha256: str = Field(pattern="^[0-9a-f]{16}$")
    label: int = Field(ge=0, le=1)
    verdict: Literal["keep", "turn", "drop"]
    who: Annotated[str, AfterValidator(_name)]
    when: AwareDatetime


_COLUMNS = list(Verdict.model_fields)


def text_digest(text: str) -> str:
    """Returns the first 64 bits of the SHA-256 of the text's key, as hexadecimal digits: copies share it."""
    return hashlib.sha256(key(text).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_verdicts(file: Path = VERDICTS) -> dict[str, Verdict]:
    """Returns the verdict that counts on each text, by `text_sha256`; none where there is no file.

    Raises:
        DataError: the file is something else, or a line is no verdict; the message names the line and the field.
    """
    if not file.exists():
        return {}
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            rows = [(reader.line_num, row) for row in reader]
            header = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read: {one_line(error)}") from None
    if header != _COLUMNS:
        raise DataError(f"{file}: the first line must be {','.join(_COLUMNS)}, found {','.join(header) or 'nothing'}")
    found = (_parsed(file, number, row) for number, row in rows)
    return {verdict.text_sha256: verdict for verdict in found}


def _parsed(file: Path, number: int, row: dict[str, str | None]) -> Verdict:
    where = f"{file}: line {number}"
    if None in row:
        raise DataError(f"{where} has more fields than the first line")
    try:
        return Verdict.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        raise DataError(f"{where}: {first['loc'][0]} {first['input']!r}: {reason}") from None


def append(verdict: Verdict, file: Path = VERDICTS) -> None:
    """Adds a line; raises DataError if the file is not one of verdicts, which then stays as it is."""
    read_verdicts(file)
    written = io.StringIO(newline="")
    writer = csv.writer(written, lineterminator="\n")
    if not file.exists():
        writer.writerow(_COLUMNS)
    writer.writerow(verdict.model_dump(mode="json").values())
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    write_text(file, before + ("" if not before or before.endswith("\n") else "\n") + written.getvalue())


def obeyed(reviews: "pd.DataFrame", verdicts: dict[str, Verdict]) -> tuple["pd.DataFrame", dict[str, int]]:
    """Returns training reviews (text, label) with labels turned and rows dropped as the verdicts say, and how many of
    each."""
    decided = _decided(reviews, verdicts)
    turned, dropped = decided["verdict"] == TURN, decided["verdict"] == DROP
    label = reviews["label"].where(~turned, 1 - decided["given"]).astype(reviews["label"].dtype)
    counts = {"turned": int((label != reviews["label"]).sum()), "dropped": int(dropped.sum())}
    return reviews.assign(label=label)[~dropped], counts


def corrections(reviews: "pd.DataFrame", verdicts: dict[str, Verdict]) -> "pd.DataFrame":
    """Returns what the verdicts say of test reviews (id, text, label), whose labels nobody changes: id and
    `corrected_label` of those that would be turned, -1 of those that would be dropped."""
    decided = _decided(reviews, verdicts)
    corrected = reviews["label"].where(decided["verdict"] != TURN, 1 - decided["given"])
    corrected = corrected.where(decided["verdict"] != DROP, -1).astype("int8")
    changed = corrected != reviews["label"]
    return reviews.loc[changed, ["id"]].assign(corrected_label=corrected[changed]).reset_index(drop=True)


def _decided(reviews: "pd.DataFrame", verdicts: dict[str, Verdict]) -> "pd.DataFrame":
    """Returns for each review the verdict on its text, "" where there is none, and the label that it was given with."""
    import pandas as pd

    if not verdicts:
        return pd.DataFrame({"verdict": "", "given": 0}, index=reviews.index)
    digests = reviews["text"].map(text_digest)
    return pd.DataFrame(
        {
            "verdict": digests.map({digest: one.verdict for digest, one in verdicts.items()}).fillna(""),
            "given": digests.map({digest: one.label for digest, one in verdicts.items()}).fillna(0).astype("int64"),
        }
    )
