"""Steering by identities: the odds law, Delta 0, every row as if it were alone."""

import copy
import math
import threading

import pytest
import torch
from tiny_models import HYBRIDS, KINDS, PAD, REFUSED, STEERABLE, loaded, text, tiny
from transformers.cache_utils import DynamicCache

from pytest_llmprobe.errors import ModelError, SettingsError
from pytest_llmprobe.whitebox import attention
from pytest_llmprobe.whitebox.spans import SpannedPrompt, TokenSpan
from pytest_llmprobe.whitebox.steerability import steerable
from pytest_llmprobe.whitebox.steering import delta_of_odds, left_padded, steer

every_kind = pytest.mark.parametrize(("architecture", "kind"), KINDS)
LENGTHS = (17, 10, 14)
SPANS = ((12, 13, 14), (4, 5), (11,))
DELTAS = (2.0, -1.0, 4.0)


def spanned(ids, *spans):
    return SpannedPrompt(tuple(ids), tuple(TokenSpan(tuple(span)) for span in spans))


ROWS = [
    spanned(text(n, seed), span) for seed, (n, span) in enumerate(zip(LENGTHS, SPANS, strict=True))
]


def padded(rows):
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[PAD] * (width - len(row.ids)) + list(row.ids) for row in rows])
    mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows])
    return ids, mask


def generated(model, rows, tokens=5, **options):
    """New tokens (B, n) and the logits (n, B, V) that chose them."""
    ids, mask = padded(rows)
    options = {"max_new_tokens": tokens, "do_sample": False} | options
    output = model.generate(
        ids, attention_mask=mask, output_logits=True, return_dict_in_generate=True, **options
    )
    return output.sequences[:, ids.shape[1] :], torch.stack(output.logits)


@torch.no_grad()
def alone(model, row, tokens=5):
    """As ``generated``, one row without padding and without a cache."""
    ids, logits = list(row.ids), []
    for _ in range(tokens):
        logits.append(model(torch.tensor([ids]), use_cache=False).logits[0, -1])
        ids.append(int(logits[-1].argmax()))
    return ids[-tokens:], torch.stack(logits)


def last_logits(model, ids):
    with torch.no_grad():
        return model(torch.tensor([list(ids)]), use_cache=False).logits[0, -1]


def log_odds(shares, span):
    inside = shares[..., list(span)].sum(-1).double()
    outside = shares.sum(-1).double() - inside
    return inside.log() - outside.log()


def test_it_works_on_many_architectures():
    assert len(STEERABLE) >= 15
    for architecture in STEERABLE:
        found = steerable(tiny(architecture))
        assert found.reason is None
        assert len(found.layers) == (1 if architecture in ("lfm2", "qwen3_next") else 3)
        assert found.layer_count == 3
        assert found.attention_only == (architecture not in HYBRIDS)


@every_kind
def test_delta_0_is_bit_identical_to_no_steering(architecture, kind):
    model = tiny(architecture, kind)
    tokens, logits = generated(model, ROWS)
    for arguments in ({"prompts": ROWS, "delta": 0.0}, {"prompts": ROWS, "odds": 1}, {}):
        with steer(model, **arguments):
            same_tokens, same = generated(model, ROWS)
        assert torch.equal(same, logits)
        assert torch.equal(same_tokens, tokens)
    with steer(model, ROWS, delta=3.0, layers=[]):
        assert torch.equal(generated(model, ROWS)[1], logits)


@pytest.mark.parametrize("architecture", STEERABLE)
@pytest.mark.parametrize(("layers", "delta"), [("all", 2.0), ("first", -3.0), ("last", 1.0)])
def test_the_odds_of_the_span_are_multiplied(architecture, layers, delta):
    model, span = tiny(architecture, "eager"), (2, 3)
    row = spanned(text(8), span)
    attention = steerable(model).layers
    layer = attention[-1] if layers == "last" else attention[0]
    index = layer if len(attention) > 1 else 0  # hybrids return the maps that they have

    def map_of_layer():
        with torch.no_grad():
            output = model(torch.tensor([row.ids]), use_cache=False, output_attentions=True)
        return [shares for shares in output.attentions if shares is not None][index][0]

    before = map_of_layer()
    with steer(model, row, delta=delta, layers=layers):
        after = map_of_layer()
    shift = (log_odds(after, span) - log_odds(before, span))[:, span[-1] + 1 :]
    assert (shift - delta).abs().max() < 1e-3
    assert torch.equal(before[:, : span[0]], after[:, : span[0]])


