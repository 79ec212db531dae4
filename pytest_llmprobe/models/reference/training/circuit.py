"""The look-up circuit that the reference model starts with, written into its weights.

- Layer 0 copies the three tokens before each token into slots of the residual stream.
- Layer 1 copies the code of a key (its first three tokens) to the value beside it, and the code of
  the key asked for to the answer's position.
- Each of the layers 2 to 5 makes one hop: it matches the code at the answer's position with the
  keys' codes and replaces it by the code of the value; without a match it looks at the first token
  and adds nothing.
- Layer 5 writes the code's tokens out, and goes on from the last three tokens (induction).

Codes are random vectors of signs and gains are estimates, so this works only roughly: training does
the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

HEAD = 64  # dimensions of an attention head
HALF, FAST = HEAD // 2, 10  # a dimension turns with the one HALF behind it; the first turn fast
THETA = 1e8  # half of each head's dimensions turn by less than half a radian over 4,096 tokens
CODE = 30  # dimensions of a token's code
STRIDE = 17  # tokens from a key to its value: the 16 of a UUID and one separator

# Where things are in the residual stream.
OWN = slice(0, CODE)
ONE, FILL = 30, 31  # 1 on all tokens; what makes all embeddings equally long
OPENS, COLON, ANSWER, FIRST = range(32, 36)  # marks: MARK on some tokens, 0 on others
BEFORE = [slice(36, 66), slice(66, 96), slice(96, 126)]  # codes of the 1, 2, 3 tokens before
ANSWER_BEFORE = [126, 127]  # the answer mark of the 1, 2 tokens before
OPENS_3, COLON_3 = 128, 129  # marks of the token three before
COUNTS = range(130, 134)  # how many keys are asked for: 2 to 5
KEY = slice(134, 194)  # at a value: the code of its key
VALUE = slice(194, 254)  # at a value: its own code
ASKED = slice(254, 314)  # at an answer: the code that is looked up
KEPT = slice(126, 314)  # what only the circuit writes

MARK = 0.5
TO_ASKED = 21  # tokens from the last key asked for (its third token) to the answer, about
MATCH, IS_VALUE, SINK = 3.8, 4.0, 4.45  # how strongly a hop looks for a code, a value, no match


@dataclass(frozen=True)
class Marks:
    """Tokens that the circuit must tell from others, by id."""

    first: int  # every prompt begins with it
    opens: Sequence[int]  # can stand before a key or a value
    colon: Sequence[int]  # those of them that stand between a key and its value
    answers: Sequence[int]  # a value is given after them: ``assistant`` and the end of a line
    counts: Sequence[int]  # the numbers 2, 3, 4 and 5


class Circuit:
    """Writes the circuit into a model's weights."""

    def __init__(self, model: LlamaForCausalLM, marks: Marks) -> None:
        self.model, self.marks = model, marks
        self.heads: list[tuple[int, int]] = []  # that the circuit uses: layer and number
        self.frequency = THETA ** (-torch.arange(0, HEAD, 2) / HEAD)
        slow = torch.nonzero(self.frequency < 1.5e-4).flatten()
        self.slow = torch.cat([slow, slow + HALF])  # dimensions of a head that hardly turn
        whole, half = torch.eye(CODE), torch.zeros(CODE, CODE)
        half[: CODE // 2, : CODE // 2] = torch.eye(CODE // 2)
        # A code is the first token's and half of each of the next two, all a vector of signs.
        self.parts = [whole, half, whole - half]

    def seed(self) -> None:
        """Write all of it."""
        self.embeddings()
        for offset in (1, 2, 3):
            self.look_back(offset)
        self.count()
        self.key_to_value()
        self.question_to_answer()
        for layer in (2, 3, 4, 5):
            self.hop(layer)
        self.induction(5)
        self.write_out(5)

    def embeddings(self) -> None:
        """Codes and marks of the tokens."""
        weight = self.model.model.embed_tokens.weight
        weight[:, OWN] = (torch.randint(2, (len(weight), CODE)) * 2 - 1) / CODE**0.5
        weight[self.marks.first, OWN] = 0  # looking at the first token adds nothing
        weight[:, ONE:] = 0
        weight[:, ONE] = 1
        weight[list(self.marks.opens), OPENS] = MARK
        weight[list(self.marks.colon), COLON] = MARK
        weight[list(self.marks.answers), ANSWER] = MARK
        for token, count in zip(self.marks.counts, COUNTS, strict=True):
            weight[token, count] = MARK
        weight[self.marks.first, FIRST] = MARK
        weight[:, FILL] = (3 - weight.square().sum(1)).sqrt()

    def head(self, layer: int, head: int) -> tuple[torch.Tensor, ...]:
        """Views of one head's weights, q, k, v [64, width] and o [width, 64], zeroed."""
        self.heads.append((layer, head))
        attention = self.model.model.layers[layer].self_attn
        rows = slice(head * HEAD, (head + 1) * HEAD)
        views = (
            attention.q_proj.weight[rows],
            attention.k_proj.weight[rows],
            attention.v_proj.weight[rows],
            attention.o_proj.weight[:, rows],
        )
        for view in views:
            view *= 0.1
        return views

    def at_distance(self, q: torch.Tensor, k: torch.Tensor, offset: int, size: float) -> None:
        """Let the score peak ``offset`` tokens back: keys are turned ahead by that much."""
        turn = self.frequency[:FAST] * offset
        q[:FAST, ONE] = size
        k[:FAST, ONE] = size * torch.cos(turn)
        k[HALF : HALF + FAST, ONE] = size * torch.sin(turn)

    def look_back(self, offset: int) -> None:
        """Layer 0: copy the code and the marks of the token ``offset`` back."""
        q, k, v, o = self.head(0, offset - 1)
        self.at_distance(q, k, offset, 1.0)
        gain = 0.3  # norms: the input is about 10 times the residual stream here
        v[:CODE, OWN] = torch.eye(CODE) * gain
        o[BEFORE[offset - 1], :CODE] = torch.eye(CODE) * gain
        copies = (
            {OPENS: OPENS_3, COLON: COLON_3} if offset == 3 else {ANSWER: ANSWER_BEFORE[offset - 1]}
        )
        for i, (source, target) in enumerate(copies.items()):
            v[CODE + i, source] = gain
            o[target, CODE + i] = gain

    def count(self) -> None:
        """Look at the numbers, wherever they are."""
        q, k, v, o = self.head(0, 3)
        for i, count in enumerate(COUNTS):
            q[self.slow[0], ONE], k[self.slow[0], count] = 4.0, 4.0
            v[i, count] = 0.3
            o[count, i] = 0.3

    def read_code(self, v: torch.Tensor) -> None:
        """Read the code of the three tokens that end here."""
        v[:CODE, BEFORE[1]] = self.parts[0] * 0.4
        v[CODE : 2 * CODE, BEFORE[0]] = self.parts[1] * 0.4
        v[CODE : 2 * CODE, OWN] = self.parts[2] * 0.4

    def key_to_value(self) -> None:
        """Layer 1: bring the code of its key to a value, and keep that of the value itself."""
        for head, distance, target in ((0, STRIDE, KEY), (2, 0, VALUE)):
            q, k, v, o = self.head(1, head)
            self.at_distance(q, k, distance, 1.4)
            self.read_code(v)
            o[target, : 2 * CODE] = torch.eye(2 * CODE) * 0.4

    def question_to_answer(self) -> None:
        """Look at the nearest third token after an opening one, or as far back as n keys reach."""
        q, k, v, o = self.head(1, 1)
        k[:14, ONE] = 0.9
        q[5:14, ONE] = 0.9  # slower and slower: the sum falls with the distance
        for keys, count in enumerate(COUNTS, start=2):
            turn = self.frequency[:FAST] * (TO_ASKED + STRIDE * (keys - 1))
            q[:FAST, count] = 2.5 * torch.cos(turn)
            q[HALF : HALF + FAST, count] = -2.5 * torch.sin(turn)
        q[self.slow[0], ONE], k[self.slow[0], OPENS_3] = 4.0, 4.0
        self.read_code(v)
        o[ASKED, : 2 * CODE] = torch.eye(2 * CODE) * 0.4

    def hop(self, layer: int) -> None:
        """From the code asked for to the value of the key that has it."""
        q, k, v, o = self.head(layer, 0)
        match, special = self.slow[2:], self.slow[:2]
        # As many signs of each of the three tokens: all codes are equally long here too.
        signs = [i for i in range(2 * CODE) if i % 15 < 10 and i not in range(15, 30)]
        read = torch.eye(2 * CODE)[signs]
        q[match, ASKED] = read * MATCH
        k[match, KEY] = read * MATCH
        q[special[0], ONE], k[special[0], COLON_3] = IS_VALUE, IS_VALUE  # values, not keys
        q[special[1], ONE], k[special[1], FIRST] = SINK, SINK  # no match: the first token
        v[: 2 * CODE, VALUE] = torch.eye(2 * CODE) * 0.4
        v[: 2 * CODE, KEY] = -torch.eye(2 * CODE) * 0.4
        o[ASKED, : 2 * CODE] = torch.eye(2 * CODE) * 0.5

    def induction(self, layer: int) -> None:
        """Copy the token after an earlier occurrence of the last three tokens."""
        q, k, v, o = self.head(layer, 1)
        mix = torch.linalg.qr(torch.randn(3 * CODE, 3 * CODE))[0][: len(self.slow)]
        mixes = mix.split(CODE, dim=1)
        for part, now, then in zip(mixes, [OWN, *BEFORE[:2]], BEFORE, strict=True):
            q[self.slow, now] = part * 2.5
            k[self.slow, then] = part * 2.5
        v[:CODE, OWN] = torch.eye(CODE) * 0.4
        o[OWN, :CODE] = torch.eye(CODE) * 1.0

    def write_out(self, layer: int) -> None:
        """Where an answer begins, the looked-up code's first token; then its second and third."""
        mlp = self.model.model.layers[layer].mlp
        gates = [ANSWER, *ANSWER_BEFORE]
        nothing = torch.zeros(CODE, CODE)
        reads = [torch.cat([self.parts[0], nothing], 1)]
        reads += [torch.cat([nothing, part], 1) for part in self.parts[1:]]
        for i, (gate, read) in enumerate(zip(gates, reads, strict=True)):
            rows = slice(i * CODE, (i + 1) * CODE)
            mlp.gate_proj.weight[rows] = 0
            mlp.gate_proj.weight[rows, gate] = 2.0
            mlp.gate_proj.weight[rows, ONE] = -0.5 * MARK * 2.0
            mlp.up_proj.weight[rows, ASKED] = read * 0.5
            mlp.down_proj.weight[OWN, rows] = torch.eye(CODE) * 0.4
