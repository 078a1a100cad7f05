"""Measure one accelerator with one command: `python -m benchmarks.device`.

`__main__.py` has the command and the table of parts, `runner.py` runs each part in a separate
process, and `page.py` writes the results. A part is a generator of results: records (dicts of plain
values) and lines (sentences for the page).
"""
