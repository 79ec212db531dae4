"""How many tokens of an answer are left: `requests` in the wording of `words`.

`data_set_collection` asks them and writes hidden states through `data_set_files`; `data_set` opens
and splits them; `skill` judges a probe beside the `baselines`, and `by_layer` cross-validates one
for each layer.
"""

from pytest_llmprobe.experiments.output_length.by_layer import skill_by_layer
from pytest_llmprobe.experiments.output_length.data_set import LengthData, load_length_data
from pytest_llmprobe.experiments.output_length.data_set_collection import collect
from pytest_llmprobe.experiments.output_length.requests import LengthRequest, length_requests
from pytest_llmprobe.experiments.output_length.skill import Judgement, judge, layer_curve

__all__ = [
    "Judgement",
    "LengthData",
    "LengthRequest",
    "collect",
    "judge",
    "layer_curve",
    "length_requests",
    "load_length_data",
    "skill_by_layer",
]
