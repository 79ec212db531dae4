"""The engine behind ``llmprobe search``: ahead of what will be asked, and with equal answers."""

from some_tasks import Sampler

from pytest_llmprobe import GenerateConfig, Request
from pytest_llmprobe.search.ahead import AheadEngine
from pytest_llmprobe.search.space import configurations

SPACE = [{"temperature": [0.5, 1.0], "generation_seed": [0, 1]}, {"repetition_penalty": 1.1}]


def test_an_engine_that_answers_ahead_says_what_one_that_does_not_would():
    own = GenerateConfig(max_new_tokens=20, temperature=0.8)
    requests = [Request(f"{n}+{n}=", own, seed=n) for n in range(20)]
    ahead = AheadEngine(Sampler(), configurations(SPACE, GenerateConfig()))
    first = ahead.attempt(requests)
    assert max(map(len, ahead.backend.calls)) > len(requests)
    answered = ahead.backend.answered
    for one in ahead.configurations:
        options = {name: value for name, value in one.parameters if name != "generation_seed"}
        asked = [
            Request(r.prompt, GenerateConfig.of(**vars(own) | options), r.seed) for r in requests
        ]
        ahead.active = one
        later = ahead.generate(asked)
        alone = AheadEngine(Sampler(), [])
        alone.active = one
        assert [a.text for a in later] == [a.text for a in alone.generate(asked)]
        assert ahead.backend.answered == answered
    ahead.generate([Request("1+2=", own)])  # an evaluation that asks on: nobody knew
    assert ahead.backend.answered == answered + 1
    assert len({completion.text for completion in first}) > 10


def test_what_was_recorded_is_not_generated_again(tmp_path):
    own = GenerateConfig(max_new_tokens=20, temperature=0.8)
    requests = [Request(f"{n}+{n}=", own, seed=n) for n in range(5)]
    asked, path = configurations(SPACE, GenerateConfig()), tmp_path / "completions.jsonl"
    first = AheadEngine(Sampler(), asked, path).generate(requests)
    with path.open("a") as file:
        file.write('{"request": "ab')  # killed while it wrote
    again = AheadEngine(Sampler(), asked, path)
    assert again.generate(requests) == first
    assert again.backend.answered == 0
