"""The texts in a request: JSON as MLflow's clients send it. No message repeats what a request holds."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.served_model.tokenizer import why_unusable
from pipeline.serving.server.refusals import RefusedRequest

COLUMN = "text"
FORMATS = ("dataframe_split", "dataframe_records", "inputs", "instances")
_SPLIT_KEYS = ("columns", "data", "index")
_JSON_TYPES = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}


def read_json(body: bytes) -> Any:
    """Returns what the JSON `body` says; raises RefusedRequest where it is none, or an object has a key twice."""
    try:
        return json.loads(body.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError:
        raise RefusedRequest("the request is not JSON that can be read: it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise RefusedRequest(f"the request is not JSON in UTF-8: byte {error.start} does not belong there") from None
    except ValueError as error:
        raise RefusedRequest(f"the request is not JSON: {error}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RefusedRequest("an object of the request has a key twice")
    return found


def texts_of(payload: Any) -> Sequence[Any]:
    """Returns the value of the column `text` in each row of a request, whatever it is.

    `dataframe_split` has columns and data; `dataframe_records` is a list of objects; `inputs` and `instances` are a
    list of texts, a list of objects, or an object of one list a column. Other columns do not matter.

    Raises:
        RefusedRequest: the request has another shape, another key, or no column `text`.
    """
    if not isinstance(payload, dict) or len(payload) != 1 or (name := next(iter(payload))) not in FORMATS:
        raise RefusedRequest(f"the request must be a JSON object with exactly one key, of {', '.join(FORMATS)}")
    content = payload[name]
    if name == "dataframe_split":
        return _of_split(content)
    if isinstance(content, dict) and name != "dataframe_records":
        column = _value(content, f"{name} has")
        return column if isinstance(column, list) else [column]
    if not isinstance(content, list):
        raise RefusedRequest(f"{name} must be a list with one entry a review")
    if name == "dataframe_records" or any(isinstance(row, dict) for row in content):
        return [_value(row, f"row {number}: it has") for number, row in enumerate(content)]
    return content


def _of_split(content: Any) -> Sequence[Any]:
    columns, data = (content.get(key) if isinstance(content, dict) else None for key in ("columns", "data"))
    if not isinstance(columns, list) or not isinstance(data, list) or content.keys() - set(_SPLIT_KEYS):
        raise RefusedRequest(
            'dataframe_split must have a list "columns", a list "data" of rows, and at most an "index"'
        )
    if columns.count(COLUMN) != 1:
        raise RefusedRequest(f"dataframe_split must have one column {COLUMN!r}; it has {columns.count(COLUMN)}")
    for number, row in enumerate(data):
        if not isinstance(row, list) or len(row) != len(columns):
            raise RefusedRequest(f"row {number}: it is not a list of {len(columns)} values, one a column")
    place = columns.index(COLUMN)
    return [row[place] for row in data]


def _value(holder: Any, which: str) -> Any:
    if not isinstance(holder, Mapping):
        raise RefusedRequest(f"{which} no {COLUMN!r}: it is not an object")
    if COLUMN not in holder:
        raise RefusedRequest(f"{which} no {COLUMN!r}")
    return holder[COLUMN]


def texts_in(body: bytes) -> Sequence[Any]:
    """Returns what `texts_of` finds in the JSON `body`; raises as it and `read_json` do."""
    return texts_of(read_json(body))


def usable(texts: Sequence[Any]) -> list[str]:
    """Returns `texts`; raises RefusedRequest at the first that cannot be scored, with its row, counted from 0."""
    for row, text in enumerate(texts):
        if type(text) in _JSON_TYPES and text == text:  # NaN, which is not itself, is a missing text
            raise RefusedRequest(f"row {row}: the text is not a string but {_JSON_TYPES[type(text)]}")
        if reason := why_unusable(text):
            raise RefusedRequest(f"row {row}: {reason}")
    return list(texts)
