"""Pictures of results; matplotlib (extra ``plots``) is imported when one is drawn."""

from pytest_llmprobe.figures.files import save_figure
from pytest_llmprobe.figures.output_length import output_length_figure

__all__ = ["output_length_figure", "save_figure"]
