"""Tiny models that think, in the grammars of real families: each token follows from the last."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END, TURN = "<|end_of_text|>", "<|im_end|>"
THOUGHT = ("Maybe {41}?", " No, not Lima. Paris", " it is.")
ANSWER = ("{", '"city": ', '"Paris"', "}")
MESSAGE = "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
TAGS = "{% macro tag(kind, name) %}<|{{ kind }}|>{{ name }}<|sep|>{% endmacro %}"


@dataclass(frozen=True)
class Family:
    """One grammar.

    Args:
        template: What its chat template writes before an answer.
        opening: Tokens before a thought.
        closing: Tokens after it.
        asked: The prompt's last character if it is to think.
        quiet: The last token of a prompt that is not to.
        special: Tokens that a text leaves out.
        message: How its chat template writes a message ``m``.
        said: What is said with thoughts switched on.
    """

    template: str
    opening: tuple[str, ...]
    closing: tuple[str, ...]
    asked: str = ":"
    quiet: str = "."
    special: tuple[str, ...] = ()
    message: str = MESSAGE

    @property
    def said(self):
        return (*self.opening, *THOUGHT, *self.closing, *ANSWER)


FAMILIES = {
    "a switch that ends an empty thought (Qwen 3)": Family(
        "{% if enable_thinking is defined and not enable_thinking %}"
        "<think>\n\n</think>\n\n{% endif %}",
        ("<think>",),
        ("</think>",),
        quiet="\n",
    ),
    "a prompt that opens the thought (DeepSeek)": Family(
        "{% if thinking %}<think>\n{% else %}</think>{% endif %}",
        (),
        ("</think>",),
        asked="\n",
        quiet="</think>",
    ),
    "special tokens (Magistral)": Family(
        "{% if reasoning_effort == 'none' %}.{% endif %}",
        ("[THINK]",),
        ("[/THINK]",),
        special=("[THINK]", "[/THINK]"),
    ),
    "channels (gpt-oss)": Family(
        "{% if reasoning_effort == 'none' %}.{% endif %}",
        ("<|channel|>", "analysis", "<|message|>"),
        ("<|end|>", "<|start|>", "assistant<|channel|>final<|message|>"),
        special=("<|channel|>", "<|message|>", "<|end|>", "<|start|>"),
    ),
    "marks made of pieces (Kimi K3)": Family(
        TAGS + "{{ tag('open', 'think' if thinking else 'response') }}",
        (),
        ("<|close|>", "think<|sep|><|open|>", "response<|sep|>"),
        asked=">",
        quiet="response<|sep|>",
        special=("<|close|>",),
        message=TAGS + "{% if m.role == 'user' %}" + MESSAGE + "{% else %}<|im_start|>assistant:"
        "{% if thinking %}{{ tag('open', 'think') }}{{ m.reasoning_content }}"
        "{{ tag('close', 'think') }}{% endif %}{{ tag('open', 'response') }}"
        "{{ m.content }}<|im_end|>{% endif %}",
    ),
    "messages to oneself": Family(
        "{% if reasoning_effort == 'none' %}.{% endif %}",
        (" to=self", "<|message|>"),
        ("<|eom|>", "<|im_start|>assistant: to=user<|message|>"),
        special=("<|message|>", "<|eom|>"),
        message="{% if m.role == 'user' %}" + MESSAGE + "{% else %}{% if m.reasoning %}"
        "<|im_start|>assistant: to=self<|message|>{{ m.reasoning }}<|eom|>{% endif %}"
        "<|im_start|>assistant: to=user<|message|>{{ m.content }}<|im_end|>{% endif %}",
    ),
    "marks of ordinary tokens": Family(
        "{% if enable_thinking is false %}<think></think>\n\n{% endif %}",
        ("<", "thi", "nk>\n"),
        ("</", "think", ">\n\n"),
        quiet=">\n\n",
    ),
}


def tokenizer_of(family):
    """Bytes, and the family's own tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens.decoder = decoders.ByteLevel()
    special = (END, "<|im_start|>", TURN, *family.special)
    tokens.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    known = {*alphabet, "\n", *special}
    own = dict.fromkeys(t for t in (*family.said, family.quiet) if t not in known)
    tokens.add_tokens([AddedToken(t, special=False, normalized=False) for t in own])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token=END, pad_token=END)
    tokenizer.chat_template = (
        "{% for m in messages %}" + family.message + "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant:" + family.template + "{% endif %}"
    )
    return tokenizer


def save(family, folder):
    """A Llama whose layer adds nothing, so that the last token alone decides the next one."""
    tokenizer = tokenizer_of(family)

    def id_of(token):
        (found,) = tokenizer(token, add_special_tokens=False)["input_ids"]
        return found

    said = [family.asked, *family.said, TURN]
    steps = {id_of(a): id_of(b) for a, b in pairwise(said)}
    assert len(steps) == len(said) - 1, "a token would have to be followed by two"
    steps |= {id_of(family.quiet): id_of(ANSWER[0])}
    size = -(-len(tokenizer) // 64) * 64
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        max_position_embeddings=2048,
        eos_token_id=id_of(END),
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight.fill_diagonal_(1.0)
        for before in range(size):
            model.lm_head.weight[steps.get(before, id_of("x")), before] = 1.0
    model.generation_config = GenerationConfig(eos_token_id=id_of(END))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
