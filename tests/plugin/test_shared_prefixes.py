"""Which groups are clusters: measured from the prompts, whatever the ids say."""

from pytest_llmprobe import Case
from pytest_llmprobe.plugin.shared_prefixes import groups_with_prefix

HAY = {name: f"{name} " + "straw and more straw; " * 30 for name in "abc"}


def cases(prefixes, names="xyz"):
    return [
        Case(f"{group}/{name}", f"{prefix}where is {name}?")
        for group, prefix in prefixes.items()
        for name in names
    ]


def test_a_shared_haystack_makes_a_cluster():
    assert groups_with_prefix(cases(HAY)) == {"a", "b", "c"}
    assert groups_with_prefix(cases({"a": HAY["a"]})) == {"a"}


def test_a_label_makes_none():
    assert groups_with_prefix(cases({"geo": "", "bio": ""})) == frozenset()
    assert groups_with_prefix(cases({"geo": "Answer this question about geography: "})) == set()


def test_what_all_groups_begin_with_makes_none():
    assert groups_with_prefix(cases({"geo": HAY["a"], "bio": HAY["a"]})) == frozenset()
    longer = {name: HAY["a"] + text for name, text in HAY.items()}
    assert groups_with_prefix(cases(longer)) == {"a", "b", "c"}


def test_less_than_half_of_the_shortest_prompt_makes_none():
    tails = [Case(f"a/{n}", HAY["a"] + f"{n} " * 2000) for n in range(3)]
    assert groups_with_prefix(tails) == frozenset()
    assert groups_with_prefix([*tails, Case("a/short", HAY["a"] + "?")]) == {"a"}


def test_single_cases_and_cases_without_a_group_make_none():
    assert groups_with_prefix([Case("a/x", HAY["a"]), Case("b/x", HAY["b"])]) == frozenset()
    assert groups_with_prefix([Case("x", HAY["a"]), Case("y", HAY["a"])]) == frozenset()


def test_chat_messages_are_read_in_order():
    def chat(name):
        return Case(
            f"a/{name}",
            [{"role": "system", "content": HAY["a"]}, {"role": "user", "content": name}],
        )

    assert groups_with_prefix([chat("x"), chat("y")]) == {"a"}
