"""Key-value needles and threads over UUID pairs.

Follows "Needle Threading: Can LLMs Follow Threads through Near-Million-Scale Haystacks?" (Roberts,
Han, Albanie, arXiv 2411.05000): a haystack is an ordered list of random (key, value) pairs,
rendered as one JSON object. A list and not a dict, because branched threads repeat keys.

`haystack` and `threads` make them as large as `sizes` asks, `solver` answers from the prompt alone,
`reading` judges what a model said, `summaries` all of it; `published` reads the paper's own data.
`questions` is what the evaluations' prompts share.
"""

from pytest_llmprobe.experiments.needle.haystack import (
    SPECIAL,
    UUID,
    Pair,
    Placement,
    mark_keys,
    position,
    positions,
    random_pairs,
    read_haystack,
    render,
    render_keys,
)
from pytest_llmprobe.experiments.needle.list_scores import list_scores
from pytest_llmprobe.experiments.needle.published import published_cases
from pytest_llmprobe.experiments.needle.questions import EXAMPLE, form, listed, room
from pytest_llmprobe.experiments.needle.reading import (
    Answer,
    Verdict,
    is_right,
    judge,
    parse_answer,
)
from pytest_llmprobe.experiments.needle.sizes import (
    PAPER_SIZES,
    Characters,
    Pairs,
    Tokens,
    fit,
    pairs,
    tokens,
)
from pytest_llmprobe.experiments.needle.solver import (
    Links,
    follow,
    read_question,
    read_task,
    solve,
)
from pytest_llmprobe.experiments.needle.summaries import summary
from pytest_llmprobe.experiments.needle.threads import (
    Direction,
    branched_thread,
    multi_threads,
    thread,
)

__all__ = [
    "EXAMPLE",
    "PAPER_SIZES",
    "SPECIAL",
    "UUID",
    "Answer",
    "Characters",
    "Direction",
    "Links",
    "Pair",
    "Pairs",
    "Placement",
    "Tokens",
    "Verdict",
    "branched_thread",
    "fit",
    "follow",
    "form",
    "is_right",
    "judge",
    "list_scores",
    "listed",
    "mark_keys",
    "multi_threads",
    "pairs",
    "parse_answer",
    "position",
    "positions",
    "published_cases",
    "random_pairs",
    "read_haystack",
    "read_question",
    "read_task",
    "render",
    "render_keys",
    "room",
    "solve",
    "summary",
    "thread",
    "tokens",
]
