"""Evaluations while a model is trained with transformers' Trainer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.plugin.memory_run import evaluate


class EvaluationCallback(TrainerCallback):
    """Runs evaluations of the model at each of the Trainer's evaluations, and logs pass rates.

    They are logged as ``eval_NAME_pass_rate`` where NAME is the experiment's, by whatever the
    Trainer reports to, and are among its metrics: ``metric_for_best_model`` may name one. The
    model goes on training as it was. With several processes the first asks and the others wait.

    Example::

        trainer = Trainer(model, arguments, eval_strategy="steps", ...)
        trainer.add_callback(EvaluationCallback(trainer, evals="evals/needle", limit=20))

    Args:
        trainer: The Trainer; its ``processing_class`` is the tokenizer if none is given.
        evals: Files and folders of evaluations, as for ``evaluate``.
        tokenizer: The model's.
        limit: Cases of each experiment at most.
        how: More for ``evaluate``: profile, seed, name, storage, options. Runs are kept in the
            folder ``llmprobe`` of the training's output, if no other is named.

    Attributes:
        reports: The report of each evaluation, by the training's step.

    Raises:
        SettingsError: There is no tokenizer, or the weights are spread over processes.
    """

    def __init__(
        self,
        trainer: Any,
        evals: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        tokenizer: Any = None,
        limit: int | None = None,
        **how: Any,
    ) -> None:
        self._trainer, self._evals, self._limit = trainer, evals, limit
        self._tokenizer = tokenizer or trainer.processing_class
        if self._tokenizer is None:
            raise SettingsError("the Trainer has no processing_class: give tokenizer=")
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise SettingsError(
                "FSDP and DeepSpeed spread the weights over processes, and an evaluation needs "
                "them in one: evaluate the checkpoints that the Trainer saves"
            )
        self._how = {"storage": Path(trainer.args.output_dir) / "llmprobe"} | how
        self.reports: dict[int, dict[str, Any]] = {}

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **more: Any,
    ) -> None:
        """Run the evaluations on the model as it is now."""
        rates: dict[str, float] = {}
        if state.is_world_process_zero:
            report = evaluate(
                self._trainer.model,
                self._tokenizer,
                evals=self._evals,
                limit=self._limit,
                **self._how,
            )
            self.reports[state.global_step] = report
            rates = pass_rates(report)
        (rates,) = broadcast_object_list([rates])
        if metrics is not None:
            metrics.update(rates)
        self._trainer.log(dict(rates))


def pass_rates(report: dict[str, Any]) -> dict[str, float]:
    """The pass rate of each experiment that has one, by the name that a Trainer logs it under."""
    return {
        f"eval_{experiment['name']}_pass_rate": experiment["pass_rate"]
        for experiment in report["experiments"]
        if experiment["pass_rate"] is not None
    }
