"""Every command that a page names for its numbers is one that `python -m benchmarks` runs."""

import importlib
import re
import shlex
from pathlib import Path

import pictures
import pytest
from programs import ROOT

from benchmarks import __main__ as command
from benchmarks.__main__ import Figure

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [ROOT / "benchmarks/README.md", ROOT / "examples/README.md"]
LISTED = command.tomllib.loads((ROOT / "benchmarks/figures.toml").read_text())
ELSEWHERE = {  # commands that pages name, and that `python -m benchmarks` does not run
    "python -m benchmarks": "this command itself",
    "python -m benchmarks.device": "a GPU or a TPU; its pages are in benchmarks/results",
    "python -m benchmarks.gradients": "it compares, and measures nothing",
    "python -m benchmarks.accelerators": "compilers for other devices",
    "PYTHONPATH=examples python tests/interop/record_forecast.py": "it writes tests/recorded",
    "python tests/interop/record_peers.py": "it writes tests/recorded",
    "python examples/char_lm.py --text book.txt --out out/book --resume": "without numbers",
    "python examples/char_lm.py --coordinator host0:1234": "without numbers, several machines",
    "python docs/figures/draw.py": "drawings without numbers",
}
PROGRAM = r"(?:[A-Z_]+=\S+ )*(?:taskset -c \d+ )?python "
PROGRAM += r"(?:-m (?:benchmarks|docs)\b|examples/|docs/|tests/interop/)"


