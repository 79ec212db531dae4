"""Length probes: does a hidden state know how many tokens of the answer are left?

Follows output-length-prediction.  The model is asked to repeat words; a small probe of one layer's
state behind each token of the answers predicts how many tokens remain.  A case passes if it does so
better, in answers held out as a whole, than all that can be guessed without states: a constant, the
step, step and asked count, the token, or a probe of shuffled labels.  With the mean absolute error
MAE, skill = 1 - MAE / MAE of the best guess; the 95 % interval of the skill over the held-out
answers must be above 0 (chance at most 0.025).  Example: after the third word of the answer to
'Say "lamp" 5 times', 2 words and the end token remain.

    pytest evals/output_length --model=mistral -n 2

Answers with another count than was asked for are data too: the model knows them, or it does not.
A model that does not repeat words is asked for lists of so many things, except in the smoke
profile; what a list does not tell by step and count is what the model chooses as it goes.
"""

from functools import partial
from itertools import product

import pytest

from pytest_llmprobe import Case
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.experiments.output_length.requests import HELD_OUT, length_requests
from pytest_llmprobe.experiments.output_length.skill import judge
from pytest_llmprobe.experiments.output_length.words import SAME_PROMPT, WORDS

pytestmark = [pytest.mark.output_length, pytest.mark.whitebox]

# Some of these are several tokens in every tokenizer: with words of one token, and right counts,
# step and asked count would tell what remains exactly, and no probe could be better.
LONG_WORDS = (
    *("anchor", "barrel", "canoe", "chimney", "compass", "cottage", "dagger", "meadow"),
    *("orchard", "trumpet", "umbrella", "whistle"),
)
ALL_WORDS = (*LONG_WORDS, *WORDS[::5])
GRIDS = {  # words and counts
    "smoke": (ALL_WORDS, range(2, 23, 2)),  # fewer answers do not decide
    "ci": (ALL_WORDS, range(3, 21)),
    "full": (ALL_WORDS, range(5, 50)),
}
DEPTHS = {"smoke": (100,), "ci": (0, 50, 75, 100), "full": range(0, 101, 10)}  # per cent of layers
PROBES = {"smoke": ("mlp",), "ci": ("linear", "mlp"), "full": ("linear", "mlp")}
SPLITS = {"smoke": ("sample",), "ci": HELD_OUT, "full": HELD_OUT}  # what is held out
LISTS = {"smoke": (), "ci": range(3, 9), "full": range(3, 21)}  # how many things
FIRST, LEAST = 24, 6  # of the shortest answers asked for so many must repeat their word
TRAINING = {"hidden": 64, "max_epochs": 40, "patience": 4, "batch_size": 512}


def probes(suite):
    grid = product(DEPTHS[suite.profile], SPLITS[suite.profile], PROBES[suite.profile])
    for depth, held_out, probe in grid:
        yield Case(
            f"states/depth-{depth}-{held_out}-{probe}",  # one group: they share the states
            SAME_PROMPT,
            chance=0.025,  # the upper half of what a 95 % interval misses
            metadata={"task": "length_probe", "depth": depth, "held_out": held_out, "probe": probe},
        )


def layer_at(depth, model):
    """A layer by its depth: 0 for the embeddings, 100 for the last layer after its norm."""
    return round(depth / 100 * (model.capabilities.hidden_states - 1))


@pytest.fixture(scope="session")
def data(model, length_data, suite):
    """The states of every answer that repeats its word, else of every list, or why there are none.

    Most models that cannot say a word twice cannot say it ten times: they are not asked for it.
    """
    words, counts = GRIDS[suite.profile]
    requests = length_requests("different_prompts", words, counts, suite.seed)  # few times first
    layers = sorted({layer_at(depth, model) for depth in DEPTHS[suite.profile]})
    try:
        first = length_data(requests[:FIRST], layers, keep="words").metadata["samples"]
        if len(first) >= LEAST:
            return length_data(requests, layers, keep="words")
        error = CasesError(f"{len(first)} of {FIRST} answers repeat their word")
    except CasesError as none:
        error = none
    if not LISTS[suite.profile]:
        return error
    requests = length_requests("lists", counts=LISTS[suite.profile], seed=suite.seed)
    try:
        return length_data(requests, layers, keep="ended")
    except CasesError as none:
        return CasesError(f"{error}; lists: {none}")


def summarise(records):
    """For each probe and split the skill over depth, in the form of `tables.score_curve`."""
    curves = {}
    for record in sorted(records, key=lambda record: record.params["depth"]):
        if "skill" in (scores := record.scores):
            ends = [scores["skill_low"], scores["skill_high"]] if "skill_low" in scores else None
            point = {"mean": scores["skill"], "ci95": ends, "control": scores.get("control")}
            name = "skill_by_depth_{probe}_held_out_{held_out}".format(**record.params)
            curves.setdefault(name, []).append({"value": record.params["depth"], **point})
    return curves


@pytest.mark.probe(cases=probes, summary=summarise)
@pytest.mark.gate(judge=False)  # its cases are probes of the same answers
def test_length_probe(case, model, data, suite, score):
    from pytest_llmprobe.whitebox.length_probe import ProbeConfig
    from pytest_llmprobe.whitebox.length_probe_training import train_probe

    if isinstance(data, CasesError):
        pytest.skip(str(data))
    try:
        split = data.split(case.metadata["held_out"], seed=suite.seed)
    except (CasesError, SettingsError) as error:  # too few to hold some of them out
        usable, asked = len(data.metadata["samples"]), data.metadata["parameters"]["requests"]
        pytest.skip(f"{usable} of {asked} answers can be used: {error}")
    score("of_lists", data.metadata["samples"][0].get("is_list", False))
    config = ProbeConfig(case.metadata["probe"], seed=suite.seed, **TRAINING)
    layer = layer_at(case.metadata["depth"], model)
    judged = judge(data, split, partial(train_probe, config=config), layer, suite.seed)
    low, high = judged.interval or (None, None)
    measured = {"skill": judged.skill, "skill_low": low, "skill_high": high}
    measured |= {"control": judged.control, **judged.metrics["probe"]}
    for name, value in measured.items():
        if value is not None:
            score(name, value)
    best = judged.best.replace("_", " ")
    assert judged.skill is not None, f"{best} tells the remaining tokens exactly"
    if low is None:
        pytest.skip("too few answers to tell")
    assert low > 0, f"not surely better than {best}: skill within [{low:.3f}, {high:.3f}]"
