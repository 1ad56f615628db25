"""Loading the code that a version of the model carries, beside that of other versions and of this project.

    scorer = load_scorer(folder)
    scorer.score(["A film that stays with you for days."]).label    # ["positive"]

It needs nothing beside it, so that it can be run from its file: `runpy.run_path(file)["load_scorer"](folder)`.
"""

import importlib
import importlib.util
import sys
import uuid
from pathlib import Path
from typing import Any


def load_scorer(folder: Path) -> Any:
    """Returns the `scorer.Scorer` of the served model in `folder`, of the code that lies there.

    The folder is a package: it is imported under a name that no other load has, nothing is written into it, and
    `sys.modules` is left as it was.

    Raises:
        Exception: whatever the code in the folder raises, or ImportError and OSError where it is not whole.
    """
    name = f"served_model_{uuid.uuid4().hex}"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    package = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.modules[name] = package
    try:
        spec.loader.exec_module(package)
        return importlib.import_module(f"{name}.scorer").Scorer(folder)
    finally:
        sys.dont_write_bytecode = before
        for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
            del sys.modules[module]
