"""LaTeX in pages, `$...$` and `$$...$$`, becomes MathML, which browsers render without a script."""

import re
from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from math_core import LatexError, LatexToMathML

DISPLAYED = re.compile(r"^(?P<indent> *)\$\$(?P<latex>.+?)\$\$ *$", re.M | re.S)
INLINE = r"(?<![\\$])\$(?=[^\s$])([^$]*[^\s$\\])\$(?!\d)"
TAG = re.compile(r"\\tag\{([^}]*)\}\s*")
CONVERTER = LatexToMathML(fancy_error=False)


def mathml(latex: str, displaystyle: bool) -> str:
    """The MathML of a formula.

    Args:
        latex: without the dollars.
        displaystyle: whether it has lines of its own.

    Returns:
        A `math` element.

    Raises:
        ValueError: LaTeX that is wrong or not supported.
    """
    try:
        return CONVERTER.convert_with_local_state(latex, displaystyle=displaystyle)
    except LatexError as error:
        raise ValueError(f"the formula {latex}: {error}") from None


def displayed(latex: str) -> str:
    """The HTML of a displayed equation; one with a `\\tag{9}` has the anchor `eq-9`.

    Args:
        latex: without the dollars.

    Returns:
        A `div` with the equation and its number.

    Raises:
        ValueError: LaTeX that is wrong or not supported.
    """
    tags = TAG.findall(latex)
    formula = mathml(TAG.sub("", latex), True)
    number = "".join(f'<span class="number" id="eq-{tag}">({tag})</span>' for tag in tags)
    return f'<div class="equation"><div>{formula}</div>{number}</div>'


class Displayed(Preprocessor):
    """Equations between `$$`, on lines of their own."""

    def run(self, lines: list[str]) -> list[str]:
        """The lines of the page, with a placeholder for each equation."""

        def stored(match: re.Match[str]) -> str:
            return f"\n{match['indent']}{self.md.htmlStash.store(displayed(match['latex']))}\n"

        return DISPLAYED.sub(stored, "\n".join(lines)).split("\n")


class Inline(InlineProcessor):
    """Formulas between single `$`."""

    # The base class has a wider type.
    def handleMatch(self, m: re.Match[str], data: str) -> Any:  # noqa: N802
        """The placeholder of a formula, and what it replaces."""
        return self.md.htmlStash.store(mathml(m[1], False)), m.start(0), m.end(0)


class Mathematics(Extension):
    """Both kinds of formulas."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        """Register the processors; of two, the one with the higher priority is first."""
        md.preprocessors.register(Displayed(md), "displayed", 24)  # after fenced code, 25
        md.inlinePatterns.register(Inline(INLINE, md), "formula", 185)  # code, 190; escapes, 180


def makeExtension(**options: Any) -> Mathematics:  # noqa: N802
    """The extension, as Markdown loads it by the name of this module."""
    return Mathematics(**options)
