"""What a test receives of given texts' likelihoods; tests of data that nobody gave are absent.

A plugin of its own beside the hooks, imported in every pytest run of the environment, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.experiments.standard.choices import Choice
    from pytest_llmprobe.experiments.standard.perplexity import TextLikelihood
    from pytest_llmprobe.plugin.run import Run


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, obj: object) -> list[pytest.Item] | None:
    """An evaluation of the user's data is absent without them."""
    for marker in getattr(obj, "pytestmark", ()) if callable(obj) else ():
        if marker.name == "probe" and "dataset" in marker.kwargs:
            from pytest_llmprobe.plugin.collection import is_absent

            return [] if is_absent(collector.config, marker.kwargs["dataset"]) else None
    return None


@pytest.fixture
def choice(request: pytest.FixtureRequest, engine: Engine, _llmprobe_run: Run) -> Choice:
    """Which of its case's ``choices`` the model finds likeliest; its metrics are recorded.

    Log-likelihoods, acc, acc_norm, acc_bytes, acc_mutual_info, margin, probability, and ``problem``
    for the assertion; all choices of the work unit are scored at once. From a model in this
    process, or a server that repeats a text with its log-probabilities, as vLLM does.
    """
    from pytest_llmprobe.plugin.choosing import choose

    return choose(_llmprobe_run, request.node, engine)


@pytest.fixture
def text_likelihood(
    request: pytest.FixtureRequest, engine: Engine, _llmprobe_run: Run
) -> TextLikelihood:
    """How likely the model finds its case's prompt, however long, or the target after the prompt.

    Log-likelihood, tokens, words, bytes and bits per byte, which are recorded as scores, and
    whether greedy decoding would have said it. The prompt is a ``RawPrompt``.
    """
    from pytest_llmprobe.plugin.choosing import measure_text

    return measure_text(_llmprobe_run, request.node, engine)
