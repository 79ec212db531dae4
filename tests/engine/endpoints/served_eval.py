"""An evaluation whose right answer is the last word of its prompt, and a server that knows it."""

from loopback import chat

EVAL = """
    import pytest
    from pytest_llmprobe import Case

    def cases():
        for group in range(4):
            for name in range(5):
                yield Case(f"g{group}/c{name}", f"say {group}{name}", f"{group}{name}")

    @pytest.mark.probe(cases=cases, max_new_tokens=20)
    @pytest.mark.gate(pass_rate=0.5)
    def test_echo(case, completion):
        assert completion.text == case.target
"""


def echo(asked):
    return chat(asked.prompt.split()[-1])
