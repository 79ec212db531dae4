"""The fixtures of white-box evaluations in a real run: predictors of a span, BERTScore."""

import json
from textwrap import dedent

import numpy as np

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases():
        yield Case("g/a", "Answer in French. Anna sold the lamp.", "La lampe.", spans="in French")

    @pytest.mark.steering
    @pytest.mark.whitebox
    @pytest.mark.probe(cases=cases, delta=(0, 1), max_new_tokens=2)
    def test_reach(case, completion, score, predictors, bert_score):
        assert bert_score is None
        if case.metadata["delta"] == 0:
            for name, value in predictors(case.prompt, case.spans[0], last=5).items():
                score(name, value)
"""

OPTIONS = ("-p", "no:xdist", "--llmprobe-json=r.json")


def test_a_case_is_measured_and_its_map_written_where_that_is_asked_for(pytester, monkeypatch):
    monkeypatch.setenv("LLMPROBE_INFLUENCE", "maps")
    monkeypatch.setenv("LLMPROBE_BERT_SCORE", "no/such/encoder")
    pytester.makepyfile(test_eval=dedent(EVAL))
    result = pytester.runpytest_subprocess(*OPTIONS)
    result.assert_outcomes(passed=2)
    unsteered, steered = json.loads((pytester.path / "r.json").read_text())["tests"]
    assert unsteered["scores"].keys() == {
        "influence",
        "rollout",
        "raw_attention",
        "inverse_length",
    }
    assert steered["scores"] == {}
    (path,) = (pytester.path / "maps").iterdir()
    assert path.name == "test_reach_g_a-delta-0.npy"
    values = np.load(path, allow_pickle=False)
    assert values.shape[1] == unsteered["prompt_tokens"]
    assert unsteered["scores"]["influence"] == float(values[-1, -5:].mean())