@pytest.mark.parametrize(("architecture", "kind"), [pair for pair in KINDS if pair[1] == "sdpa"])
def test_sdpa_and_eager_are_steered_alike(architecture, kind):
    logits = []
    for each in (kind, "eager"):
        model = tiny(architecture, each)
        with steer(model, ROWS, delta=DELTAS, phase="all"):
            logits.append(generated(model, ROWS, tokens=2)[1])
    assert (logits[0] - logits[1]).abs().max() < 1e-5 * logits[0].abs().max().clamp(min=1)


def test_a_long_text_in_blocks_is_steered_as_with_one_mask(monkeypatch):
    ids = text(301, 7)
    row, logits = spanned(ids, range(40, 60)), []
    for blocks in (8, 1):
        monkeypatch.setattr(attention, "BLOCKS", blocks)
        model = tiny("llama", "sdpa")
        with steer(model, row, delta=2.0), torch.no_grad():
            logits.append(model(torch.tensor([ids]), use_cache=False).logits)
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        plain = model(torch.tensor([ids]), use_cache=False).logits
    assert (plain - logits[0])[:, 40:].abs().amax() > 1e-3
    torch.testing.assert_close(plain[:, :40], logits[0][:, :40], atol=1e-5, rtol=1e-5)


@every_kind
def test_rows_of_a_batch_are_steered_as_each_alone(architecture, kind):
    model = tiny(architecture, kind)
    plain = generated(model, ROWS)[1]
    with steer(model, ROWS, delta=DELTAS, phase="all") as steering:
        tokens, logits = generated(model, ROWS)
        reach = steering.reach()
    for number, (row, delta) in enumerate(zip(ROWS, DELTAS, strict=True)):
        with steer(model, row, delta=delta, phase="all"):
            expected_tokens, expected = alone(model, row)
        assert tokens[number].tolist() == expected_tokens
        assert (logits[:, number] - expected).abs().max() < 1e-5 * expected.abs().max().clamp(min=1)
        if reach[number]:
            assert (plain - logits)[0, number].abs().max() > 1e-3
    assert any(reach)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text", "gpt2", "gpt_oss"])
def test_prefill_steers_the_prompt_alone(architecture):
    model, row = tiny(architecture), ROWS[0]
    with steer(model, ROWS, delta=DELTAS, phase="prefill"):
        tokens, logits = generated(model, ROWS)
    with steer(model, ROWS, delta=DELTAS, phase="all"):
        everywhere = generated(model, ROWS)[1]
    assert torch.equal(logits[0], everywhere[0])
    assert not torch.equal(logits[1:], everywhere[1:])
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        with steer(model, row, delta=DELTAS[0]):
            expected = [model(torch.tensor([row.ids]), past_key_values=cache).logits[0, -1]]
        for _ in range(4):
            token = expected[-1].argmax()[None, None]
            expected.append(model(token, past_key_values=cache).logits[0, -1])
        with steer(model, row, delta=DELTAS[0], phase="prefill"):
            whole = torch.tensor([[*row.ids, *tokens[0, :-1].tolist()]])
            at_once = model(whole, use_cache=False).logits[0, -5:]
    assert (torch.stack(expected) - logits[:, 0]).abs().max() < 1e-5
    assert (torch.stack(expected) - at_once).abs().max() < 1e-5


OTHER_WAYS = {
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "prefill in chunks": {"prefill_chunk_size": 6},
}


@pytest.mark.parametrize("way", OTHER_WAYS)
@pytest.mark.parametrize("architecture", ["llama", "mistral", "gemma3_text", "gpt2"])
@pytest.mark.parametrize("phase", ["all", "prefill"])
def test_other_caches_give_the_same(architecture, way, phase):
    model = tiny(architecture)
    with steer(model, ROWS, delta=DELTAS, phase=phase) as steering:
        tokens, logits = generated(model, ROWS)
        reach = steering.reach()
    with steer(model, ROWS, delta=DELTAS, phase=phase) as steering:
        same_tokens, same = generated(model, ROWS, **OTHER_WAYS[way])
        assert steering.reach() == reach
    assert torch.equal(tokens, same_tokens)
    assert (logits - same).abs().max() < 1e-5 * logits.abs().max().clamp(min=1)


