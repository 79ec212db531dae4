"""--llmprobe-engine: what cannot have a model, or is not here, says so before any loading."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.models.registry import ModelSpec, resolve
from pytest_llmprobe.plugin import answer_options
from pytest_llmprobe.plugin.answer_options import read_engine

SMALL = "reference-random"
FOLDER = ModelSpec("folder", "some/folder")
SERVED = resolve("openai:served", {})


def asked(engine, replay=None):
    return SimpleNamespace(llmprobe_engine=engine, llmprobe_replay=replay)


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(answer_options, "find_spec", lambda name: name)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("engine", "spec", "words"),
    [
        ("shared", SERVED, "is behind a server, which has its own engine"),
        ("vllm", SERVED, "is behind a server, which has its own engine"),
        ("openvino", FOLDER, "reads GGUF files: 'folder' is none"),
        ("openvino", replace(FOLDER, adapter="lora"), "as it is: leave out adapter"),
        ("vllm", replace(FOLDER, quantization="int8"), "as it is: leave out quantization"),
        ("openvino", replace(FOLDER, device_map="auto"), "as it is: leave out device_map"),
        ("vllm", resolve(SMALL, {}), "has no weights on disk"),
    ],
)
def test_an_engine_that_cannot_have_the_model_is_refused(engine, spec, words):
    with pytest.raises(SettingsError, match=f"--llmprobe-engine {engine}.*{words}"):
        read_engine(asked(engine), spec)


@pytest.mark.usefixtures("installed")
def test_an_engine_that_can_is_taken(tmp_path):
    path = tmp_path / "file.gguf"
    path.write_bytes(b"GGUF")
    file = ModelSpec("file", str(path))
    assert read_engine(asked("openvino"), file) == "openvino"
    assert read_engine(asked("vllm"), FOLDER) == "vllm"
    with pytest.raises(SettingsError, match="vllm reads folders and hub ids: 'file' is a GGUF"):
        read_engine(asked("vllm"), file)


def test_a_replay_asks_no_engine():
    assert read_engine(asked("vllm", "some-run"), SERVED) == "vllm"


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is here")
def test_an_engine_that_is_not_installed_ends_the_run_at_once(pytester):
    pytester.makepyfile(
        """
        import pytest
        from pytest_llmprobe import Case

        @pytest.mark.probe(cases=[Case("a", "say x", "x")])
        def test_echo(case, completion):
            assert completion.text == case.target
        """
    )
    result = pytester.runpytest_inprocess("--llmprobe-engine=vllm", "-p", "no:xdist")
    assert result.ret == 4
    result.stderr.fnmatch_lines(
        ["ERROR: llmprobe: --llmprobe-engine vllm needs the package vllm, which is absent: *"]
    )
    assert not Path(".llmprobe").exists()
