"""`python -m benchmarks` measures and writes reports/benchmark.json and reports/benchmark.svg, and with `--gpu`
reports/benchmark_gpu.json instead; see `make bench`."""

import argparse

from benchmarks import gpu, measure
from benchmarks.report import PICTURE, REPORT, TARGETS, picture
from pipeline.project.atomic import write_json, write_text
from pipeline.project.run_command import run_command


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="end within 5 minutes: fewer reviews and rounds")
    parser.add_argument("--gpu", action="store_true", help="measure the trainings on a GPU")
    options = parser.parse_args()
    if options.gpu:
        write_json(gpu.REPORT, gpu.report(gpu.QUICK if options.quick else gpu.FULL))
        print(gpu.markdown())
        return
    size = measure.QUICK if options.quick else measure.FULL
    found = {"mode": "quick" if options.quick else "full", "targets": TARGETS, **measure.report(size)}
    write_json(REPORT, found)
    write_text(PICTURE, picture(found))
    for name, ratio in found["ratios"].items():
        print(f"{name:<26}{ratio:>8.2f}")
    print(f"{REPORT} and {PICTURE}")


if __name__ == "__main__":
    run_command(main)
