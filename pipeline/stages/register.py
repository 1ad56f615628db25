"""Stage `register`: every trained model becomes a version in the registry; the gate decides who is champion."""

from typing import Any

from pipeline import gate, registration, restoration, tracking, views
from pipeline.artifacts import REGISTRY_REPORT, model_card_file, read_text, write_json
from pipeline.errors import run_command
from pipeline.params import load_params
from pipeline.registry import Candidate


def main() -> None:
    register()


def register() -> dict[str, Any]:
    """Registers, decides, writes and prints the report, and returns it."""
    params = load_params()
    views.save(tracking.connect())
    candidates = []
    for name in params.models:
        run_id, record, _ = restoration.recorded_run(name)
        candidates.append(
            Candidate(
                model=name,
                run_id=run_id,
                weights_sha256=record["weights_sha256"],
                val_accuracy=record["metrics"]["best_val_accuracy"],
                val_loss=record["metrics"]["best_val_loss"],
            )
        )
    report = registration.register(
        params.dataset,
        candidates,
        cards={name: read_text(model_card_file(name)) for name in params.models},
        max_tokens=params.tokenize.max_tokens,
        params=params.gate,
        seed=params.seed,
    )
    write_json(REGISTRY_REPORT, report)
    if figures := report.get("evidence", {}).get("figures"):
        print(gate.report(gate.Decision(report["decision"], report["reason"], figures)))
    else:
        print(f"registry: {report['decision']}: {report['reason']}")
    return report


if __name__ == "__main__":
    run_command(main)
