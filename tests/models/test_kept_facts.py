"""What is kept of a checkpoint: equal to what is found anew, and forgotten when it changes."""

import os
import shutil

import pytest
from safetensors.torch import load_file, save_file

from pytest_llmprobe import load_model
from pytest_llmprobe.engine import tree_trial
from pytest_llmprobe.engine.fast_backend import FastBackend
from pytest_llmprobe.models import capabilities, identity, kept_facts
from pytest_llmprobe.models.kept_facts import KeptFacts
from pytest_llmprobe.models.registry import REFERENCE


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMPROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_facts, "LEAST", 0)
    return tmp_path / "cache" / "facts"


@pytest.fixture
def copy(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(REFERENCE, folder, ignore=shutil.ignore_patterns("__pycache__", "unlearned"))
    return folder


@pytest.fixture
def nothing_is_found_out(monkeypatch):
    def refuse(*_):
        pytest.fail("was found out again")

    def forbid():
        monkeypatch.setattr(capabilities, "measure", refuse)
        monkeypatch.setattr(identity, "fingerprint", refuse)
        monkeypatch.setattr(identity, "tokenizer_hash", refuse)
        monkeypatch.setattr(tree_trial, "takes_tree", refuse)

    return forbid


def info(folder, **options):
    return FastBackend(load_model(str(folder), **options)).info


def test_a_second_start_says_the_same_without_looking(cache, copy, nothing_is_found_out):
    first = info(copy)
    assert len(list(cache.iterdir())) == 1
    nothing_is_found_out()
    assert info(copy) == first


def test_what_decides_makes_it_look_again(cache, copy):
    first = info(copy)
    assert info(copy, dtype="bfloat16")["fingerprint"] != first["fingerprint"]
    assert info(copy, attn_implementation="eager")["fingerprint"] == first["fingerprint"]
    assert info(copy) == first
    assert (
        info(copy, dtype="bfloat16", random_weights=True)["fingerprint"]
        != (info(copy, dtype="bfloat16")["fingerprint"])
    )
    before = (copy / "model.safetensors").stat()
    weights = load_file(copy / "model.safetensors")
    next(iter(weights.values())).view(-1)[-1] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert (copy / "model.safetensors").stat().st_size == before.st_size
    assert info(copy)["fingerprint"] != first["fingerprint"]
    changed = len(list(cache.iterdir()))
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert info(copy)["chat_template_hash"] != first["chat_template_hash"]
    assert len(list(cache.iterdir())) == changed + 1


def test_a_sample_of_a_long_file_counts_where_size_and_time_are_the_same(cache, tmp_path):
    file = tmp_path / "long.bin"
    content = bytearray(os.urandom(4_000_000))
    paths = set()
    for place in (None, 0, len(content) - 1, len(content) // 15 * 4):
        if place is not None:
            content[place] ^= 1
        file.write_bytes(content)
        os.utime(file, (1, 1))
        paths.add(KeptFacts.of([file]).path)
    assert len(paths) == 4


def test_damaged_facts_are_found_again(cache, copy):
    first = info(copy)
    (kept,) = cache.iterdir()
    for content in ("{", "[1]", '{"fingerprint": null}'):
        kept.write_text(content)
        assert info(copy) == first


def test_without_a_cache_nothing_is_kept(cache, copy, monkeypatch):
    monkeypatch.setenv("LLMPROBE_CACHE", "off")
    assert load_model(str(copy)).kept.path is None
    monkeypatch.undo()
    assert load_model(str(copy)).kept.path is None  # too small to be worth it
    assert not cache.exists()
