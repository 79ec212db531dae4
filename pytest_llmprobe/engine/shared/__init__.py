"""One process with the model, which answers for all workers: Backend calls over a local socket.

Lines of JSON cross it, nothing pickled. The socket lies in a folder that only its user may open.
"""

from pytest_llmprobe.engine.shared.client import SharedBackend
from pytest_llmprobe.engine.shared.start import SharedSettings, join

__all__ = ["SharedBackend", "SharedSettings", "join"]
