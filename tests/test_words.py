"""Plain English: docstrings, comments and pages avoid patterns that are hard to read."""

import ast
import io
import re
import tokenize

import pytest
from programs import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/results/README.md"]
PAGES += [*sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("docs/**/*.md"))]
MODULES = sorted(
    path
    for folder in ("jrnn", "examples", "benchmarks", "docs", "website")
    for path in (ROOT / folder).rglob("*.py")
)

START = r"(?:^|[.:;!?] )"  # of a sentence
FORBIDDEN = {
    rf"{START}What\b[^?]*?(?:\.(?= |$)|$)": "begin with the subject; what is a question",
    rf"{START}Of (?:an?|the|each|all|one|two|several|its|what)\b": "begin with the subject",
    rf"{START}Whose\b": "begin with the subject",
    r"\bwhat (?:is|has|had|comes|came|goes|stands|reaches|leaves|would|does)\b": "name the thing",
    r"\bthat which\b": "name the thing",
    r"\b[Ww]hoever\b": "the caller, the user",
    r"\b[Nn]obody\b": "name the subject",
    r"\bfor (?:it|them)self\b": "alone, separately",
    r"\bany more\b": "no longer",
    r"\b(?:is|are) of\b": "has, belongs to",
    r"\b(?:is|are|was) said\b": "reports, prints",
    r"\bst(?:ands?|ood) (?:at|in|there|here|beside|outside|on|before|after|behind)\b": "is",
    r"\b(?:in|out)side of\b": "inside, outside",
    r"\b[Bb]eside\b": "next to, besides, compared with",
    r"\bbut for\b": "except",
    r"\bin the place of\b": "instead of, for",
    r", for (?:it|they|there|he)\b": "because",
    r"\bnow and then\b": "occasionally",
    r"\bgo(?:es|ing)? on\b": "continue",
    r"\bwhatever (?:it|stands|is)\b": "any, even if",
}
OF_COMMENTS = {r"^or\b": "otherwise, or give the reason"}


def comments(source):
    """(line, text) of the comments; consecutive lines of comment are one."""
    joined = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, text = token.start[0], token.string.lstrip("# ")
            alone = token.line.lstrip().startswith("#")
            if joined and alone and joined[-1][1] == line - 1:
                text = f"{joined.pop()[2]} {text}"
            joined.append((line, line if alone else None, text))
    return [(line, text) for line, _, text in joined]


def docstrings(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield node.body[0].lineno, text


def faults(text, patterns):
    """The forbidden words of a text, each with its repair."""
    text = " ".join(text.split())
    for pattern, repair in patterns.items():
        for found in re.finditer(pattern, text):
            context = text[max(0, found.start() - 20) : found.start() + 60]
            yield f"...{context}...: {repair}"


def faults_of_module(source):
    for line, text in docstrings(source):
        yield from (f"line {line}: {fault}" for fault in faults(text, FORBIDDEN))
    for line, text in comments(source):
        patterns = FORBIDDEN | OF_COMMENTS
        yield from (f"line {line}: {fault}" for fault in faults(text, patterns))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_and_comments(path):
    assert not list(faults_of_module(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    blocks = re.split(r"\n\n|\n(?=[-|#])", text)
    assert not [fault for block in blocks for fault in faults(block, FORBIDDEN)]


@pytest.mark.parametrize(
    "sentence",
    [
        "What is carried back through time.",
        "The states. What a call brings beside its parameters.",
        "Of the steps of a sequence [T].",
        "Whoever maps one sequence over a batch gets the batch.",
        "It is no gradient of a cost any more.",
        "It is of size T.",
        "The equations stand at the top of the file.",
        "Zeros, for it has no bias.",
        "The rest goes on.",
    ],
)
def test_what_is_hard_to_read_is_found(sentence):
    assert list(faults_of_module(f'"""{sentence}"""\n'))
    assert list(faults_of_module(f"x = 1\n# {sentence}\n"))


def test_a_comment_that_begins_with_or():
    assert list(faults_of_module("x = 1  # or XLA transposes the factors\n"))
    assert list(faults_of_module("# or XLA\n# transposes\n"))
    assert not list(faults_of_module("# Python\n# or NumPy\n"))


@pytest.mark.parametrize(
    "sentence",
    [
        "What does a checkpoint contain? See below.",
        "An activation of your own stands for any function.",
        "The last of the steps, for example.",
    ],
)
def test_plain_sentences_pass(sentence):
    assert not list(faults_of_module(f'"""{sentence}"""\n'))
