"""Behind the fixtures that read texts with the model: how likely they are, and prefixes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_llmprobe.case import Prompt, RawPrompt
from pytest_llmprobe.data.sources import Dataset
from pytest_llmprobe.errors import NotInProcessError, RequestError, UnsupportedError
from pytest_llmprobe.experiments.memorization.continuations import (
    Entries,
    Generate,
    Prompting,
    continuations,
)
from pytest_llmprobe.experiments.memorization.prefix_map.cutting import (
    PrefixCut,
    TextTokenizer,
    make_prefix_map,
)
from pytest_llmprobe.experiments.memorization.prefix_map.files import PrefixMap, load_prefix_map
from pytest_llmprobe.experiments.memorization.prefix_prompts import (
    MESSAGE,
    PrefixPrompts,
    TextPrompts,
    TokenPrompts,
)
from pytest_llmprobe.models.prompts import PromptEncoder
from pytest_llmprobe.models.text_tokenizer import text_tokenizer
from pytest_llmprobe.plugin.engines import in_process, skip_incapable

if TYPE_CHECKING:
    from pytest_llmprobe.engine import Engine
    from pytest_llmprobe.models.loading import LoadedModel
    from pytest_llmprobe.plugin.options import Options
    from pytest_llmprobe.plugin.run import Run
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


def cutting_tokenizer(run: Run, engine: Engine, what: str) -> TextTokenizer:
    """The model's own; of one behind a server that which stands for it, see `tokenizer_spec`."""
    if run.options.spec.protocol is None:
        return text_tokenizer(in_process(engine, what).tokenizer)
    from pytest_llmprobe.models.loading import load_tokenizer

    assert run.options.tokenizer_of is not None
    return text_tokenizer(load_tokenizer(run.options.tokenizer_of))


class PrefixCutter:
    """What the ``prefix_map`` fixture gives; maps are kept for the session.

    Args:
        tokenizer: Whose tokens are cut.
        options: Name the model, and the one that the tokenizer is of.
        folder: For the maps.
    """

    def __init__(self, tokenizer: TextTokenizer, options: Options, folder: Path) -> None:
        self._tokenizer, self._options, self._folder = tokenizer, options, folder
        self._made: dict[tuple[Dataset, PrefixCut], PrefixMap] = {}

    def __call__(self, data: Dataset, **how: Any) -> PrefixMap:
        """The map of a data set; the arguments are those of ``PrefixCut``."""
        wanted = PrefixCut(**{"prefix_tokens": 10} | how)
        if (data, wanted) not in self._made:
            spec = self._options.spec
            path = make_prefix_map(
                data.documents(),
                self._tokenizer,
                wanted,
                self._folder,
                model=spec.name,
                dataset=data.given,
                tokenizer_of=(self._options.tokenizer_of or spec).name,
            )
            self._made[data, wanted] = load_prefix_map(path, self._tokenizer.hash)
        return self._made[data, wanted]


class Continuer:
    """What the ``continuations`` fixture gives.

    Args:
        tokenizer: That of the maps.
        protocol: The server's; None for a model in this process, which is given token ids.
        generate: The engine's.
    """

    def __init__(self, tokenizer: TextTokenizer, protocol: str | None, generate: Generate) -> None:
        self._tokenizer, self._protocol, self._generate = tokenizer, protocol, generate

    def __call__(
        self,
        entries: Entries,
        num_strings: int | None = None,
        *,
        message: str | None = None,
        **how: Any,
    ) -> list[dict[str, Any]]:
        """A dictionary for each string.

        Args:
            entries: A prefix map.
            num_strings: How many; one for each entry if left out.
            message: Ask in a chat message, in which ``{prefix}`` stands for the prefix. Anthropic's
                protocol, which has no other way, is asked in one of ours where none is given.
            how: As for ``Prompting``.
        """
        asked = len(entries) if num_strings is None else num_strings
        if message is None and self._protocol == "anthropic":
            message = MESSAGE
        prompts: PrefixPrompts = TokenPrompts.of(self._tokenizer)
        if message is not None or self._protocol is not None:
            prompts = TextPrompts(self._tokenizer, message)
        return continuations(entries, self._generate, Prompting(asked, **how), prompts)
