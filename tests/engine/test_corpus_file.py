"""A baseline's look at a corpus, kept in a file: the candidate finds what it would find live."""

import copy
from dataclasses import replace

import pytest
from architectures import noisy, tiny

from pytest_llmprobe.engine.corpus import score_corpus
from pytest_llmprobe.engine.corpus_fidelity import OTHER_TOKENS, compare_corpus
from pytest_llmprobe.engine.corpus_file import kept_corpus, read_corpus
from pytest_llmprobe.engine.distribution_file import DistributionFile, Maker, write_distributions
from pytest_llmprobe.engine.teacher_forcing import TeacherForcing
from pytest_llmprobe.errors import ReportError

TEXTS = ["The miller of the old town had three sons.", "A comet is a small body.", "Ice"]
SIZE = 7


def named(loaded, name="own"):
    loaded = copy.copy(loaded)
    object.__setattr__(loaded, "info", loaded.info | {"tokenizer_hash": name})
    return loaded


@pytest.fixture
def kept(tmp_path):
    forcing = TeacherForcing(named(tiny("llama")))
    score = score_corpus(forcing, TEXTS, SIZE, 16)
    path = tmp_path / "main.texts.npz"
    write_distributions(path, Maker("base", "own", 16), kept_corpus(score, "these"))
    return score, DistributionFile(path)


def test_the_candidate_finds_what_it_would_find_without_the_file(kept):
    score, file = kept
    other = TeacherForcing(noisy(named(tiny("llama"))))
    read = read_corpus(file, TEXTS, "these", other.loaded)
    assert read.windows == score.windows
    assert (read.perplexity, read.bits_per_byte) == (score.perplexity, score.bits_per_byte)
    found = compare_corpus(read, "own", other, TEXTS, SIZE)
    assert found == compare_corpus(score, "own", other, TEXTS, SIZE)
    assert found["fidelity"]["kl"]["mean"] > 1e-5


def test_other_tokens_leave_bits_per_byte(kept):
    score, file = kept
    other = TeacherForcing(named(tiny("llama"), "another"))
    read = read_corpus(file, TEXTS, "these", other.loaded)
    found = compare_corpus(read, file.maker.tokenizer_hash, other, TEXTS, SIZE)
    assert (found["remark"], found["fidelity"]) == (OTHER_TOKENS, None)
    assert found["base"]["bits_per_byte"] == score.bits_per_byte
    assert found["bits_per_byte_change"]["value"] == pytest.approx(0, abs=1e-6)


def test_a_context_shorter_than_a_window_says_so(kept):
    _, file = kept
    short = named(tiny("llama"))
    held = replace(short.capabilities, context_length=SIZE - 3)
    object.__setattr__(short, "capabilities", held)
    read = read_corpus(file, TEXTS, "these", short)
    found = compare_corpus(read, "own", TeacherForcing(short), TEXTS, SIZE)
    assert "only bits per byte compare" in found["remark"]
    assert "context" in found["remark"]
    assert found["candidate"]["tokens"] == found["base"]["tokens"]


def test_other_texts_are_refused(kept, tmp_path):
    _, file = kept
    with pytest.raises(ReportError, match="is of other texts than those"):
        read_corpus(file, TEXTS, "those", named(tiny("llama")))
    with pytest.raises(ReportError, match="does not hold the windows"):
        read_corpus(file, TEXTS[:2], "these", named(tiny("llama")))
    empty = tmp_path / "empty.npz"
    write_distributions(empty, Maker("base", "own", 16), [])
    with pytest.raises(ReportError, match="holds no text"):
        read_corpus(DistributionFile(empty), TEXTS, "these", named(tiny("llama")))
