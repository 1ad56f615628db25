"""Python imports this at its start where the folder is on PYTHONPATH: it notes which files a DVC stage opens.

One line a file in OPENED_FILES, `<stage> <file>`; processes that the stage starts count as the stage.
"""

import os
import sys

LOG, STAGE = os.environ.get("OPENED_FILES"), os.environ.get("DVC_STAGE")
seen: set[str] = set()


def note(event: str, arguments: tuple) -> None:
    if event != "open" or not isinstance(arguments[0], str) or "pipeline" not in arguments[0]:
        return
    name = os.path.abspath(arguments[0])  # noqa: PTH100 (no import of pathlib while Python starts)
    if name not in seen:
        seen.add(name)
        os.write(log, f"{STAGE} {name}\n".encode())


if LOG and STAGE:
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sys.addaudithook(note)
