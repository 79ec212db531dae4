"""Common token prefixes of prompts, as a tree: what is shared is computed and stored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pytest_llmprobe.engine.planning import MOST_OWN, SHARED_TOKENS, Path, Row, common_prefix


@dataclass(frozen=True)
class Node:
    """Tokens that all rows below share, from position ``start`` on.

    Args:
        start: Position of the first token; the tokens before it are the ancestors'.
        tokens: The shared tokens; empty at a root whose rows share nothing.
        leaves: Rows whose own tokens follow at ``end``; at least one token each.
        children: Nodes that begin at ``end`` and share more among themselves.
    """

    start: int
    tokens: tuple[int, ...]
    leaves: tuple[Row, ...]
    children: tuple[Node, ...]

    @property
    def end(self) -> int:
        """Position after the last shared token."""
        return self.start + len(self.tokens)


def prefix_tree(rows: Sequence[Row], start: int = 0, least: int = SHARED_TOKENS) -> Node:
    """The tree of the prompts of some rows of one kind, whose paths agree before ``start``.

    Rows become a node of their own where their common tokens are at least ``least`` in all but one
    of them, and an eighth of the longest: fewer cost more in an extra forward pass than they save.
    The last token of a prompt is never shared, since its logits are the row's own. Of steered rows
    the bias must be common too.
    """
    end = min(len(row.prompt_ids) for row in rows) - 1
    shared = rows[0].path[start : max(start, end)]
    for row in rows[1:]:
        shared = shared[: common_prefix(shared, row.path[start:])]
    parting = start + len(shared)
    below = parting if _worth(len(shared), rows, start, least) else start
    families: dict[Path, list[Row]] = {}
    leaves: list[Row] = []
    children: list[Node] = []
    enough = max(below + least, parting + 1)  # kin agree before it
    for row in rows:
        head = row.path[parting:enough]
        whole = len(row.path) <= enough  # has kin in equal prompts only
        families.setdefault((*head, None) if whole else head, []).append(row)
    for family in families.values():
        own = min(len(row.path) for row in family) - below - 1  # what the family would store
        if min(own, least) * (len(family) - 1) < least:
            leaves += family
        elif (child := prefix_tree(family, below, least)).tokens:
            children.append(child)
        else:  # common, but too little of the whole
            leaves += child.leaves
            children += child.children
    return Node(start, rows[0].prompt_ids[start:below], tuple(leaves), tuple(children))


def _worth(shared: int, rows: Sequence[Row], start: int, least: int) -> bool:
    """Whether so many common tokens pay for a pass of their own, and for a slower rest."""
    longest = max(len(row.prompt_ids) for row in rows) - start
    saved = shared * (len(rows) - 1)
    return saved >= least and MOST_OWN * shared >= longest


def each_leaf(node: Node) -> Iterator[tuple[Node, Row]]:
    """All rows of a tree, each with the node that it is a leaf of, in ``depth_first`` order."""
    for row in node.leaves:
        yield node, row
    for child in node.children:
        yield from each_leaf(child)


def depth_first(node: Node) -> list[Row]:
    """All rows of a tree in the order in which they are computed."""
    return [row for _, row in each_leaf(node)]
