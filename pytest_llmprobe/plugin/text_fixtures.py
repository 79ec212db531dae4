"""Behind the fixtures that read texts with the model: how likely they are, and prefixes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.data.sources import Dataset
from pytest_llmprobe.errors import NotInProcessError, RequestError, UnsupportedError
from pytest_llmprobe.experiments.memorization.prefix_map.cutting import PrefixCut, make_prefix_map
from pytest_llmprobe.experiments.memorization.prefix_map.files import PrefixMap, load_prefix_map
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.text_tokenizer import text_tokenizer
from pytest_llmprobe.plugin.engines import skip_incapable

if TYPE_CHECKING:
    from pytest_llmprobe.models.loading import LoadedModel
    from pytest_llmprobe.whitebox.log_probabilities import TokenLogProbabilities


class TextScorer:
    """What the ``log_probabilities`` fixture gives; other models are loaded once.

    Args:
        served: Asks the server for them, if the model is behind one.
        loaded: The model in this process otherwise.
    """

    def __init__(
        self, served: Callable[[Sequence[Any]], list[Any]] | None, loaded: LoadedModel | None
    ) -> None:
        self._served, self._models = served, {"": loaded}

    def __call__(self, texts: Sequence[Prompt], model: str = "") -> list[TokenLogProbabilities]:
        """One of each text; the test is skipped if a server's protocol has none.

        Raises:
            RequestError: The server does not send them for a text.
        """
        raw = [RawPrompt(text) if isinstance(text, str) else text for text in texts]
        if self._served is not None and not model:
            return self._echoed(raw)
        from pytest_llmprobe.models.loading import load_model  # torch; a server spares it
        from pytest_llmprobe.whitebox.log_probabilities import log_probabilities

        loaded = self._models.get(model) or load_model(model)
        self._models[model] = loaded
        encoder = PromptEncoder.of(loaded)
        return log_probabilities(loaded, [encoder.ids(text) for text in raw])

    def _echoed(self, texts: Sequence[Prompt]) -> list[TokenLogProbabilities]:
        assert self._served is not None
        try:
            outcomes = self._served(texts)
        except NotInProcessError as error:
            skip_incapable(str(error))
        for outcome in outcomes:
            if isinstance(outcome, UnsupportedError):
                skip_incapable(str(outcome))
            if isinstance(outcome, RequestError):
                raise outcome
        return outcomes


class PrefixCutter:
    """What the ``prefix_map`` fixture gives; maps are kept for the session.

    Args:
        loaded: The model whose tokens are cut.
        folder: For the maps.
    """

    def __init__(self, loaded: LoadedModel, folder: Path) -> None:
        self._loaded, self._folder = loaded, folder
        self._made: dict[tuple[Dataset, PrefixCut], PrefixMap] = {}

    def __call__(self, data: Dataset, **how: Any) -> PrefixMap:
        """The map of a data set; the arguments are those of ``PrefixCut``."""
        wanted = PrefixCut(**{"prefix_tokens": 10} | how)
        if (data, wanted) not in self._made:
            tokenizer = text_tokenizer(self._loaded.tokenizer)
            name, source = self._loaded.spec.name, data.documents()
            path = make_prefix_map(
                source, tokenizer, wanted, self._folder, model=name, dataset=data.given
            )
            self._made[data, wanted] = load_prefix_map(path, tokenizer.hash)
        return self._made[data, wanted]
