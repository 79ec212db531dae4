"""Figure files: their formats, and what is missing where none can be made."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmprobe.errors import SettingsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return find_spec("matplotlib") is not None


def check_figure_file(path: Path) -> None:
    """Say early, before anything is computed, that a figure could not be saved.

    Raises:
        SettingsError: The format is unknown, or matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise SettingsError(f"figure {path}: give a file that ends in {', '.join(FORMATS)}")
    if not can_draw():
        raise SettingsError(
            "figures need matplotlib: pip install 'pytest-llmprobe[plots]', or leave the figure out"
        )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in the format that the file's name ends in; its folder is made.

    Raises:
        SettingsError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise SettingsError(f"figure {path} cannot be written: {error.strerror}") from None
