"""Text tables, as commands print them."""

from collections.abc import Sequence
from typing import Any


def table(rows: Sequence[Sequence[Any]], *, header: bool = True) -> str:
    """Returns `rows` as aligned columns without colours; with `header`, a rule under the first row.

    A cell stands as it is, on one line: neither cut nor wrapped, however narrow the terminal, and markup in it is text.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rule = Box("    \n    \n -- \n" + "    \n" * 5, ascii=True)
    grid = Table(box=rule, show_header=header, header_style="", show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    cells = [[Text(" ".join(str(cell).splitlines())) for cell in row] for row in rows]
    for title in cells[0]:
        grid.add_column(title, no_wrap=True)
    for row in cells[1:] if header else cells:
        grid.add_row(*row)
    console = Console(width=10**6, color_system=None, force_terminal=False, force_jupyter=False)
    with console.capture() as captured:
        console.print(grid)
    lines = [line.rstrip() for line in captured.get().strip("\n").split("\n")]
    if header:
        lines[1] = lines[1][: len(lines[0])]  # the last column may hold whole sentences
    return "\n".join(lines)