def commands_of(text):
    """The commands in code spans and indented lines of a page."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    lines = re.findall(r"^(?:    |\t)(.*)$", text, re.M)
    spans = re.findall(r"`([^`]+)`", re.sub(r"^(?:    |\t).*$", "", text, flags=re.M))
    for line in (part for found in [*lines, *spans] for part in found.split("&&")):
        words = " ".join(line.split("#")[0].replace(".venv/bin/", "").split())
        if re.match(PROGRAM, words):
            yield words


def options_of(text):
    """The options that begin the lines of tables of results."""
    yield from (" ".join(span.split()) for span in re.findall(r"^\| `(--[^`]+)`", text, re.M))


def faults_of(page, text):
    """The commands and options of a page that no listed command of this page has."""
    own = [f["command"] for f in LISTED["figure"] if page in f["pages"]]
    for words in commands_of(text):
        known = [listed for listed in own if f"{listed} ".startswith(f"{words} ")]
        if not known and not any(f"{words} ".startswith(f"{e} ") for e in ELSEWHERE):
            yield words
    if page == "examples/README.md":
        yield from (o for o in options_of(text) if not any(f" {o} " in f"{c} " for c in own))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_page_are_listed(path):
    page = str(path.relative_to(ROOT))
    assert not list(faults_of(page, path.read_text(encoding="utf-8")))


def test_a_figure_with_a_new_command_is_found():
    new = (
        "It takes 3 ms (`python -m benchmarks.kernel --rows\n7`).\n\n    python examples/new.py # 5"
    )
    said = list(faults_of("examples/README.md", f"{new}\n\n| `--cell lstm --layers 9` | 1.5 |\n"))
    assert said == [
        "python examples/new.py",
        "python -m benchmarks.kernel --rows 7",
        "--cell lstm --layers 9",
    ]
    known = "`python -m benchmarks.kernel`"
    assert not list(faults_of("README.md", known))
    assert list(faults_of("docs/cells.md", known))  # another page than those that cite it


def test_the_pages_that_are_listed_name_their_program():
    for figure in LISTED["figure"]:
        program = next(
            w for w in shlex.split(figure["command"]) if re.search("[./]", w) and "=" not in w
        )
        for page in figure["pages"]:
            text = (ROOT / page).read_text(encoding="utf-8")
            assert program in text or Path(program).name in text, (page, program)


PARSERS = {
    "examples/char_lm.py": "char_model.settings",
    "tests/interop/record_vowels.py": "japanese_vowels",
}


def parse(words):
    """The words of a command, by the parser of its program."""
    if words[0] == "docs/pictures":
        return pictures_of(words[1:])
    if words[0] == "-m":
        module, *rest = words[1:]
    else:
        module, rest = PARSERS.get(words[0], Path(words[0]).stem), words[1:]
    found = importlib.import_module(module)
    return (found if hasattr(found, "parse") else found.Settings).parse(rest)


def pictures_of(names):
    if unknown := set(names) - set(pictures.PICTURES):
        raise SystemExit(unknown)
    return names


@pytest.mark.parametrize("figure", LISTED["figure"], ids=lambda figure: figure["command"])
def test_a_listed_command_parses(figure):
    assert Figure(**figure).minutes > 0
    words = shlex.split(figure["command"])
    assert parse(words[words.index("python") + 1 :])


@pytest.mark.parametrize(
    "words",
    ["-m benchmarks.kernel --row 99", "examples/char_lm.py --cel lstm", "docs/pictures sped"],
)
def test_a_command_that_does_not_parse_is_found(words, capsys):
    with pytest.raises(SystemExit):
        parse(words.split())


def test_the_list_runs_nothing(monkeypatch, capsys):
    monkeypatch.setattr(command.commands, "run", lambda *_: pytest.fail("it is run"))
    assert command.main(["--list", "--only", "co2"]) == 0
    printed = capsys.readouterr().out
    words = "python examples/co2_forecast.py --cell lstm"
    (minutes,) = (f["minutes"] for f in LISTED["figure"] if f["command"] == words)
    assert f"| {words} | examples/README.md | {minutes:g} |" in printed
    assert "kernel" not in printed
    assert re.search(r"\d+ commands, about [\d.]+ hours on two cores\.", printed)
    with pytest.raises(SystemExit):
        command.main(["--only", "no such thing"])
    assert "no command or page matches 'no such thing'" in capsys.readouterr().err


def test_commands_without_times_run_two_at_once(tmp_path, monkeypatch):
    # "a" and "b" wait for each other; "c" finds that neither has begun.
    program = tmp_path / "program.py"
    program.write_text(
        "import pathlib, sys, time\n"
        "name, other, here = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[0]).parent\n"
        "(here / name).touch()\n"
        "end = time.monotonic() + 60\n"
        "while other != 'none' and not (here / other).exists() and time.monotonic() < end:\n"
        "    time.sleep(0.01)\n"
        "if other == 'none':\n"
        "    time.sleep(0.5)\n"
        "    assert sorted(p.name for p in here.glob('?')) == ['c']\n"
        "print(name, time.monotonic() < end)\n"
    )
    made = [
        Figure(f"python {program} {words}", ["docs/page.md"], 1, timed)
        for words, timed in (("c none", True), ("a b", False), ("b a", False))
    ]
    found = [(end.said, text) for end, text in command.run_all(made, tmp_path / "out")]
    assert found == [("done", f"{n} True") for n in "cab"]


def test_a_command_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "print('| a table |', os.environ.get('WHERE'), sys.argv[-2:])\n"
        "sys.exit('no data' if 'wrong' in sys.argv else 0)\n"
    )
    made = [
        Figure(f"WHERE=here python {program} {word}", ["docs/page.md"], 1)
        for word in ("right", "wrong", "last")
    ]
    monkeypatch.setattr(command, "figures", lambda: made)
    assert command.main(["--out", str(tmp_path / "out")]) == 1
    failed = f"1 of 3 commands failed: {made[1].command}"
    assert f"error: {failed}\n" in capsys.readouterr().err
    written = (tmp_path / "out/figures.md").read_text()
    assert written.count("| a table | here ['--out', ") == 3
    assert "docs/page.md; **failed: exit status 1: no data**; 0.0 minutes." in written
    on = re.escape(command.machine.processor())
    assert re.search(rf"\n- \*\*{failed}\*\*\n- {on}, \d+ cores; jrnn .*, jax .*\.\n", written)
    assert (tmp_path / "out/03/output.txt").read_text().startswith("| a table |")
    assert command.main(["--only", "right|last", "--out", str(tmp_path / "out")]) == 0
