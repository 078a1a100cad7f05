"""One command for whoever holds an accelerator: `python -m benchmarks.device`.

`__main__.py` is the command and the table of parts, `runner.py` runs them, each in a process of its
own, and `page.py` writes what they find. A part is a function that yields results: records (dicts
of plain values) and lines (what the page must say of it in words).
"""
