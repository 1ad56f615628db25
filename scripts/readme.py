"""Writes the figures and the graph of the stages in README.md anew: `make readme`."""

from pathlib import Path

from benchmarks import report as benchmark
from pipeline.project.checkouts import dvc
from pipeline.project.errors import DataError
from pipeline.project.run_command import run_command
from pipeline.reporting import summary

README = Path("README.md")


def main() -> None:
    """Writes README.md; raises DataError as `renewed` does."""
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")


def renewed(text: str) -> str:
    """Returns README's text with the figures of the reports; raises DataError if a part or a report is missing."""
    for name, made in PARTS.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        if not (begin and end):
            raise DataError(f"{README} has no part between <!-- {name} --> and <!-- end of {name} -->")
        text = f"{before}{begin}{made()}\n{end}{after}"
    return text


def stages() -> str:
    """Returns `dvc dag --collapse-foreach-matrix` as a Mermaid chart, without the arrows that others imply."""
    import networkx as nx

    printed = dvc("dag", "--collapse-foreach-matrix", "--dot")
    arrows = [line.strip(" ;").replace('"', "").split(" -> ") for line in printed.splitlines() if "->" in line]
    needed = nx.transitive_reduction(nx.DiGraph(arrows))
    return "\n".join(["```mermaid", "flowchart LR", *sorted(f"    {a} --> {b}" for a, b in needed.edges), "```"])


PARTS = {"results": summary.markdown, "stages": stages, "speed": benchmark.markdown}
"""What stands between `<!-- NAME -->` and `<!-- end of NAME -->`."""


if __name__ == "__main__":
    run_command(main)
