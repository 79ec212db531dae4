"""Whether what the command line names can be had: found out before anything is loaded."""

from __future__ import annotations

import pytest

from pytest_llmprobe.errors import ModelError, ReportError, SettingsError
from pytest_llmprobe.models.folder_check import check_folder
from pytest_llmprobe.models.hub import check_hub
from pytest_llmprobe.models.local_packages import check_packages
from pytest_llmprobe.models.machine import check_machine
from pytest_llmprobe.models.registry import ModelSpec
from pytest_llmprobe.models.token_counter import check_template
from pytest_llmprobe.plugin.fidelity import checked_file
from pytest_llmprobe.plugin.options import options_of
from pytest_llmprobe.plugin.run_texts import check_texts
from pytest_llmprobe.report.files import check_all_writable


def check_explicit(config: pytest.Config) -> None:
    """Find out now whether what the command line names can be had: model, files, data.

    Raises:
        pytest.UsageError: No such model, run to compare with, data, or file that can be written.
    """
    try:
        options = options_of(config)
        if options.resume is not None:  # found once, for the workers too
            config.option.llmprobe_resume = str(options.resume)
        check_all_writable(options.report_place, options.html, options.markdown, options.save)
        if options.texts is not None and options.replay is None:
            check_texts(options.texts)
        if options.compare is not None:
            from pytest_llmprobe.report.run_file import read_run

            read_run(options.compare[1])
            checked_file(options.compare[1], options.texts)
        asked = [options.judge] if options.replay else [options.spec, options.judge]
        for spec in filter(None, asked):
            check_reachable(spec, here_only=config.option.collectonly)
    except (ModelError, ReportError, SettingsError) as error:
        raise pytest.UsageError(f"llmprobe: {error}") from None


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
        from pytest_llmprobe.engine.endpoints.address import check_endpoint
        from pytest_llmprobe.engine.endpoints.reach import check_server

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
