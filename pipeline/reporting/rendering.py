"""Templates filled in: HTML with everything escaped, Markdown with what would break a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.reporting import results

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Returns the template of this name filled with `values`; one that ends in `.html` escapes them all but SVG that
    is marked as such (`markupsafe.Markup`). A name that a template misspells is an error."""
    return _environment().get_template(template).render(values)


def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(enabled_extensions=("html",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": "{:,}".format,
        "fixed": _fixed,
        "percent": _percent,
        "span": _span,
        "tiny": results.tiny,
        "named": results.named,
        "words": _words,
        "cell": _cell,
    }
    return environment


def _fixed(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}"


def _percent(value: float, digits: int = 1) -> str:
    return f"{value:.{digits}%}"


def _span(interval: Sequence[float], digits: int = 4) -> str:
    return f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cell(text: str) -> str:
    """Makes `text` fit a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
