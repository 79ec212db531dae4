"""Whether a model that the command line names can be had: found out before anything is loaded."""

from __future__ import annotations

from pytest_llmprobe.models.folder_check import check_folder
from pytest_llmprobe.models.hub import check_hub
from pytest_llmprobe.models.local_packages import check_packages
from pytest_llmprobe.models.machine import check_machine
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.token_counter import check_template


def check_reachable(spec: ModelSpec, here_only: bool) -> None:
    """Look for the model where its spec says.

    Args:
        spec: The model; one in memory is there.
        here_only: Ask no network, for nobody is going to be asked.

    Raises:
        ModelError: It cannot be had, or not on this machine.
    """
    if spec.in_memory:
        return
    check_packages(spec)
    if spec.protocol is not None:
        from pytest_llmprobe.engine.endpoints import check_endpoint, check_server

        check_endpoint(spec)
        if not here_only:
            check_server(spec)
        return
    if (folder := spec.folder) is not None:
        check_folder(folder)
        check_template(spec)
    elif not here_only:
        check_hub(spec)
    if not here_only:
        check_machine(spec)
