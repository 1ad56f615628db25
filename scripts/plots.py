"""Makes the pages of `dvc plots show` and `dvc plots diff` need no network: `make plots`, and `make` sets it up anyway.

DVC's own page loads Vega, which draws the figures, from the network. The page that this makes carries Vega, so what DVC
writes is one file that opens anywhere. The page and the setting that names it are the checkout's own and not in git;
without them DVC writes its own page.
"""

from pathlib import Path

import vl_convert

from pipeline.project.checkouts import dvc

ROOT = Path(__file__).resolve().parent.parent
PAGE = "plots/page.html"
"""Where it lies in .dvc/, from where DVC takes it."""
VEGA_LITE = "5.21"
"""DVC's templates and those in .dvc/plots/ are written for version 5."""
HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>DVC plots</title>
<style>body { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 32px; margin: 32px; }</style>
<script>(() => {
{vega}
})();</script>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    prepare(ROOT)


def prepare(folder: Path) -> None:
    """Makes `dvc plots` write pages that carry Vega in the DVC project at `folder`."""
    page = HTML.replace("{vega}", vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed", VEGA_LITE))
    (folder / ".dvc" / PAGE).write_text(page, encoding="utf-8")
    dvc("config", "--quiet", "--local", "plots.html_template", PAGE, folder=folder)


if __name__ == "__main__":
    main()
