"""Served models beside one another, token by token: as vLLM tells, as llama.cpp, or not at all."""

import json
from dataclasses import replace

import numpy as np
import pytest
from loopback import Reply

from pytest_llmprobe import GenerateConfig, RawPrompt, Request
from pytest_llmprobe.engine.fidelity import answer_fidelity
from pytest_llmprobe.generation import Completion, Steer, Timings, Usage

WORDS = [chr(code) for code in range(32, 127)]
"""The vocabulary: a token is a character, and its id the number in here."""


def distribution(before, seed):
    """Of the next token [V], by the last two characters."""
    own = seed if seed == 0 else 0
    rng = np.random.default_rng([own, *before[-2:].encode()])
    scores = rng.normal(size=len(WORDS)) * 3
    if seed:
        scores = scores + 0.3 * np.random.default_rng([seed, *before[-2:].encode()]).normal(
            size=len(WORDS)
        )
    return np.exp(scores) / np.exp(scores).sum()


def rendered(messages):
    """A chat template; a last message of the assistant's is gone on with."""
    texts = [f"{message['role']}: {message['content']}" for message in messages]
    return " ".join(texts if messages[-1]["role"] == "assistant" else [*texts, "assistant: "])


def entries(values, which):
    return {
        str(one): {"logprob": float(np.log(values[one])), "decoded_token": WORDS[one]}
        for one in which
    }


def vllm(seed=0, most=20, tells_ids=True, ranked=True):
    """Answers as vLLM: what is likeliest first, and the prompt's own token behind it."""

    def answer(asked):
        body = asked.body
        if body.get("prompt_logprobs", 0) > most:
            said = f"Requested prompt logprobs of {body['prompt_logprobs']}, at most {most}"
            return Reply({"error": {"message": said, "code": 400}}, 400)
        text = body["prompt"] if "prompt" in body else rendered(body["messages"])
        ids = [WORDS.index(character) for character in text]
        told = [None]
        for place in range(1, len(ids)):
            values = distribution(text[:place], seed)
            top = np.argsort(-values)[: body["prompt_logprobs"]].tolist()
            told.append(entries(values, dict.fromkeys([*top, ids[place]])))
        choice = {"text": "x", "message": {"content": "x"}, "finish_reason": "length"}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 1}
        known = {"prompt_token_ids": ids} if tells_ids else {}
        if "prompt" in body:
            return {"choices": [choice | {"prompt_logprobs": told} | known], "usage": usage}
        return {"choices": [choice], "usage": usage, "prompt_logprobs": told} | known

    return answer


def llama_cpp(seed=0):
    """Answers as llama.cpp's server, which tells of the next token only."""

    def answer(asked):
        body = asked.body
        if asked.path == "/apply-template":
            return {"prompt": rendered(body["messages"])}
        if asked.path == "/tokenize":
            pieces = [{"id": WORDS.index(one), "piece": one} for one in body["content"]]
            return {"tokens": pieces}
        if asked.path == "/completion":
            values = distribution("".join(WORDS[one] for one in body["prompt"]), seed)
            top = [
                {"id": int(one), "logprob": float(np.log(values[one]))}
                for one in np.argsort(-values)[: min(body["n_probs"], 30)]
            ]
            if body["n_probs"] > len(WORDS):
                top = [{"id": n, "logprob": float(np.log(v))} for n, v in enumerate(values)]
            return {"completion_probabilities": [{"top_logprobs": top}]}
        return {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}

    return answer


def completion(text):
    return Completion(text, (), "stop", Usage(9, len(text)), Timings(0.1, 1), "0" * 16)


CONFIG = GenerateConfig(max_new_tokens=9)
ASKED = {
    "chat": Request("What is it?", CONFIG),
    "text": Request(RawPrompt("Once upon"), CONFIG),
    "begun": Request(
        [{"role": "user", "content": "Go"}, {"role": "assistant", "content": "On"}], CONFIG
    ),
}
ANSWERS = {"chat": "a hat, 3", "text": " a time", "begun": "ward"}
ANSWERED = {name: (request, completion(ANSWERS[name])) for name, request in ASKED.items()}


def exact(name, seed, k):
    """KL over what both tell of, and the answer's log-probability, at each of its tokens."""
    prompt = ASKED[name].prompt
    if isinstance(prompt, RawPrompt):
        text = prompt.text
    else:
        chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        text = rendered(chat)
    found = []
    for character in ANSWERS[name]:
        p, q = distribution(text, 0), distribution(text, seed)
        own = WORDS.index(character)
        tops = [{*np.argsort(-values)[:k].tolist(), own} for values in (p, q)]
        both = [*(tops[0] & tops[1])]
        a, b = ([*v[both], 1 - v[both].sum()] for v in (p, q))
        found.append((np.sum(a * np.log(np.divide(a, b))), np.log(q[own])))
        text += character
    return np.array(found).T


