"""The environment of chat templates: Jinja's sandbox, in which no operation grows without bound.

It has what chat templates of public models use. What else Jinja has (``lipsum``, ``urlize``, bytes
and so on) is refused by name: nobody counted what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from jinja2 import TemplateError, nodes, pass_context, pass_eval_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from pytest_llmprobe.errors import TemplateTooCostlyError
from pytest_llmprobe.models.template_budget import (
    ESCAPED,
    budget,
    product_cost,
)
from pytest_llmprobe.models.template_functions import (
    Formatted,
    bounded_filters,
    call_cost,
    counted,
    is_join,
    may_be_called,
)

if TYPE_CHECKING:
    from jinja2.nodes import EvalContext
    from jinja2.parser import Parser


class Sandbox(ImmutableSandboxedEnvironment):
    """Renders within the current budget (``template_budget.spending``)."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
            finalize=_shown,
            optimized=False,  # which computes while it compiles, without a budget
        )
        self.filters = bounded_filters(self.filters) | {
            "-step": _step,
            "-seen": _seen,
            "-made": _made,
            "-joined": _joined,
        }
        self.tests = {name: counted(test) for name, test in self.tests.items()}
        self.globals = {
            **{name: self.globals[name] for name in ("range", "dict", "cycler", "joiner")},
            "namespace": _Namespace,
            "raise_exception": _refuse,
        }
        self._functions = tuple(self.globals.values())

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree: nodes.Template = _Counting(self).visit(super()._parse(source, name, filename))
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """What an operator makes, counted before."""
        budget().spend(product_cost(operator, left, right))
        return _made(super().call_binop(context, operator, left, right))

    def is_safe_callable(self, obj: Any) -> bool:
        """Whether it is known what a call makes."""
        return may_be_called(obj) or any(obj is each for each in self._functions)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """What a call makes, counted before."""
        if not __self.is_safe_callable(__obj):
            name = getattr(__obj, "__name__", type(__obj).__name__)
            raise TemplateTooCostlyError(
                f"the chat template calls {name}, of which it is not known what it can make"
            )
        if is_join(__obj) and args:  # counted, not used up
            args = (list(args[0]), *args[1:])
        budget().spend(call_cost(__obj, args, kwargs))
        return _made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """A text's ``format``, counted; None for all else."""
        form = super().wrap_str_format(value)
        return None if form is None else Formatted(form, value)


class _Counting(NodeTransformer):
    """Puts a count before whatever a template does over and over, and around what it makes."""

    def __init__(self, environment: Sandbox) -> None:
        self._environment = environment

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, nodes.For):
            node.body.insert(0, self._step(node, 0))
            node.test = node.test and self._filter("-seen", node.test)
        elif isinstance(node, nodes.Macro | nodes.CallBlock):
            node.body.insert(0, self._step(node, 0))
        elif isinstance(node, nodes.Compare):
            node.expr = self._filter("-seen", node.expr)
            for operand in node.ops:
                operand.expr = self._filter("-seen", operand.expr)
        elif isinstance(node, nodes.Getitem) and not isinstance(
            node.arg, nodes.Slice | nodes.Const
        ):
            node.arg = self._filter("-seen", node.arg)
        elif isinstance(node, nodes.Pair):
            node.key = self._filter("-seen", node.key)
        return node

    def visit_Output(self, node: nodes.Output) -> list[nodes.Node]:
        self.generic_visit(node)
        data = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        return [self._step(node, data), node]

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filter("-joined", nodes.Tuple(node.nodes, "load"), node.lineno)

    def _visit_made(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        stored = getattr(node, "ctx", "load") != "load"
        plain = isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice)
        return node if stored or plain else self._filter("-made", node)

    visit_List = visit_Tuple = visit_Dict = visit_Getitem = _visit_made

    def _step(self, node: nodes.Node, characters: int) -> nodes.ExprStmt:
        return nodes.ExprStmt(
            self._filter("-step", nodes.Const(characters), node.lineno), lineno=node.lineno
        )

    def _filter(self, name: str, node: nodes.Node, lineno: int | None = None) -> nodes.Filter:
        made = nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None)
        made.set_lineno(node.lineno or lineno or 1).set_environment(self._environment)
        return made


class _Generation(Extension):
    """``{% generation %}`` marks what a model said, for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012 # as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Keeps no underscored names, which could reach into the interpreter."""

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__()
        for name, value in dict(*args, **values).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a chat template may not keep {name!r}")
        super().__setitem__(name, value)

    def __repr__(self) -> str:  # what it holds may hold it again
        return "<Namespace>"


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _step(characters: int) -> None:
    budget().spend(characters)


def _seen(value: Any) -> Any:
    """A value that is compared or looked up: a step, and no list that takes for ever."""
    budget().spend()
    budget().weight(value)
    return value


def _made(value: Any) -> Any:
    return budget().made(value)


@pass_context  # so that it is not applied while compiling
def _shown(context: Context, value: Any) -> Any:
    budget().spend(budget().text_weight(value) * (ESCAPED if context.eval_ctx.autoescape else 1))
    return value


@pass_eval_context
def _joined(context: EvalContext, values: tuple[Any, ...]) -> str:
    cost = sum(map(budget().text_weight, values))
    budget().spend(cost * (ESCAPED if context.autoescape else 1))
    return markup_join(values) if context.autoescape else str_join(values)
