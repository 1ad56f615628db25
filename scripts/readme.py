"""Writes the figures in README.md anew from reports/: `make readme`."""

from pathlib import Path

from benchmarks import report as benchmark
from pipeline.project.errors import DataError
from pipeline.project.run_command import run_command
from pipeline.reporting import summary

README = Path("README.md")
PARTS = {"results": summary.markdown, "speed": benchmark.markdown}
"""What stands between `<!-- NAME -->` and `<!-- end of NAME -->`."""


def main() -> None:
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")


def renewed(text: str) -> str:
    """Returns README's text with the figures of the reports; raises DataError if a part or a report is missing."""
    for name, made in PARTS.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"\n<!-- end of {name} -->")
        if not (begin and end):
            raise DataError(f"{README} has no part between <!-- {name} --> and <!-- end of {name} -->")
        text = f"{before}{begin}{made()}{end}{after}"
    return text


if __name__ == "__main__":
    run_command(main)
