"""A page of docs/ as a notebook that has run, and as HTML.

    python -m website.notebook [PAGE] [FOLDER]

PAGE is `derivation` by default, FOLDER `out/notebook`. Figures are part of both files, and formulas
are MathML in the HTML, so neither loads anything. Links lead from FOLDER to the files of the clone.
"""

import base64
import html
import os
import re
import sys
from pathlib import Path

import nbclient
import nbconvert
from nbformat import NotebookNode, v4, write

from website.mathematics import DISPLAYED, INLINE, displayed, mathml

DOCS = Path(__file__).parents[1] / "docs"
FIGURE = re.compile(r"!\[([^\]]*)\]\((figures/(\w+\.svg))\)")
LINK = re.compile(r"\]\((?!\w+:|#)([^)]+)\)")
CODE_OR_INLINE = re.compile(rf"(`[^`]*`)|{INLINE}")
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
HTML = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 sans-serif }}
body {{ max-width: 50rem; margin: auto; padding: 1rem }}
pre {{ overflow-x: auto; padding: 0.6rem; border-radius: 0.4rem; background: #8882 }}
img {{ max-width: 100% }}
table {{ border-collapse: collapse }}
th, td {{ border: 1px solid #8888; padding: 0.2rem 0.6rem }}
.prompt, .anchor-link {{ display: none }}
.equation {{ display: flex; align-items: center; overflow-x: auto }}
.equation div {{ flex: 1; font-size: 1.1em; text-align: center }}
</style>
{body}
</html>
"""


def notebook(page: Path, folder: Path) -> NotebookNode:
    """Make a page a notebook with its figures, and run it.

    Args:
        page: a Markdown page.
        folder: where the notebook will be; its links lead from there.

    Returns:
        The notebook, with outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: if the code of the page fails.
    """
    pieces = re.split(
        r"^```python\n(.*?)^```\n", page.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    up = os.path.relpath(page.parent, folder)
    book = v4.new_notebook(metadata={"title": page.stem, "kernelspec": KERNEL})
    for n, piece in enumerate(pieces):
        if n % 2:
            book.cells.append(v4.new_code_cell(piece.strip()))
        elif piece.strip():
            cell = v4.new_markdown_cell(FIGURE.sub(r"![\1](attachment:\3)", piece.strip()))
            cell.source = LINK.sub(rf"]({up}/\1)", cell.source)
            for _, path, name in FIGURE.findall(piece):
                figure = base64.b64encode((page.parent / path).read_bytes()).decode()
                cell.setdefault("attachments", {})[name] = {"image/svg+xml": figure}
            book.cells.append(cell)
    return nbclient.NotebookClient(book, timeout=600).execute()


def page_of(book: NotebookNode) -> str:
    """Make a notebook one HTML page that loads nothing.

    Args:
        book: a notebook of `notebook`.

    Returns:
        The page.
    """
    book = NotebookNode({**book, "cells": [with_mathml(cell) for cell in book.cells]})
    body, _ = nbconvert.HTMLExporter(template_name="basic").from_notebook_node(book)
    return HTML.format(title=html.escape(book.metadata.title), body=body)


def with_mathml(cell: NotebookNode) -> NotebookNode:
    """Make the formulas of a cell MathML, which browsers show by themselves.

    Args:
        cell: of text or of code.

    Returns:
        A cell without LaTeX.
    """
    if cell.cell_type != "markdown":
        return cell

    def shown(found: re.Match[str]) -> str:
        return found[1] or mathml(found[2], False)

    source = DISPLAYED.sub(lambda found: displayed(found["latex"]), cell.source)
    source = CODE_OR_INLINE.sub(shown, source)
    return NotebookNode({**cell, "source": source})


def main(name: str = "derivation", folder: str = "out/notebook") -> None:
    """Write NAME.ipynb and NAME.html into a folder."""
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    book = notebook(DOCS / f"{name}.md", out)
    write(book, out / f"{name}.ipynb")
    (out / f"{name}.html").write_text(page_of(book), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
