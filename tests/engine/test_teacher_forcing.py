"""Teacher forcing on every path, against a plain forward pass over each text alone."""

import copy

import numpy as np
import pytest
import torch
from architectures import PACKED, TURNED, tiny, unturned

from pytest_llmprobe.engine.corpus import score_corpus, windows
from pytest_llmprobe.engine.teacher_forcing import Forced, TeacherForcing
from pytest_llmprobe.errors import (
    CasesError,
    InvalidLogitsError,
    PromptTooLongError,
    RequestError,
)
from pytest_llmprobe.statistics.divergence import fidelity

# The logits of states that are summed in another order are as far from one another as that.
BOUND = {"mamba": 2e-4, "mamba2": 1e-3, "falcon_h1": 1e-3}


def ids(count, seed):
    return tuple(
        torch.randint(5, 2000, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    )


SHARED = ids(70, 0)
TEXTS = [
    *(Forced(SHARED + ids(3 + 2 * n, n), ids(1 + 4 * n, 10 + n)) for n in range(4)),
    Forced(ids(1, 20), ids(9, 21)),
    Forced(ids(40, 22), ids(2, 23)),
]


@torch.no_grad()
def plainly(model, text):
    """Log-probabilities of all words at each token of the answer, by one pass over the text.

    Nothing follows its last token, which is not fed: one token more is another rotation.
    """
    logits = unturned(model)(torch.tensor([text.ids[:-1]])).logits[0, len(text.prompt) - 1 :]
    return logits.float().log_softmax(-1).numpy()


def compared(forcing, bases, texts=TEXTS):
    return [fidelity(b, s) for b, s in zip(bases, forcing.seen(texts, bases), strict=True)]


def test_every_architecture_gives_what_a_plain_pass_gives(tiny_model):
    forcing = TeacherForcing(tiny_model)
    assert forcing.shares_prefixes == (tiny_model.spec.name in PACKED)
    bound = BOUND.get(tiny_model.spec.name, 5e-5)
    bases = forcing.distributions(TEXTS)
    for text, base, one in zip(TEXTS, bases, compared(forcing, bases), strict=True):
        whole = plainly(tiny_model.model, text)
        of_answer = whole[np.arange(len(text.answer)), list(text.answer)]
        assert base.answer == pytest.approx(of_answer, abs=bound)
        assert one.candidate == pytest.approx(of_answer, abs=bound)
        named = np.take_along_axis(whole, base.ids.astype(int), 1)
        assert np.abs(named.clip(-31.9) - base.codes / -2048).max() < 1 / 4096 + bound
        assert np.exp(base.rest) == pytest.approx(1 - np.exp(named).sum(1), abs=1e-5)
        assert (one.kl == 0).all()  # the same path, the same weights
        assert one.agrees.all()
        left = np.flatnonzero(whole.max(1) > of_answer + bound)
        assert one.first == (left[0] if len(left) else None)


def test_a_model_is_itself_on_every_path(llama):
    paths = [TeacherForcing(llama), TeacherForcing(llama, shares_prefixes=False)]
    for base in paths:
        bases = base.distributions(TEXTS)
        alone = [base.distributions([text])[0] for text in TEXTS]
        for path in paths:
            for known in (bases, alone):
                assert max(one.kl.max() for one in compared(path, known)) < 1e-6
                assert all(one.agrees.all() for one in compared(path, known))


def test_in_bfloat16_the_same_path_gives_exactly_nothing():
    loaded = copy.copy(tiny("llama"))
    object.__setattr__(loaded, "model", copy.deepcopy(loaded.model).bfloat16())
    forcing = TeacherForcing(loaded)
    assert max(one.kl.max() for one in compared(forcing, forcing.distributions(TEXTS))) == 0


def test_another_model_diverges_by_the_whole_distributions_divergence(llama):
    other = copy.copy(llama)
    object.__setattr__(other, "model", copy.deepcopy(llama.model))
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter += 0.02 * parameter.std() * torch.randn_like(parameter)
    bases = TeacherForcing(llama).distributions(TEXTS, 2048)
    for text, one in zip(TEXTS, compared(TeacherForcing(other), bases), strict=True):
        p, q = (plainly(model.model, text).astype(float) for model in (llama, other))
        assert one.kl == pytest.approx((np.exp(p) * (p - q)).sum(1), rel=0.02, abs=1e-7)
        assert (one.agrees == (p.argmax(1) == q.argmax(1))).all()
        assert one.kl.max() > 1e-4


def test_an_answer_longer_than_the_logits_that_may_exist_comes_in_pieces(llama, monkeypatch):
    monkeypatch.setattr("pytest_llmprobe.engine.memory.LOGITS", 2048 * 8)
    texts = [Forced(ids(5, 1), ids(50, 2)), Forced(ids(9, 3), ids(3, 4))]
    forcing = TeacherForcing(llama)
    assert len(list(forcing.logits(texts))) > 5
    for text, base in zip(texts, forcing.distributions(texts), strict=True):
        whole = plainly(llama.model, text)
        of_answer = whole[np.arange(len(text.answer)), list(text.answer)]
        assert base.answer == pytest.approx(of_answer, abs=5e-5)


@pytest.mark.parametrize("architecture", TURNED)
def test_a_long_text_does_not_turn_the_others_of_its_batch(architecture):
    loaded = tiny(architecture)
    texts = [Forced(ids(90, 1), ids(40, 2)), Forced(ids(9, 3), ids(5, 4))]
    for text, base in zip(texts, TeacherForcing(loaded).distributions(texts), strict=True):
        whole = plainly(loaded.model, Forced(text.prompt, text.answer))
        of_answer = whole[np.arange(len(text.answer)), list(text.answer)]
        assert base.answer == pytest.approx(of_answer, abs=1e-4)


def test_what_cannot_be_run_says_why(llama):
    forcing = TeacherForcing(llama)
    with pytest.raises(CasesError, match="at least a token before and one after"):
        forcing.distributions([Forced((), (5,))])
    with pytest.raises(PromptTooLongError, match=r"1000 and 26 tokens.*holds 1024"):
        forcing.distributions([Forced(ids(1000, 1), ids(26, 2))])
    with pytest.raises(RequestError, match="knows 0 to 2047"):
        forcing.distributions([Forced((5,), (2048,))])
    bases = forcing.distributions(TEXTS[:1])
    bases[0].ids[0, 0] = 5000
    with pytest.raises(RequestError, match="baseline's tokens go up to 5000"):
        forcing.seen(TEXTS[:1], bases)


def test_nan_is_the_error_of_its_text_alone():
    loaded = copy.copy(tiny("llama"))
    object.__setattr__(loaded, "model", copy.deepcopy(loaded.model))
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[7] = torch.nan
    texts = [Forced((5, 6), (9, 7, 8)), Forced((5, 6), (9, 8))]
    forcing = TeacherForcing(loaded)
    broken, sound = forcing.distributions(texts)
    assert isinstance(broken, InvalidLogitsError)
    assert np.isfinite(sound.answer).all()
    good = TeacherForcing(tiny("llama")).distributions(texts)
    broken, sound = forcing.seen(texts, good)
    assert isinstance(broken, InvalidLogitsError)
    assert fidelity(good[1], sound).kl.max() < 1e-6


def test_windows_hold_every_token_once_each_with_as_much_before_it_as_fits():
    text = list(range(100, 135))
    found = list(windows(text, 1, 10))
    assert [token for window in found for token in window.answer] == text
    assert found[0].prompt == (1,)
    for window in found[1:]:
        at = text.index(window.answer[0])
        assert len(window.ids) == 11
        assert list(window.prompt) == text[at - len(window.prompt) : at]


@pytest.mark.parametrize("shares", [True, False])
def test_perplexity_is_transformers_own_on_the_same_windows(llama, shares):
    texts = ["The miller of the old town had three sons. " * 9, "A comet is a body of ice."]
    size, losses, count = 32, 0.0, 0
    for text in texts:  # as in transformers' docs on perplexity: labels of -100 are context
        encoded = llama.tokenizer(text, add_special_tokens=False)["input_ids"]
        encoded = [llama.tokenizer.bos_token_id, *encoded]
        for start in range(1, len(encoded), size):
            end = min(start + size, len(encoded))
            piece = torch.tensor([encoded[max(0, end - size - 1) : end]])
            labels = piece.clone()
            labels[:, : -(end - start)] = -100
            with torch.no_grad():
                losses += float(llama.model(piece, labels=labels).loss) * (end - start)
            count += end - start
    found = score_corpus(TeacherForcing(llama, shares), texts, size)
    assert found.tokens == count
    assert found.perplexity == pytest.approx(np.exp(losses / count), rel=1e-5)
    size = sum(len(text.encode()) for text in texts)
    assert found.bits_per_byte == pytest.approx(losses / np.log(2) / size, rel=1e-5)
