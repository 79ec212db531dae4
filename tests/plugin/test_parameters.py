"""What a test is parametrised with beside its case, and repeats of one prompt."""

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    CASES = [Case(f"c{n}", f"say {n % 3}", str(n % 3), {"kind": "echo"}) for n in range(6)]

    @pytest.fixture(params=["short", "long"])
    def form(request):
        return request.param

    @pytest.mark.parametrize(("strict", "kind"), [(True, 1), (False, 2)])
    @pytest.mark.probe(cases=CASES)
    def test_echo(case, completion, strict, kind, form):
        assert not strict or form == "short"
"""


def test_they_are_in_the_record_and_divide_the_pass_rate(project, probe):
    project(EVAL)
    run = probe()
    assert run.outcomes == {"missed": 6, "passed": 18}
    params = [test["params"] for test in run.report["tests"]]
    # What a case says of itself is not overwritten.
    assert sorted({(p["strict"], p["form"], p["kind"]) for p in params}) == [
        (strict, form, "echo") for strict in (False, True) for form in ("long", "short")
    ]
    by = run.experiment["by"]
    assert {name: cell["pass_rate"] for name, cell in by["form"].items()} == {
        "long": 0.5,
        "short": 1.0,
    }


def test_repeats_of_a_prompt_are_one_cluster(project, probe):
    project(EVAL)
    experiment = probe().experiment
    assert (experiment["n"], experiment["clusters"]) == (24, 3)
    low, high = experiment["ci95"]
    clustered_low, clustered_high = experiment["ci95_clustered"]
    assert clustered_high - clustered_low > high - low


def test_a_marker_without_cases_says_what_to_write(project, probe):
    project(
        """
        import pytest

        @pytest.mark.probe
        def test_nothing(case, completion):
            pass
        """
    )
    run = probe()
    assert run.exit_code == 4
    assert "write probe(cases=[Case('name', prompt='...'" in run.said
