"""Stage `register`: every trained model becomes a version in the registry; the aliases follow."""

from pipeline import registry, tracking
from pipeline.artifacts import REGISTRY_REPORT, write_json
from pipeline.errors import run_command
from pipeline.params import load_params


def main() -> None:
    params = load_params()
    candidates = []
    for name in params.models:
        run_id, record, _ = tracking.recorded_run(name)
        candidates.append(
            registry.Candidate(
                model=name,
                run_id=run_id,
                weights_sha256=record["weights_sha256"],
                val_accuracy=record["metrics"]["best_val_accuracy"],
                val_loss=record["metrics"]["best_val_loss"],
            )
        )
    report = registry.register(params.dataset, candidates, max_tokens=params.tokenize.max_tokens)
    write_json(REGISTRY_REPORT, report)
    print(f"registry: {report['decision']}: {report['reason']}")


if __name__ == "__main__":
    run_command(main)
