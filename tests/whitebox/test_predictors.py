"""Predictors are the ends of the influence maps, and say less where there is no attention."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import tiny

from pytest_llmprobe.case import Span
from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.models.loading import load_model
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.whitebox import predictors as module
from pytest_llmprobe.whitebox.influence import influence
from pytest_llmprobe.whitebox.predictors import REMEMBERED, VARIABLE, Predictors, map_file

PROMPT = "Answer in French.\n\nAnna sold the lamp. The lamp was blue and old.\n\nSummary:"


@pytest.fixture(scope="module")
def loaded():
    return load_model("reference")


@pytest.fixture(scope="module")
def encode(loaded):
    return PromptEncoder(loaded.tokenizer, chat_template=True).ids


@pytest.mark.parametrize("last", [5, 10])
def test_they_are_the_maps_ends(loaded, encode, last):
    found = Predictors(encode, loaded)(PROMPT, "in French", last=last)
    assert found["influence"] == influence(loaded, PROMPT, "in French").at_end(last)
    rollout = influence(loaded, PROMPT, "in French", method="rollout")
    assert found["rollout"] == rollout.at_end(last)
    attention = influence(loaded, PROMPT, "in French", method="attention")
    assert found["raw_attention"] == attention.at_end(1)
    assert found["inverse_length"] == 1 / len(encode(PROMPT))
    assert list(found) == ["influence", "rollout", "raw_attention", "inverse_length"]


def test_a_prompt_is_measured_once(loaded, encode, monkeypatch):
    passes = []
    real = module.influence_maps
    monkeypatch.setattr(
        module, "influence_maps", lambda *a, **k: passes.append(a[2]) or real(*a, **k)
    )
    predictors = Predictors(encode, loaded)
    first = predictors(PROMPT, "in French")
    assert predictors(PROMPT, Span("in French", level=2)) == first
    assert predictors(PROMPT, "Summary") != first
    assert len(passes) == 2
    for number in range(REMEMBERED):
        predictors(f"{number} {PROMPT}", "in French")
    assert predictors(PROMPT, "in French") == first
    assert len(passes) == 2 + REMEMBERED + 1


def test_the_whole_map_is_written_on_request(loaded, encode, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert map_file("test_a[b/c-delta-0]") is None
    monkeypatch.setenv(VARIABLE, str(tmp_path / "maps"))
    path = map_file("test_a[../b/c d-delta-0.5]")
    assert path == tmp_path / "maps" / "test_a_.._b_c_d-delta-0.5.npy"
    assert len(map_file("x" * 9_999).name) < 255
    Predictors(encode, loaded)(PROMPT, "in French", save=path)
    written = np.load(path, allow_pickle=False)
    assert written.tolist() == influence(loaded, PROMPT, "in French").values.tolist()
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"file/x\.npy cannot be written"):
        Predictors(encode, loaded)(PROMPT, "in French", save=tmp_path / "file" / "x.npy")


def test_without_a_model_only_the_length_is_known(encode):
    assert Predictors(encode, None)(PROMPT, "in French") == {
        "inverse_length": 1 / len(encode(PROMPT))
    }


@pytest.mark.parametrize("architecture", ["mamba", "qwen3_next"])
def test_a_model_without_attention_in_every_layer_gives_the_length_alone(
    loaded, encode, architecture
):
    other = replace(loaded, model=tiny(architecture))
    assert list(Predictors(encode, other)(PROMPT, "in French")) == ["inverse_length"]


def test_a_span_that_is_not_there_is_an_error(loaded, encode):
    with pytest.raises(CasesError, match="does not hold 'in German'"):
        Predictors(encode, loaded)(PROMPT, "in German")
