"""The documentation as a site: sphinx-build -W docs build/site (extra `docs`)."""

project = "pytest-llmprobe"
extensions = ["myst_parser"]
html_theme = "furo"
exclude_patterns = ["conf.py"]
myst_heading_anchors = 3  # links such as runs.md#go-on-and-score-again are checked
