"""Generation parameters as hyper-parameters of a scikit-learn estimator."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator

from pytest_llmprobe.search.rows import Data, read_rows
from pytest_llmprobe.search.space import Configuration
from pytest_llmprobe.search.task import SearchTask


class GenerationEstimator(BaseEstimator):  # type: ignore[misc]
    """Answers rows with one configuration; X are rows, such as ``task.rows``, and y is not used.

    GridSearchCV, RandomizedSearchCV and HalvingGridSearchCV choose its parameters, with
    ``n_jobs=1``: the model is shared and never copied. They ask for one configuration after the
    other; what ``task.prepare(space)`` generated before, each prompt computed once for all of
    them, they find waiting. Give them ``error_score="raise"`` to see errors as they are.

    Args:
        task: Prompts, scorer and engine; clones share it.
        temperature: 0 for greedy decoding. It and all others but the last are of
            ``GenerateConfig``; of those that are None the task's own hold.
        generation_seed: Seed of the sampling, which each row turns into its own.
    """

    task: SearchTask

    def __init__(
        self,
        task: SearchTask,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        typical_p: float = 1.0,
        epsilon_cutoff: float = 0.0,
        eta_cutoff: float = 0.0,
        tfs: float = 1.0,
        top_a: float = 0.0,
        repetition_penalty: float = 1.0,
        no_repeat_ngram_size: int = 0,
        encoder_repetition_penalty: float = 1.0,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
        penalty_alpha: float = 0.0,
        max_new_tokens: int | None = None,
        generation_seed: int = 0,
    ) -> None:
        given = dict(locals())  # scikit-learn looks for each in an attribute of its name
        del given["self"]
        self.__dict__.update(given)

    def __sklearn_clone__(self) -> GenerationEstimator:
        """The same parameters on the same task; scikit-learn would copy the task."""
        return type(self)(**self.get_params(deep=False))

    def configuration(self) -> Configuration:
        """The parameters, checked.

        Raises:
            SettingsError: One is out of range, or would do nothing; names it.
        """
        return self.task.configuration(self._parameters())

    def _parameters(self) -> dict[str, Any]:
        given = self.get_params(deep=False)
        return {n: value for n, value in given.items() if n != "task" and value is not None}

    def fit(self, X: Data, y: object = None) -> GenerationEstimator:
        """Check the parameters and the rows; nothing is trained."""
        self.configuration()
        self.task.prompts(read_rows(X))
        return self

    def predict(self, X: Data) -> list[str]:
        """The answer of each row."""
        (answers,) = self.task.answers([self.configuration()], read_rows(X))
        return [answer.text for answer in answers]

    def score(self, X: Data, y: object = None) -> float:
        """The mean score of the rows, by the task's scorer; negative where less is better.

        scikit-learn looks for the largest.
        """
        mean = self.task.mean(read_rows(X), **self._parameters())
        return mean if self.task.greater_is_better else -mean
