"""Stage `report`: the page that shows everything, readable without a network."""

from pipeline.project.atomic import read_json, write_text
from pipeline.project.params import load_params
from pipeline.project.paths import RECURRENCE_REPORT, REGISTRY_REPORT, REPORT_PAGE
from pipeline.project.run_command import run_command
from pipeline.reporting import results
from pipeline.reporting.page import page


def main() -> None:
    """Writes the page from the reports."""
    params = load_params()
    found = results.read(params.candidates)
    registry = read_json(REGISTRY_REPORT, ("decision", "reason"))
    recurrence = read_json(RECURRENCE_REPORT, ("cells", "steps"))
    noise = results.read_noise(params)
    ablations = results.read_ablations(params)
    write_text(REPORT_PAGE, page(found, registry, recurrence, noise, ablations, params.dataset))
    print(f"report: {REPORT_PAGE}")


if __name__ == "__main__":
    run_command(main)
