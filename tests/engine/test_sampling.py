"""Row noise: its distribution, and that it depends on seed, step and token only."""

import torch

from pytest_llmprobe import GenerateConfig
from pytest_llmprobe.engine.sampling import RowGumbel, gumbel, sampling_chain


def test_samples_follow_the_softmax():
    scores = torch.tensor([2.0, 1.0, 0.0, -1.0, -3.0])
    draws = 20_000
    noise = gumbel(torch.arange(draws), 1, 5)
    counts = torch.bincount((scores + noise).argmax(-1), minlength=5) / draws
    expected = scores.softmax(-1)
    error = (expected * (1 - expected) / draws).sqrt()
    assert ((counts - expected).abs() < 4 * error).all()


def test_noise_depends_on_seed_step_and_token():
    one = gumbel(torch.tensor([7, 8]), 1, 100)
    assert torch.equal(gumbel(torch.tensor([8, 7]), 1, 100), one.flip(0))
    assert torch.equal(gumbel(torch.tensor([7]), 1, 50), one[:1, :50])
    assert not torch.equal(gumbel(torch.tensor([7]), 2, 100), one[:1])
    assert one.isfinite().all()
    assert one.unique().numel() > 190


def test_consecutive_steps_are_independent():
    first, second = (gumbel(torch.arange(2000), step, 20).argmax(-1) for step in (1, 2))
    agree = (first == second).float().mean()
    assert abs(agree - 1 / 20) < 0.02


def test_greedy_needs_no_chain():
    assert len(sampling_chain(GenerateConfig(), [0])) == 0


def test_the_noise_comes_last():
    config = GenerateConfig(temperature=0.5, top_k=3, top_p=0.9, min_p=0.1)
    chain = sampling_chain(config, [0])
    assert len(chain) == 5
    assert isinstance(chain[-1], RowGumbel)


def test_top_k_leaves_only_k_tokens():
    scores = torch.arange(10.0)[None].repeat(500, 1)
    chain = sampling_chain(GenerateConfig(temperature=5.0, top_k=3), list(range(500)))
    chosen = chain(torch.zeros(500, 1, dtype=torch.long), scores).argmax(-1)
    assert set(chosen.tolist()) == {7, 8, 9}
