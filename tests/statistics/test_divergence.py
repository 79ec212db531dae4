"""Divergence from k kept tokens and a bucket, against the whole distributions in float64."""

import numpy as np
import pytest

from pytest_llmprobe.statistics.divergence import (
    Distributions,
    Seen,
    coarsened,
    coded,
    fidelity,
    kl_divergence,
)


def logs(seed, shape=(50, 300), sharp=3.0):
    scores = np.random.default_rng(seed).normal(size=shape) * sharp
    top = scores.max(-1, keepdims=True)
    return scores - top - np.log(np.exp(scores - top).sum(-1, keepdims=True))


def kept(p, k, answer=0):
    ids = np.argsort(-p, axis=1)[:, :k]
    named = np.take_along_axis(p, ids, 1)
    return Distributions(ids, coded(named.astype(np.float32)), rest(p, ids), p[:, answer])


def rest(p, ids):
    others = p.copy()
    np.put_along_axis(others, ids.astype(int), -np.inf, 1)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(others).sum(1)).astype(np.float32)


def seen(q, base, answer=0):
    named = np.take_along_axis(q, base.ids.astype(int), 1)
    agrees = q.argmax(1) == base.ids[:, 0]
    lead = q.max(1) - q[:, answer]
    return Seen(named.astype(np.float32), rest(q, base.ids), q[:, answer], agrees, lead)


def exact(p, q):
    return (np.exp(p) * (p - q)).sum(1)


@pytest.mark.parametrize("sharp", [0.3, 1.0, 3.0])
def test_with_all_tokens_kept_it_is_the_divergence_of_the_whole_distributions(sharp):
    p, q = logs(0, sharp=sharp), logs(1, sharp=sharp)
    base = kept(p, 300)
    found = kl_divergence(base, seen(q, base))
    assert found == pytest.approx(exact(p, q), rel=2e-3)


@pytest.mark.parametrize("noise", [0.01, 0.1, 1.0])
def test_the_bucket_never_makes_it_larger_and_hides_little_where_its_mass_is_small(noise):
    p = logs(0, sharp=8.0)
    q = p + noise * np.random.default_rng(2).normal(size=p.shape)
    q -= np.log(np.exp(q).sum(1, keepdims=True))
    base, whole = kept(p, 64), exact(p, q)
    found = kl_divergence(base, seen(q, base))
    # Rounding by up to 1/4096 counts once for each difference of log-probabilities.
    assert (found <= whole * 1.001 + 5e-4 * noise).all()
    small = base.rest < np.log(1e-3)
    assert small.sum() > 10
    assert found[small] == pytest.approx(whole[small], rel=0.15, abs=5e-4 * noise)
    assert found.sum() > 0.8 * whole.sum()


def test_equal_distributions_give_exactly_nothing_and_rounding_hardly_more():
    p = logs(0)
    base = kept(p, 64)
    assert (kl_divergence(base, seen(p, base)) == 0).all()
    turned = p + 2e-6 * np.random.default_rng(3).normal(size=p.shape)  # as another batch does
    assert kl_divergence(base, seen(turned, base)).max() < 1e-6


def test_a_token_that_the_candidate_excludes_diverges_without_end():
    p = logs(0, (1, 10))
    base = kept(p, 4)
    one = seen(p, base)
    one.log_probability[0, 0] = -np.inf
    assert kl_divergence(base, one)[0] == np.inf


def test_codes_hold_what_they_say_to_a_4096th():
    values = -np.concatenate([np.geomspace(1e-6, 31.9, 500), [0.0]])
    assert np.abs(coded(values) / -2048 - values).max() <= 1 / 4096
    assert coded(np.array([-1e9]))[0] == 65535


def test_where_the_answer_is_left_first_and_by_how_much():
    p = logs(0, (6, 10))
    base = kept(p, 4)
    one = seen(p, base)
    one.lead[:] = [0, 0, 0.25, 0, 1, 0]
    found = fidelity(base, one)
    assert (found.first, found.lead) == (2, 0.25)
    one.lead[:] = 0
    found = fidelity(base, one)
    assert (found.first, found.lead) == (None, None)


def served(distribution, k, token):
    """What a server tells of a distribution [V]: its k likeliest tokens and the answer's own."""
    top = np.argsort(-distribution, kind="stable")[:k]
    return {int(one): float(np.log(distribution[one])) for one in {*top.tolist(), token}}


def test_two_models_are_held_against_one_another_on_what_both_tell_of():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.full(50, 0.3), (2, 6))
    tokens = rng.integers(0, 50, 6).tolist()
    ids = np.argsort(-p, axis=1)[:, :8]
    logs = np.log(np.take_along_axis(p, ids, 1))
    rest = np.log1p(-np.exp(logs).sum(1))
    answer = np.log(p[np.arange(6), tokens])
    base = Distributions(ids.astype(np.uint32), coded(logs), rest, answer.astype(np.float32))
    known = [served(q[n], 5, tokens[n]) for n in range(6)]
    coarse, seen = coarsened(base, tokens, known)
    found = kl_divergence(coarse, seen)
    for n in range(6):
        both = sorted({*ids[n].tolist(), tokens[n]} & known[n].keys())
        parts = [(p[n, one], q[n, one]) for one in both]
        parts.append((1 - sum(a for a, _ in parts), 1 - sum(b for _, b in parts)))
        assert found[n] == pytest.approx(sum(a * np.log(a / b) for a, b in parts), abs=2e-3)
        assert found[n] <= np.sum(p[n] * np.log(p[n] / q[n])) + 1e-3
        assert seen.agrees[n] == (p[n].argmax() == q[n].argmax())
        assert seen.lead[n] == pytest.approx(np.log(q[n].max() / q[n, tokens[n]]), abs=1e-5)
    assert np.allclose(seen.answer, np.log(q[np.arange(6), tokens]))
    own = [served(p[n], 8, tokens[n]) for n in range(6)]
    assert kl_divergence(*coarsened(base, tokens, own)).max() < 1e-10
