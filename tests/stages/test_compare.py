"""What a candidate costs where the challenger is chosen."""

from pathlib import Path

from pipeline.project.atomic import write_json
from pipeline.project.params import load_params
from pipeline.project.paths import BLEND, NGRAMS, serving_file
from pipeline.stages.compare import cost


def test_a_blend_costs_no_less_than_what_it_is_made_of(project: Path) -> None:
    params = load_params()
    for name, milliseconds in ((params.blend, 0.4), (NGRAMS, 1.5), (BLEND, 1.2)):  # as a busy machine measured once
        write_json(serving_file(name), {"milliseconds": milliseconds, "megabytes": 1.0})
    assert [cost(name, params) for name in (params.blend, NGRAMS, BLEND)] == [0.4, 1.5, 1.5]
    write_json(serving_file(BLEND), {"milliseconds": 1.9, "megabytes": 1.0})
    assert cost(BLEND, params) == 1.9
