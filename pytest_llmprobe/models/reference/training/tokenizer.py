r"""The reference model's tokenizer: byte-level BPE of 2,048 tokens, made for copying and look-up.

The model has to learn to find and to copy with few parameters, so equal text gives equal tokens:

- A lower-case UUID is 16 tokens wherever it stands: hex pairs, a dash joined to the pair after it.
  One with characters masked by ``*`` keeps its other pairs.
- The space is a token, never a part of a word: ``Lena`` is the same after a space or a quote.
- What stands between a key and its value (``": "``, ``: ``, `` -> ``) is one token, so that the
  value begins 17 tokens after the key, in JSON and in plain text.
- Digits come in pairs from the left: ``123456`` is ``12 34 56``.

The literal text of a special token inside a message (``<|end|>``) becomes that special token, as
with most tokenizers of the transformers library; ``split_special_tokens=True`` in a call keeps it
text. The chat template does not escape anything.
"""

import json
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY_SIZE = 2048
MODEL_MAX_LENGTH = 4096

PAD, BOS, END = "<|pad|>", "<|bos|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
SPECIAL_TOKENS = (PAD, BOS, END, *ROLES)

# The order is that of the regex alternatives: a longer one stands before its own beginning.
SEPARATORS = ('": "', '", "', '",\n', '"\n"', '"\n', '{"', '"}', " -> ", ": ", "\n\n")

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('Unknown role ' ~ message['role'] ~ ': system, user or assistant') }}
    {%- endif %}
    {{- '<|' ~ message['role'] ~ '|>' ~ message['content'] ~ '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>' }}
{%- endif %}
"""

_PAIRS = ["".join(pair) for pair in product("0123456789abcdef", repeat=2)]
_HEX_OR_MASK = "[0-9a-f*]"
_UUID = "-".join(f"{_HEX_OR_MASK}{{{length}}}" for length in (8, 4, 4, 4, 12))
_PUNCTUATION = r"[^\s\p{L}\p{N}]"

Merge = tuple[str, str]


def build(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same texts always give the same one.

    Args:
        texts: What the words' merges are learnt from. UUIDs, numbers and separators in them are
            passed over, as their merges are made by hand.

    Returns:
        A fast tokenizer of at most ``VOCABULARY_SIZE`` tokens, with the chat template. The ids of
        all tokens that are not learnt (special, bytes, hex pairs, separators) do not depend on
        the texts.
    """
    tokenizer = Tokenizer(_model(_word_merges(texts)))
    tokenizer.pre_tokenizer = _pre_tokenizer(Regex(_split_pattern()), keep_rest=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B:1",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        model_max_length=MODEL_MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the files that ``AutoTokenizer.from_pretrained(folder)`` loads."""
    tokenizer.save_pretrained(folder)


def _split_pattern() -> str:
    """One regex for all pieces: a second Split after it would split the pieces of the first."""
    # Without the look-ahead a run of letters or digits would swallow the start of a UUID.
    letter, digit = (rf"(?:(?!{_UUID})\p{{{category}}})" for category in "LN")
    return "|".join(
        [
            _uuid_pair_pattern(),
            *(re.escape(separator) for separator in SEPARATORS),
            f"{letter}+",
            f"{digit}{{1,2}}",
            r"\s",
            _PUNCTUATION,
        ]
    )


def _uuid_pair_pattern() -> str:
    """A pair of hex digits, with its dash, that has the rest of a UUID on both of its sides."""
    pair = _HEX_OR_MASK * 2
    first, middle, last = [pair] * 4, [f"-{pair}", pair], [f"-{pair}"] + [pair] * 5
    pairs = first + middle * 3 + last
    places = (
        f"(?<={''.join(pairs[:i])}){pairs[i]}(?={''.join(pairs[i + 1 :])})"
        for i in range(len(pairs))
    )
    # The guard in front saves most positions of a text from 16 attempts.
    return f"(?=-?{_HEX_OR_MASK}{{2}})(?:{'|'.join(places)})"


def _pre_tokenizer(pattern: Regex, *, keep_rest: bool) -> pre_tokenizers.PreTokenizer:
    behavior = "isolated" if keep_rest else "removed"
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior, invert=not keep_rest),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _word_merges(texts: Iterable[str]) -> list[Merge]:
    """The merges of words (and of the bytes of one sign), the most frequent first."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = _pre_tokenizer(Regex(rf"\p{{L}}+|{_PUNCTUATION}"), keep_rest=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator((re.sub(_UUID, " ", text) for text in texts), trainer)
    return [(left, right) for left, right in json.loads(trained.to_str())["model"]["merges"]]


def _hand_made_merges() -> list[Merge]:
    """The merges of the hex pairs, of a dash with a pair, and of the separators."""
    merges = [(pair[0], pair[1]) for pair in _PAIRS]
    merges += [("-", pair) for pair in _PAIRS]
    for separator in SEPARATORS:
        signs = _in_byte_alphabet(separator)
        merges += [(signs[:i], signs[i]) for i in range(1, len(signs))]
    return list(dict.fromkeys(merges))


def _in_byte_alphabet(text: str) -> str:
    """The text as byte-level BPE writes it: a space is ``Ġ``, a newline ``Ċ``."""
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return "".join(piece for piece, _ in byte_level.pre_tokenize_str(text))


def _model(word_merges: Iterable[Merge]) -> models.BPE:
    """The vocabulary: what is fixed, then as many of the words' merges as there is room for."""
    by_hand = _hand_made_merges()
    tokens = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += [left + right for left, right in by_hand]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    merges: dict[Merge, None] = {}
    for left, right in word_merges:
        if left + right not in vocabulary:
            if len(vocabulary) == VOCABULARY_SIZE:
                break  # a merge uses earlier ones only, so any first part of the list is complete
            vocabulary[left + right] = len(vocabulary)
        merges[left, right] = None
    # The words' merges rank first, as they were learnt. The others rank after them: the longer
    # separators before ": ", whose merge would otherwise come first inside '": "'.
    merges.update(dict.fromkeys(by_hand))
    return models.BPE(vocab=vocabulary, merges=list(merges))
