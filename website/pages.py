"""The pages of the site, with links that work in it.

A page of `docs/` may link to any file of the repository. The site has a page for each such file,
and for each module that an example imports from its folder. Its first page is `docs/index.md`, with
the example of README.
"""

import ast
import re
import shutil
from importlib.metadata import distribution
from pathlib import Path
from posixpath import dirname, normpath, relpath

ROOT = Path(__file__).parents[1]
READMES = {
    "README.md": "index.md",
    "examples/README.md": "examples.md",
    "benchmarks/README.md": "benchmarks.md",
}
CODE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.M | re.S)
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")
COPIED = {".md", ".npz", ".png", ".svg"}  # as they are; other files become pages of code
EXAMPLE = re.compile(r"^.*\(\.\./README\.md#example\).*$", re.M)  # the line of docs/index.md
INFO = re.compile(r"^(```python) \w+$", re.M)  # the library that a block needs; tests read it


def address(path: str) -> str:
    """The page of the site that shows a file or folder of the repository.

    Args:
        path: relative to the root of the repository.

    Returns:
        The path of the page, relative to the folder of the pages.
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in READMES:
        return READMES[path]
    if (ROOT / path).is_dir():
        return f"source/{path}/index.md"
    return f"source/{path}" if Path(path).suffix in COPIED else f"source/{path}.md"


def content(path: str) -> str:
    """The Markdown of a page.

    Args:
        path: a file or folder of the repository, relative to its root.

    Returns:
        Its own text if it is Markdown; otherwise its lines as code, or a list of its files.
    """
    file = ROOT / path
    if file.suffix == ".md":
        text = file.read_text(encoding="utf-8")
        return EXAMPLE.sub(lambda _: example(), text) if path == "docs/index.md" else text
    head = f"---\ntitle: {path}\nsearch:\n  exclude: true\n---\n\n# `{path}`\n\n"
    if file.is_dir():
        names = sorted(f.name for f in file.iterdir() if f.suffix in {".py", ".md"})
        return head + "\n".join(f"- [{name}]({name})" for name in names)
    if modules := imported(path):
        here = dirname(address(path))
        links = (f"[`{relpath(m, dirname(path))}`]({relpath(address(m), here)})" for m in modules)
        head += f"Imports {', '.join(links)}.\n\n"
    language = "python" if file.suffix == ".py" else "text"
    return f"{head}~~~~~~{language}\n{file.read_text(encoding='utf-8')}\n~~~~~~\n"


def example() -> str:
    """The first paragraph and the program of "Example" in README."""
    _, _, section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Example\n\n")
    sentence, program, _ = section.split("```", 2)
    return f"{sentence}```{program}```"


def imported(path: str) -> list[str]:
    """The modules that an example imports from the folder of the examples.

    Args:
        path: a file of the repository, relative to its root.

    Returns:
        Their paths, sorted; none for a file that is no program of `examples/`.
    """
    if not (path.startswith("examples/") and path.endswith(".py")):
        return []
    found = set[str]()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {f"examples/{alias.name.replace('.', '/')}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            folder = dirname(path) if node.level else "examples"
            found.add(f"{folder}/{node.module.replace('.', '/')}")
    files = {f"{module}{end}" for module in found for end in (".py", "/__init__.py")}
    return sorted(file for file in files if (ROOT / file).is_file())


def linked(path: str) -> tuple[str, set[str]]:
    """The text of a page, with links that work in the site.

    Args:
        path: as in `content`.

    Returns:
        The text, and the files and folders outside `docs/` to which it links, or which it imports.

    Raises:
        FileNotFoundError: it links to a file that does not exist.
    """
    text, targets = INFO.sub(r"\1", content(path)), set[str]()
    folder = path if (ROOT / path).is_dir() else dirname(path)
    if folder != path and not path.endswith(".md"):
        return text, set(imported(path))

    def replace(match: re.Match[str]) -> str:
        target = normpath(f"{folder}/{match[0]}")
        if not (ROOT / target).exists():
            raise FileNotFoundError(f"{path} links to {match[0]}, which does not exist")
        if not target.startswith("docs/"):
            targets.add(target)
        return relpath(address(target), dirname(address(path)) or ".")

    parts = CODE.split(text)  # code is at the odd places
    parts[::2] = [LINK.sub(replace, part) for part in parts[::2]]
    return "".join(parts), targets


def write_pages(folder: Path) -> None:
    """Write `docs/`, the READMEs, all files to which these link, and their modules.

    Args:
        folder: for the pages; its former content is deleted.

    Raises:
        FileNotFoundError: a page links to a file that does not exist.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("__pycache__"))
    # Many computers have no font for mathematics, and show sums and brackets as small as letters.
    font = distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")
    shutil.copy(str(font), folder / "assets")
    waiting = [f"docs/{p.relative_to(ROOT / 'docs')}" for p in (ROOT / "docs").rglob("*.md")]
    waiting += [path for path in READMES if path != "README.md"]  # docs/index.md
    written = {*waiting, "README.md"}
    while waiting:
        path = waiting.pop()
        page = folder / address(path)
        page.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".md":
            text, targets = linked(path)
            page.write_text(text, encoding="utf-8")
            waiting += targets - written
            written |= targets
        else:
            shutil.copyfile(ROOT / path, page)