def test_beams_count_their_row_again():
    model = tiny("llama")
    with steer(model, ROWS, delta=DELTAS, phase="all"):
        expected = generated(model, ROWS)[0]
        twice = generated(model, ROWS, num_beams=2)[0]
    for number, (row, delta) in enumerate(zip(ROWS, DELTAS, strict=True)):
        with steer(model, row, delta=delta, phase="all"):
            beams = generated(model, [row], num_beams=2)[0]
        assert twice[number].tolist() == beams[0].tolist()
    assert not torch.equal(expected, generated(model, ROWS)[0])


def test_a_batch_of_other_rows_is_refused():
    model = tiny("llama")
    with steer(model, ROWS[:2], delta=1), pytest.raises(SettingsError, match="3 rows is steered"):
        generated(model, ROWS)


@pytest.mark.parametrize("architecture", ["mistral", "gemma3_text", "llama4_text", "llama"])
def test_a_span_outside_a_window_is_reported_and_has_no_effect_there(architecture):
    model = tiny(architecture)
    near, far = spanned(text(24), [22]), spanned(text(24), [2, 3])
    windowed = {"mistral": {0, 1, 2}, "gemma3_text": {0, 2}, "llama4_text": {0, 1, 2}}
    blind = windowed.get(architecture, set())
    with steer(model, [near, far, near], delta=[1, 1, 0]) as steering:
        with steer(model, [near, near, near], delta=-2):
            generated(model, [near, far, near], tokens=1)
        assert steering.reach() == [(0, 1, 2), tuple({0, 1, 2} - blind), ()]
    plain = last_logits(model, far.ids)
    with steer(model, far, delta=3, layers="last"):
        assert torch.equal(last_logits(model, far.ids), plain) == (2 in blind)


def test_levels_are_multiples_of_delta():
    prompt = SpannedPrompt((5, 6, 7, 8), (TokenSpan((1,), 0.5), TokenSpan((1, 2), 2.0)))
    assert prompt.bias(3.0) == (0, 6.0, 6.0, 0)
    assert prompt.bias(-1.0) == (0, -2.0, -2.0, 0)
    assert prompt.positions == (1, 2)
    assert left_padded([prompt.bias(1), (1.0,)]).tolist() == [[0, 2, 2, 0], [0, 0, 0, 1]]


def test_odds_are_the_exponential_of_delta():
    model, row = tiny("llama"), ROWS[0]
    with steer(model, row, odds=3):
        logits = last_logits(model, row.ids)
    with steer(model, row, delta=math.log(3)):
        assert torch.equal(last_logits(model, row.ids), logits)
    assert delta_of_odds(math.e) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("delta", [-100, 100])
def test_extreme_deltas_give_numbers_in_half_precision(kind, dtype, delta):
    model = copy.deepcopy(tiny("llama", kind)).to(dtype)
    with steer(model, ROWS, delta=delta), steer(model, ROWS, delta=delta):
        assert generated(model, ROWS)[1].isfinite().all()


# --- contexts ---


def implementation(model):
    return model.config._attn_implementation


@every_kind
def test_everything_is_restored_even_after_an_exception(architecture, kind):
    model, row = tiny(architecture, kind), ROWS[2]
    before = last_logits(model, row.ids)
    with steer(model, row, delta=5):
        assert implementation(model) == f"llmprobe_{kind}"
        assert not torch.equal(last_logits(model, row.ids), before)
    with pytest.raises(IndexError), steer(model, row, delta=5):
        last_logits(model, [10**6])
    assert implementation(model) == kind
    assert torch.equal(last_logits(model, row.ids), before)


def test_nested_biases_add_and_end_one_by_one():
    model, row = tiny("llama"), ROWS[0]
    ids = row.ids
    with steer(model, row, delta=3):
        three = last_logits(model, ids)
    with steer(model, row, delta=1):
        one = last_logits(model, ids)
        with steer(model, row, delta=2):
            assert (last_logits(model, ids) - three).abs().max() < 1e-5
        with pytest.raises(IndexError), steer(model, row, delta=2):
            last_logits(model, [10**6])
        assert torch.equal(last_logits(model, ids), one)
    assert implementation(model) == "sdpa"


def test_steering_one_model_leaves_another():
    model, other, row = tiny("llama"), tiny("qwen2"), ROWS[0]
    before = last_logits(other, row.ids)
    with steer(model, row, delta=3):
        steered = last_logits(model, row.ids)
        assert torch.equal(last_logits(other, row.ids), before)
        with steer(other, row, delta=3):
            assert torch.equal(last_logits(model, row.ids), steered)
            assert not torch.equal(last_logits(other, row.ids), before)


