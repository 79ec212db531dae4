"""The file of distributions: what is written is read, and nothing else is."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from pytest_llmprobe.engine.distribution_file import (
    DistributionFile,
    KeptAnswer,
    Maker,
    write_distributions,
)
from pytest_llmprobe.errors import ReportError
from pytest_llmprobe.statistics.divergence import Distributions

MAKER = Maker("a model", "0123456789abcdef", 8)


def answer(name, tokens, words=1000, k=8, seed=0):
    random = np.random.default_rng(seed + tokens)
    found = Distributions(
        random.integers(words, size=(tokens, k)).astype(np.uint32),
        random.integers(2**16, size=(tokens, k)).astype(np.uint16),
        random.normal(size=tokens).astype(np.float32),
        random.normal(size=tokens).astype(np.float32),
    )
    ids = tuple(random.integers(words, size=tokens).tolist())
    return KeptAnswer(name, "hash", f"text of {name} é\n", max(0, tokens - 1), ids, found)


def same(one, other):
    for name in ("ids", "codes", "rest", "answer"):
        a, b = getattr(one.found, name), getattr(other.found, name)
        assert np.array_equal(a, b)
    names = ("name", "prompt_hash", "text", "text_tokens", "tokens")
    return [getattr(one, n) for n in names] == [getattr(other, n) for n in names]


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "folder" / "kept.npz"
    write_distributions(path, MAKER, [answer("a", 5), answer("b", 1), answer("c", 12)])
    return path


def test_every_answer_comes_back(whole):
    found = DistributionFile(whole)
    assert found.maker == MAKER
    assert list(found) == ["a", "b", "c"]
    for name, tokens in (("a", 5), ("b", 1), ("c", 12)):
        assert same(found[name], answer(name, tokens))
    with pytest.raises(KeyError):
        found["d"]


def test_numpy_reads_it_without_pickle(whole):
    with np.load(whole, allow_pickle=False) as arrays:
        assert json.loads(arrays["header"].tobytes())["model"] == "a model"
        assert arrays["codes"].shape == (18, 8)
        assert arrays["ids"].dtype == np.uint16  # a small vocabulary


def test_a_large_vocabulary_keeps_its_ids(tmp_path):
    path = tmp_path / "kept.npz"
    write_distributions(path, MAKER, [answer("a", 5, words=200_000)])
    assert same(DistributionFile(path)["a"], answer("a", 5, words=200_000))


def test_no_answers_are_a_file_too(tmp_path):
    write_distributions(tmp_path / "kept.npz", MAKER, [])
    assert len(DistributionFile(tmp_path / "kept.npz")) == 0


def test_a_token_takes_about_250_bytes(tmp_path):
    maker = Maker("m", "h", 64)
    write_distributions(tmp_path / "kept.npz", maker, [answer("a", 1000, k=64)])
    assert (tmp_path / "kept.npz").stat().st_size / 1000 < 280


def test_a_file_cut_short_anywhere_is_one_error(whole):
    data = whole.read_bytes()
    for size in (0, 1, 30, len(data) // 3, len(data) // 2, len(data) - 400, len(data) - 1):
        whole.write_bytes(data[:size])
        with pytest.raises(ReportError, match=r"is no whole file of distributions.*make the base"):
            DistributionFile(whole)


def rewritten(path, **changes):
    with np.load(path) as arrays:
        held = {name: arrays[name] for name in arrays}
    header = json.loads(held["header"].tobytes()) | changes.pop("header", {})
    held["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **held | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"codes": np.zeros((18, 7), np.uint16)},
        {"codes": np.zeros((18, 8), np.float32)},
        {"rest": np.zeros(17, np.float32)},
        {"header": {"format": "another"}},
        {"header": {"cases": [{"name": "a"}]}},
        {"header": {"cases": 3}},
        {"header": {"k": "many"}},
    ],
)
def test_a_file_that_contradicts_itself_is_refused(whole, changes):
    rewritten(whole, **changes)
    with pytest.raises(ReportError, match="no whole file"):
        DistributionFile(whole)


def test_nothing_in_it_is_executed(whole, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("exploded").touch, ())

    np.savez(whole, header=np.array([Bomb()], dtype=object))
    with pytest.raises(ReportError):
        DistributionFile(whole)
    whole.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ReportError):
        DistributionFile(whole)
    assert not (tmp_path / "exploded").exists()


def test_a_compressed_one_is_refused_before_it_grows(whole):
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", b"\0" * 10_000_000)
    with pytest.raises(ReportError, match="compressed"):
        DistributionFile(whole)


def test_a_file_that_is_not_there_says_so(tmp_path):
    with pytest.raises(ReportError, match="cannot be read: No such file"):
        DistributionFile(tmp_path / "none.npz")
