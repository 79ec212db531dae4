"""What happens inside a model: steering its attention, tracing influence through its layers."""

from pytest_llmprobe.whitebox.hidden_states import HiddenStateReader
from pytest_llmprobe.whitebox.length_probe import LengthProbe, ProbeConfig
from pytest_llmprobe.whitebox.length_probe_training import train_probe

__all__ = ["HiddenStateReader", "LengthProbe", "ProbeConfig", "train_probe"]
