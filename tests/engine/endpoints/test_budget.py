"""What a run may spend is never overdrawn, by one process or by many."""

import multiprocessing

import pytest
from loopback import Reply, chat

from pytest_llmprobe import GenerateConfig, Request
from pytest_llmprobe.engine.endpoints.budget import Budget, Prices
from pytest_llmprobe.errors import BudgetError, SettingsError
from pytest_llmprobe.generation import Usage

PRICES = Prices(input=1.0, output=10.0)


def spend(budget, count, usage=None):
    """How many of ``count`` requests are granted."""
    granted = 0
    for _ in range(count):
        try:
            reserved = budget.reserve(100, 10)
        except BudgetError:
            continue
        granted += 1
        if usage is not None:
            budget.settle(reserved, usage)
    return granted


def spend_in_a_process(path, granted):
    granted.put(spend(Budget(max_requests=50, ledger=path), 40))


def test_requests_are_granted_until_they_are_spent():
    budget = Budget(max_requests=3)
    assert spend(budget, 5) == 3
    with pytest.raises(BudgetError, match="--llmprobe-max-requests 3: all are spent"):
        budget.reserve(1, 1)


def test_without_limits_everything_is_granted():
    assert spend(Budget(), 100) == 100


def test_a_request_must_fit_at_its_dearest_and_costs_what_it_did_cost():
    dearest = PRICES.at_most(100, 10)
    assert dearest == (356 * 1.0 + 10 * 10.0) / 1e6
    assert spend(Budget(max_cost=3.5 * dearest, prices=PRICES), 10) == 3
    cheap = Usage(10, 1)  # far from the dearest, so many more fit
    budget = Budget(max_cost=3.5 * dearest, prices=PRICES)
    granted = spend(budget, 1000, cheap)
    assert granted == int((3.5 * dearest - dearest) / PRICES.of(cheap)) + 1
    assert granted * PRICES.of(cheap) <= 3.5 * dearest


def test_a_limit_of_the_cost_needs_prices():
    with pytest.raises(SettingsError, match="input_price and output_price"):
        Budget(max_cost=1.0)


def test_processes_that_share_a_ledger_never_spend_more_together(tmp_path):
    context = multiprocessing.get_context("spawn")
    granted = context.Queue()
    path = tmp_path / "budget.json"
    processes = [context.Process(target=spend_in_a_process, args=(path, granted)) for _ in range(2)]
    for process in processes:
        process.start()
    assert sum(granted.get(timeout=60) for _ in processes) == 50
    for process in processes:
        process.join()


def test_repeated_requests_count_and_what_was_answered_is_kept(server, ask):
    seen = []

    def answer(asked):
        seen.append(asked)
        again = Reply({"error": {"message": "busy"}}, 429, {"retry-after": "0"})
        return again if len(seen) == 2 else chat("fine")

    engine = ask(server(answer), concurrency=1, budget=Budget(max_requests=4))
    outcomes = engine.attempt([Request(p) for p in "abcde"])
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Completion",
        "Completion",
        "Completion",
        "BudgetError",
        "BudgetError",
    ]
    assert len(seen) == 4


def test_a_thought_that_money_is_not_left_for_is_not_waited_for(server, ask):
    """A second, larger request is paid by nobody but the run itself."""
    cut = chat("", "length", usage={"prompt_tokens": 1, "completion_tokens": 8})
    cut["choices"][0]["message"]["reasoning_content"] = "Let me see"
    dearest = PRICES.at_most(60, 8)
    engine = ask(server(lambda asked: cut), budget=Budget(max_cost=2 * dearest, prices=PRICES))
    config = GenerateConfig(max_new_tokens=8, thinking_tokens=4096)
    outcomes = engine.attempt([Request("a", config), Request("b", config)])
    assert {type(outcome).__name__ for outcome in outcomes} <= {"BudgetError", "CostError"}


def test_money_that_requests_under_way_give_back_is_waited_for(server, ask):
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    asked = server(lambda asked: chat("fine", usage=usage))
    dearest = PRICES.at_most(60, 8)
    engine = ask(asked, concurrency=4, budget=Budget(max_cost=2 * dearest, prices=PRICES))
    outcomes = engine.attempt([Request(p, GenerateConfig(max_new_tokens=8)) for p in "abcdefgh"])
    assert {type(outcome).__name__ for outcome in outcomes} == {"Completion"}
    assert asked.most_at_once <= 2