@pytest.fixture
def kept(server, ask):
    looker = answer_fidelity(ask(server(vllm())))
    return looker.keep(ANSWERED), looker.maker("base")


@pytest.mark.parametrize(("kind", "k"), [(vllm, 20), (llama_cpp, 30)])
def test_a_served_model_is_measured_against_a_served_baseline(server, ask, kept, kind, k):
    answers, maker = kept
    named = {one.name: one for one in answers}
    assert (set(named), maker.k) == (set(ASKED), 20)
    assert [WORDS[token] for token in named["chat"].tokens] == [*ANSWERS["chat"]]
    same = answer_fidelity(ask(server(kind()))).compare(maker, named, ASKED)
    other = answer_fidelity(ask(server(kind(seed=7)))).compare(maker, named, ASKED)
    for name in ASKED:
        assert same[name]["kl_max"] < 1e-9
        assert (same[name]["remark"], same[name]["prompt_changed"]) == (None, False)
        assert "".join(other[name]["pieces"]) == ANSWERS[name]
        kl, own = exact(name, 7, 20)
        if kind is vllm:
            assert other[name]["kl"] == pytest.approx(kl, rel=0.02, abs=2e-3)
        assert other[name]["kl_mean"] > 0.01
        assert other[name]["log_probability"] == pytest.approx(own.sum(), abs=1e-4)


def test_fewer_are_asked_for_where_a_server_tells_of_no_more(server, ask):
    asked = server(vllm(most=5))
    looker = answer_fidelity(ask(asked))
    assert {one.found.k for one in looker.keep(ANSWERED)} == {5}
    assert looker.maker("m").k == 5
    numbers = [one.body["prompt_logprobs"] for one in asked.asked]
    assert set(numbers[-2:]) == {5}  # it was found out once
    assert numbers.count(64) <= len(ASKED)


def test_what_a_server_cannot_tell_is_a_remark_and_asked_once(server, ask, kept):
    answers, maker = kept
    named = {one.name: one for one in answers}
    plain = server(
        lambda asked: (
            {"choices": [{"message": {"content": "x"}, "text": "x", "finish_reason": "stop"}]}
            if asked.path.startswith("/v1/")
            else Reply({"error": "no such path"}, 404)
        )
    )
    looker = answer_fidelity(ask(plain, concurrency=1))
    found = looker.compare(maker, named, ASKED)
    assert all("tells no log-probabilities of a prompt" in one["remark"] for one in found.values())
    assert len(plain.asked) == 2
    assert looker.keep(ANSWERED) == []
    assert len(plain.asked) == 2


def test_without_ids_a_baseline_keeps_only_what_is_beyond_doubt(server, ask, kept):
    looker = answer_fidelity(ask(server(vllm(tells_ids=False))))
    assert {one.name for one in looker.keep(ANSWERED)} == set(ASKED)  # pieces differ by letter


def test_nan_steering_and_an_empty_answer_say_so(server, ask, kept):
    answers, maker = kept
    named = {one.name: one for one in answers}

    def broken(asked):
        return (
            json.dumps(vllm(most=64)(asked))
            .replace('"logprob": -', '"logprob": NaN, "x": -')
            .encode()
        )

    found = answer_fidelity(ask(server(broken))).compare(maker, named, ASKED)
    assert all("is no number" in one["remark"] for one in found.values())
    steered = replace(ASKED["chat"], steer=Steer(("What",), 1.0))
    named["text"] = replace(named["text"], text="", text_tokens=0)
    looker = answer_fidelity(ask(server(vllm())))
    asked = {"chat": steered, "text": ASKED["text"], "new": ASKED["begun"]}
    found = looker.compare(maker, named, asked)
    assert "steered" in found["chat"]["remark"]
    assert "has no text" in found["text"]["remark"]
    assert "kept no distributions" in found["new"]["remark"]


def test_other_tokens_leave_the_text(server, ask, kept):
    answers, maker = kept
    named = {one.name: replace(one, tokens=tuple(t + 1 for t in one.tokens)) for one in answers}
    found = answer_fidelity(ask(server(vllm(seed=7)))).compare(maker, named, ASKED)
    for name, one in found.items():
        assert (one["tokens"], one["text_bytes"]) == (0, len(ANSWERS[name]))
        assert one["log_probability"] == pytest.approx(exact(name, 7, 20)[1].sum(), abs=1e-4)
