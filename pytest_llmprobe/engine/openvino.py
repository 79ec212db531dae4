"""OpenVINO GenAI's continuous batching on a model's GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pytest_llmprobe.engine.other_engine import Said
from pytest_llmprobe.engine.planning import Row
from pytest_llmprobe.errors import ModelError
from pytest_llmprobe.models.loading import LoadedModel

PRECISION = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}


class OpenVinoEngine:
    """Reads the GGUF file once more, with a copy of the weights of its own.

    Args:
        loaded: The model; its file, its dtype and its number of threads are OpenVINO's too.

    Raises:
        ModelError: OpenVINO cannot read the file, or knows no such architecture.
    """

    batch_tokens: int | None = None

    def __init__(self, loaded: LoadedModel) -> None:
        import openvino_genai as genai

        precision = PRECISION.get(loaded.model.dtype, "f32")
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,  # 8 bits otherwise
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        scheduler = genai.SchedulerConfig()
        scheduler.enable_prefix_caching = True
        self.facts = {
            "name": "openvino",
            "version": genai.__version__.partition("-")[0],
            "precision": precision,
        }
        try:
            self._pipeline = genai.ContinuousBatchingPipeline(
                str(loaded.spec.gguf), scheduler, "CPU", options
            )
        except RuntimeError as error:
            words = str(error).strip().splitlines()[-1]
            raise ModelError(f"OpenVINO cannot read {loaded.spec.name!r}: {words}") from None
        self._asked = 0

    def run(self, rows: Sequence[Row], said: Said) -> None:
        """As OtherEngine; tokens are told at each step, and a row that is over is computed no more.

        A row that does not fit into the memory is left without an end.
        """
        handles = {place: self._handle(row) for place, row in enumerate(rows)}
        try:
            while handles and self._pipeline.has_non_finished_requests():
                self._pipeline.step()
                for place, handle in list(handles.items()):
                    if said(place, _new_tokens(handle)):
                        handles.pop(place).stop()
        finally:  # of what was interrupted nothing is left to the next batch
            for handle in handles.values():
                handle.stop()
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()

    def _handle(self, row: Row) -> Any:
        import openvino
        import openvino_genai as genai

        config = genai.GenerationConfig(max_new_tokens=row.room, do_sample=False)
        config.apply_chat_template = False
        config.ignore_eos = True  # who reads the tokens knows all that may end an answer
        ids = openvino.Tensor(np.array([row.prompt_ids], dtype=np.int64))
        self._asked += 1
        return self._pipeline.add_request(self._asked, ids, config)


def _new_tokens(handle: Any) -> list[int]:
    tokens: list[int] = []
    while handle.can_read():
        for output in handle.read().values():
            tokens += output.generated_ids
    return tokens
