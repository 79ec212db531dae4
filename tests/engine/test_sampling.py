"""Row noise: its distribution, and that it depends on seed, step and token only."""

import pytest
import torch

from pytest_llmprobe import GenerateConfig
from pytest_llmprobe.engine.sampling import RowSampler, best_of, gumbel, leads, sampled

ONE = GenerateConfig(temperature=1.0)


def alike(scores, config, seeds, steps, histories=None):
    """Scores of rows that have one config."""
    rows = len(seeds)
    return sampled(scores, [config] * rows, seeds, steps, histories or [[]] * rows)


def noise(seeds, step, vocabulary):
    seeds = torch.tensor(seeds)
    return gumbel(seeds, torch.full_like(seeds, step), vocabulary)


@pytest.mark.parametrize("vocabulary", [2, 511, 512, 513, 2048, 3000])
def test_the_best_two_are_found_by_blocks(vocabulary):
    """Against topk and argmax; with equals, with tokens that are dropped, with rows of nothing."""
    draw = torch.Generator().manual_seed(vocabulary)
    scores = torch.randint(0, 50, (40, vocabulary), generator=draw).float()  # many equals
    scores[1::2] += torch.rand(20, vocabulary, generator=draw)
    scores[2::4][torch.rand(10, vocabulary, generator=draw) > 0.01] = -torch.inf
    scores[5] = -torch.inf
    best = best_of(scores)
    assert torch.equal(best.token, scores.argmax(-1))
    assert torch.equal(torch.stack(best[1:], dim=-1), scores.topk(2, dim=-1).values)
    scores[3, vocabulary // 2] = torch.nan
    assert best_of(scores).score.isnan().nonzero().tolist() == [[3]]


def test_samples_follow_the_softmax():
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0])
    draws = 20_000
    seeds, steps = list(range(draws)), [1] * draws
    chosen = alike(scores.expand(draws, 5), ONE, seeds, steps).argmax(-1)
    counts = torch.bincount(chosen, minlength=5) / draws
    expected = scores.softmax(-1)
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((counts - expected).abs() < 4 * error).all()


def test_noise_depends_on_seed_step_and_token():
    one = noise([7, 8], 1, 100)
    assert torch.equal(noise([8, 7], 1, 100), one.flip(0))
    assert torch.equal(noise([7], 1, 50), one[:1, :50])
    assert not torch.equal(noise([7], 2, 100), one[:1])
    assert one.isfinite().all()
    assert one.unique().numel() > 190


def test_noise_is_finite_whatever_the_bits(monkeypatch):
    for bits in (0, -1):  # none of the bits, and all of them
        monkeypatch.setattr(
            "pytest_llmprobe.engine.sampling._mix", lambda x, bits=bits: torch.full_like(x, bits)
        )
        assert noise([7], 1, 3).isfinite().all()


def test_rows_of_different_steps_share_a_call():
    together = gumbel(torch.tensor([7, 7]), torch.tensor([1, 2]), 20)
    assert torch.equal(together, torch.cat([noise([7], 1, 20), noise([7], 2, 20)]))


def test_consecutive_steps_are_independent():
    first, second = (noise(list(range(2000)), step, 20).argmax(-1) for step in (1, 2))
    agree = (first == second).float().mean()
    assert abs(agree - 1 / 20) < 0.02


def test_greedy_scores_stay_as_they_are():
    scores = torch.randn(3, 5)
    assert alike(scores, GenerateConfig(), [0, 1, 2], [1, 1, 1]) is scores


def test_a_low_temperature_is_greedy():
    scores = torch.randn(50, 20)
    config = GenerateConfig(temperature=1e-4)
    chosen = alike(scores, config, list(range(50)), [1] * 50).argmax(-1)
    assert torch.equal(chosen, scores.argmax(-1))


def test_filters_leave_only_what_they_should():
    scores = torch.arange(10.0).expand(500, 10)
    seeds, steps = list(range(500)), [1] * 500
    for config, left in (
        (GenerateConfig(temperature=9.0, top_k=3), {7, 8, 9}),
        (GenerateConfig(temperature=1.0, top_p=0.6), {9}),
        (GenerateConfig(temperature=1.0, min_p=0.3), {8, 9}),
    ):
        chosen = alike(scores, config, seeds, steps).argmax(-1)
        assert set(chosen.tolist()) == left


def test_the_processor_counts_its_steps():
    sampler = RowSampler(ONE, [7], [1])
    scores = torch.zeros(1, 30)
    for step in (1, 2):
        expected = alike(scores, ONE, [7], [step])
        assert torch.equal(sampler(torch.zeros(1, 1), scores), expected)


def test_scores_of_rows_with_different_configs_are_those_of_each_alone():
    configs = [
        GenerateConfig(),
        GenerateConfig(temperature=0.7, top_p=0.8),
        GenerateConfig(repetition_penalty=1.5),
        GenerateConfig(temperature=0.7, top_p=0.8),
        GenerateConfig(temperature=2.0, no_repeat_ngram_size=2),
    ]
    scores = torch.randn(5, 50, generator=torch.Generator().manual_seed(0))
    before, seeds, steps = scores.clone(), [3, 1, 4, 1, 5], [1, 2, 1, 2, 3]
    histories = [[7, 8, 7]] * 5
    together = sampled(scores, configs, seeds, steps, histories)
    assert torch.equal(scores, before)
    for n, config in enumerate(configs):
        alone = alike(scores[n : n + 1], config, [seeds[n]], [steps[n]], [histories[n]])
        assert torch.equal(together[n : n + 1], alone)


def lead(scores, config, seed=3):
    logits = torch.tensor([scores])
    chosen = sampled(logits, [config], [seed], [1], [[]])
    return leads(logits, chosen, best_of(chosen), [config], [seed], [1]).item()


def test_a_lead_is_in_units_of_the_logits():
    scores = [5.0, 4.99, 0.0]
    assert lead(scores, GenerateConfig()) == pytest.approx(0.01, rel=1e-3)
    cold = GenerateConfig(temperature=1e-4)
    assert lead(scores, cold) == pytest.approx(0.01, rel=0.1)


def test_tokens_that_change_places_at_a_filters_cut_are_a_close_call():
    first = GenerateConfig(temperature=1.0, top_k=1)
    assert lead([5.0, 5.0 - 1e-5, 0.0], first) < 1e-4
    assert lead([5.0, 4.0, 0.0], first) == torch.inf
    # The last token that is kept, and the first that is not, do not matter where another is chosen.
    three = GenerateConfig(temperature=1.0, top_k=3)
    assert lead([50.0, 1.0, 0.5, 0.5 - 1e-5], three) > 40


def test_a_dropped_token_that_would_have_been_chosen_is_a_close_call():
    two = GenerateConfig(temperature=1.0, top_k=2)
    scores = [1.0, 0.5, 0.5 - 1e-5]
    close = [lead(scores, two, seed) < 1e-4 for seed in range(60)]
    free = [alike(torch.tensor([scores]), ONE, [s], [1]).argmax().item() for s in range(60)]
    kept = [
        sampled(torch.tensor([scores]), [two], [s], [1], [[]]).argmax().item() for s in range(60)
    ]
    assert any(token == 2 for token in free)
    assert close == [a == 2 or b == 1 for a, b in zip(free, kept, strict=True)]
