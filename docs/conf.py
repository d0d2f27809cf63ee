"""Sphinx: `make docs`. The pages are plain Markdown and read well without it."""

project = "decent"
author = "The decent developers"
extensions = ["myst_parser"]
html_theme = "furo"
html_title = "decent"
exclude_patterns = ["_build", "requirements.txt"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["myst.xref_missing"]  # links to the source tree, which is not part of the book
