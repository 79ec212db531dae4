"""Whether the model's context has room for a text."""

from __future__ import annotations

from pytest_llmprobe.suite import Suite

RULER = {  # characters of the text at most, about 4 a token; full: RULER's 4K to 128K
    "smoke": (500,),
    "ci": (500, 1_500),
    "full": (16_000, 32_000, 64_000, 128_000, 256_000, 512_000),
}
"""Sizes of variable tracking, common and frequent words, and question answering."""


def fits(suite: Suite, size: int, text: str, beside: int) -> bool:
    """Whether a text has room; what is left out is in the report.

    Args:
        suite: Knows the model's context and tokenizer.
        size: What the report calls it: characters.
        text: The text.
        beside: Tokens for question, examples and answer.
    """
    limit = suite.context_length
    if limit is None or size + beside <= limit or suite.tokens(text) + beside <= limit:
        return True
    suite.leave_out(f"{size:,} characters", f"the model's context is {limit:,} tokens")
    return False
