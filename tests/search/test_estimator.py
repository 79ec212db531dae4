"""scikit-learn's searches and an Optuna study work unchanged, on one model that is never copied."""

import subprocess
import sys

import pytest
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    ParameterGrid,
    ParameterSampler,
    RandomizedSearchCV,
)
from some_tasks import task

from pytest_llmprobe.errors import SettingsError
from pytest_llmprobe.search import GenerationEstimator

SPACE = [{"temperature": [0.0]}, {"temperature": [1.0, 1.9], "generation_seed": [0, 1]}]


@pytest.fixture
def estimator():
    asked, _ = task()
    return GenerationEstimator(asked, temperature=1.9)


def test_grid_search_finds_what_prepare_has_generated(estimator):
    task = estimator.task
    task.prepare(ParameterGrid(SPACE))
    answered = task.engine.backend.answered
    found = GridSearchCV(estimator, SPACE, cv=4, error_score="raise").fit(task.rows)
    assert found.best_params_ == {"temperature": 0.0}
    assert found.best_score_ == found.score(task.rows) == 1.0
    assert found.predict(task.rows[:2]) == ["It is 0.", "It is 3."]
    assert task.engine.backend.answered == answered


def test_randomized_search_draws_numpy_numbers(estimator):
    from scipy.stats import uniform

    space = {"temperature": uniform(0.01, 1.9), "generation_seed": range(3)}
    rows = estimator.task.rows
    estimator.task.prepare(ParameterSampler(space, 5, random_state=0))
    answered = estimator.task.engine.backend.answered
    found = RandomizedSearchCV(estimator, space, n_iter=5, cv=3, random_state=0).fit(rows)
    coldest = min(found.cv_results_["params"], key=lambda point: point["temperature"])
    assert found.best_params_ == coldest
    assert estimator.task.engine.backend.answered == answered


def test_halving_search_spends_rows_on_what_is_good(estimator):
    found = HalvingGridSearchCV(
        estimator, SPACE, cv=2, min_resources=8, factor=2, random_state=0, error_score="raise"
    ).fit(estimator.task.rows)
    assert found.best_params_ == {"temperature": 0.0}
    assert found.n_candidates_[0] == 5 > found.n_candidates_[-1]


def test_a_clone_shares_the_task_and_nothing_else(estimator):
    twin = clone(estimator).set_params(temperature=0.0)
    assert twin.task is estimator.task
    assert (twin.temperature, estimator.temperature) == (0.0, 1.9)
    assert clone(GridSearchCV(estimator, SPACE)).estimator.task is estimator.task
    assert {"temperature", "generation_seed", "task"} <= estimator.get_params().keys()


def test_wrong_parameters_are_named(estimator):
    rows = estimator.task.rows
    with pytest.raises(ValueError, match="num_beam_groups"):
        estimator.set_params(num_beam_groups=4)
    with pytest.raises(SettingsError, match=r"top_p=0\.5 samples"):
        clone(estimator).set_params(temperature=0, top_p=0.5).fit(rows)
    space = {"temperature": [0.0], "top_p": [0.5]}
    with pytest.raises(SettingsError, match=r"top_p=0\.5 samples"):
        GridSearchCV(estimator, space, error_score="raise").fit(rows)


def test_a_model_is_not_sent_to_other_processes(estimator):
    import pickle

    with pytest.raises(TypeError, match="n_jobs=1"):
        pickle.dumps(estimator)


def test_an_optuna_study_needs_no_more_than_the_mean():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked, _ = task()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(
        lambda trial: asked.mean(temperature=trial.suggest_float("temperature", 0.01, 1.9)), 6
    )
    tried = [trial.params["temperature"] for trial in study.trials]
    assert study.best_params["temperature"] == min(tried)


def test_without_scikit_learn_one_error_names_the_extra():
    code = """
import sys
sys.modules["sklearn"] = sys.modules["sklearn.base"] = None
import pytest_llmprobe.search as search
try:
    search.GenerationEstimator
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "SettingsError GenerationEstimator needs scikit-learn: "
        "pip install 'pytest-llmprobe[search]'\n"
    )
