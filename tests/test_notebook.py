"""The derivation as a notebook that runs, and as HTML that loads nothing."""

import base64
import json
import re
import subprocess
import sys

import pytest
from programs import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("page", ["derivation", "gates", "exercises"])
def test_the_notebook(page, tmp_path):
    command = [sys.executable, "-m", "website.notebook", page, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    cells = json.loads((tmp_path / f"{page}.ipynb").read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    markdown = (ROOT / f"docs/{page}.md").read_text()
    assert len(code) == markdown.count("```python")
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    text = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    assert text.count("$$") == markdown.count("$$") > 0
    for link in re.findall(r"\]\(([^):#]+)\)", text):
        assert (tmp_path / link).exists(), link

    shown = (tmp_path / f"{page}.html").read_text()
    loaded = re.findall(r'(?:src|href)="(\w+:[^"]*)"', shown)
    figures = [address for address in loaded if address.startswith("data:image/svg+xml;base64,")]
    assert len(figures) == len(loaded) == markdown.count("](figures/")
    for figure in figures:
        assert b"<svg" in base64.b64decode(figure.partition(",")[2], validate=True)
    assert "<script" not in shown
    prose = re.sub(r"<pre>.*?</pre>|<code>.*?</code>", "", shown, flags=re.S)
    assert "$" not in prose
    assert "\\" not in prose  # a command of LaTeX that has become no MathML
    assert len(re.findall(r'<math [^>]*display="block"', shown)) == markdown.count("$$") / 2
    assert re.findall(r'class="number"[^>]*>\((\d+)\)<', shown) == re.findall(
        r"\\tag\{(\d+)\}", markdown
    )