def test_threads_do_not_steer_one_another():
    model, row = tiny("llama"), ROWS[0]
    deltas = [None, 2.0, -2.0, 0.5]

    def result(delta):
        if delta is None:
            return last_logits(model, row.ids)
        with steer(model, row, delta=delta):
            return last_logits(model, row.ids)

    expected = [result(delta) for delta in deltas]
    barrier, found = threading.Barrier(len(deltas)), {}

    def worker(number, delta):
        barrier.wait()
        if delta is None:
            for _ in range(2):
                barrier.wait()
                found[number] = last_logits(model, row.ids)
                barrier.wait()
            return
        with steer(model, row, delta=delta):
            barrier.wait()  # all are inside
            found[number] = last_logits(model, row.ids)
            barrier.wait()
        barrier.wait()  # all have left
        barrier.wait()

    threads = [threading.Thread(target=worker, args=pair) for pair in enumerate(deltas)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[n], logits) for n, logits in enumerate(expected))
    assert implementation(model) == "sdpa"


def test_the_first_to_leave_does_not_end_the_others():
    model, row = tiny("llama"), ROWS[0]
    with steer(model, row, delta=2):
        expected = last_logits(model, row.ids)
    entered, left = threading.Event(), threading.Event()
    found = []

    def worker():
        with steer(model, row, delta=2):
            entered.set()
            left.wait()
            found.append(last_logits(model, row.ids))

    thread = threading.Thread(target=worker)
    with steer(model, row, delta=5):
        thread.start()
        entered.wait()
    left.set()
    thread.join()
    assert torch.equal(found[0], expected)
    assert implementation(model) == "sdpa"


# --- what cannot be steered ---


@pytest.mark.parametrize("architecture", REFUSED)
def test_models_without_steerable_attention_are_refused(architecture):
    model = tiny(architecture)
    reason = "AttentionInterface"
    if architecture not in ("bloom", "gptj"):
        # transformers looks for the model's module, which a pytest run within this one may forget.
        reason += "|state-space"
    assert steerable(model).layers == ()
    with pytest.raises(ModelError, match=reason), steer(model, ROWS[0], delta=1):
        pass
    assert not implementation(model).startswith("llmprobe")


def test_kernels_that_take_no_bias_are_refused():
    model = copy.deepcopy(tiny("llama"))
    model.set_attn_implementation("flex_attention")
    with (
        pytest.raises(ModelError, match="flex_attention kernels take no bias"),
        steer(model, ROWS[0], delta=1),
    ):
        pass


def test_a_layer_that_ignores_its_mask_is_found(monkeypatch):
    from transformers.models.qwen2 import modeling_qwen2

    eager = modeling_qwen2.eager_attention_forward
    model = tiny("qwen2", "eager", num_hidden_layers=2)

    def deaf(module, query, key, value, attention_mask, **options):
        mask = attention_mask if module.layer_idx else attention_mask.clamp(max=0)
        return eager(module, query, key, value, mask, **options)

    monkeypatch.setattr(modeling_qwen2, "eager_attention_forward", deaf)
    assert steerable(model).layers == (1,)
    with (
        pytest.raises(SettingsError, match="layer 0 cannot be steered"),
        steer(model, ROWS[0], delta=1, layers=[0]),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": math.nan}, "between -100 and 100"),
        ({"delta": 101}, "between -100 and 100"),
        ({"odds": 0}, "above 0"),
        ({"odds": math.inf}, "above 0"),
        ({}, "either delta or odds"),
        ({"delta": 1, "odds": 2}, "either delta or odds"),
        ({"delta": [1, 2]}, "2 values of delta for 1 prompts"),
        ({"delta": 1, "layers": "middle"}, "'first', 'last'"),
        ({"delta": 1, "layers": [3]}, "layer 3 cannot be steered"),
        ({"delta": 1, "phase": "decode"}, "'all' or 'prefill'"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with (
        pytest.raises(SettingsError, match=message),
        steer(tiny("llama"), ROWS[0], **arguments),
    ):
        pass
    with pytest.raises(SettingsError, match="need the prompts"), steer(tiny("llama"), delta=1):
        pass


def test_a_loaded_model_will_do():
    model = loaded()
    row = spanned([5, 6, 7, 8, 9, 10], [2])
    before = last_logits(model.model, row.ids)
    with steer(model, row, delta=3):
        assert not torch.equal(last_logits(model.model, row.ids), before)
    assert steerable(model) == steerable(model.model)
