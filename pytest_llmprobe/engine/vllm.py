"""vLLM in this process, through the documented class ``vllm.LLM``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from pytest_llmprobe.engine.other_engine import Said
from pytest_llmprobe.engine.planning import WHOLE_UNIT, Row
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.loading import LoadedModel


class VllmEngine:
    """Loads the checkpoint once more, where vLLM puts it.

    Args:
        loaded: The model; its checkpoint, dtype and context are vLLM's too.

    Raises:
        ModelError: vLLM cannot load it; with its words.
    """

    batch_tokens: int | None = WHOLE_UNIT

    def __init__(self, loaded: LoadedModel) -> None:
        self._vllm: Any = import_module("vllm")
        spec, dtype = loaded.spec, str(loaded.model.dtype).removeprefix("torch.")
        self.facts = {"name": "vllm", "version": self._vllm.__version__, "precision": dtype}
        try:
            self._llm = self._vllm.LLM(
                model=spec.location,
                revision=spec.revision,
                tokenizer_revision=spec.revision,
                trust_remote_code=spec.trust_remote_code,
                dtype=dtype,
                max_model_len=loaded.capabilities.context_length,
                enable_prefix_caching=True,
                seed=0,
            )
        except (RuntimeError, ValueError) as error:
            words = str(error).strip().splitlines()[-1]
            raise ModelError(f"vLLM cannot load {spec.name!r}: {words}") from None
        # Where channels are marked, a turn's end may only end a channel.
        turns = () if loaded.thinking.marks else loaded.turn_ids
        self._ends = sorted({*loaded.end_ids, *turns})
        self._thinks = bool(loaded.thinking.marks)

    def run(self, rows: Sequence[Row], said: Said) -> None:
        """As OtherEngine; tokens are told when all rows are over."""
        found = self._llm.generate(
            [{"prompt_token_ids": list(row.prompt_ids)} for row in rows],
            [self._how(row) for row in rows],
            use_tqdm=False,
        )
        for place, output in enumerate(found):
            said(place, list(output.outputs[0].token_ids))

    def _how(self, row: Row) -> Any:
        stop = [] if self._thinks else list(row.config.stop)  # they end nothing within a thought
        return self._vllm.SamplingParams(
            temperature=0.0,
            max_tokens=row.room,
            ignore_eos=True,  # the ends below are all there are
            stop_token_ids=self._ends,
            stop=stop,
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            detokenize=bool(stop),
        )
