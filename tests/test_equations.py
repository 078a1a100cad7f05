"""Every equation of the sources has exactly one row in docs/sources.md, and the row holds."""

import csv
import re

from programs import ROOT

import jrnn
import jrnn.derivation

PAGE = (ROOT / "docs/sources.md").read_text(encoding="utf-8")
COUNTS = {"wolf": 25, "wolf-es": 25, "brown": 30, "chavan": 103, "notebook": 16}
EXPECTED = [f"{source}.{n}" for source, count in COUNTS.items() for n in range(1, count + 1)]

with (ROOT / "docs/equations.csv").open(newline="", encoding="utf-8") as file:
    EQUATIONS = list(csv.DictReader(file))


def expand(ids):
    """The ids of a cell: "a.1, a.3-a.5" is a.1, a.3, a.4, a.5."""
    for group in ids.split(", "):
        match = re.fullmatch(r"([a-z]+(?:-[a-z]+)?)\.(\d+)(?:-\1\.(\d+))?", group)
        assert match, f"{group!r} is neither an id nor a range of ids"
        source, first, last = match[1], int(match[2]), int(match[3] or match[2])
        assert match[3] is None or first < last, group
        yield from (f"{source}.{n}" for n in range(first, last + 1))


def rows():
    """(section, cells) of the tables whose first column is an id."""
    for section in PAGE.split("\n## ")[1:]:
        _, header, table = section.partition("| id | what it states | here | tests |\n")
        if header:
            for line in table.partition("\n\n")[0].splitlines()[1:]:
                cells = [cell.strip() for cell in line.strip().removesuffix("|").split("|")[1:]]
                assert len(cells) == 4, line
                yield section.splitlines()[0], cells


ROWS = list(rows())


def test_equations_are_complete_and_in_order():
    assert [row["id"] for row in EQUATIONS] == EXPECTED
    assert list(EQUATIONS[0]) == ["id", "source", "section", "number", "sha256", "latex"]
    assert len({row["source"] for row in EQUATIONS}) == len(COUNTS)
    for row in EQUATIONS:
        assert row["section"].isascii(), row
        assert re.fullmatch("[0-9a-f]{16}", row["sha256"]), row
        assert 0 < len(row["latex"]) <= 60, row
        assert "\n" not in row["latex"], row


def test_only_brown_numbers_equations_and_none_of_his_is_missing():
    assert {row["id"].split(".")[0] for row in EQUATIONS if row["number"]} == {"brown"}
    numbers = " ".join(row["number"] for row in EQUATIONS if row["number"])
    assert numbers == "1a 1b 2 3 4 5 6 7 8 9 10a-10b 11 12a-12c 13 14 15 16a-16c " + " ".join(
        str(n) for n in range(17, 25)
    )


def test_the_spanish_version_differs_where_the_page_says():
    english, spanish = (
        [row["sha256"] for row in EQUATIONS if row["id"].startswith(f"{source}.")]
        for source in ("wolf", "wolf-es")
    )
    assert [n for n in range(25) if english[n] != spanish[n]] == [8 - 1, 10 - 1, 19 - 1]


def test_every_equation_is_in_one_row():
    named = [id_ for _, (ids, *_) in ROWS for id_ in expand(ids)]
    assert sorted(named) == sorted(EXPECTED)
    for section in {section for section, _ in ROWS}:  # one table per source
        ids = [ids for of, (ids, *_) in ROWS if of == section]
        assert len({id_.split(".")[0] for group in ids for id_ in expand(group)}) == 1


def test_functions_and_tests_of_every_row_exist():
    for _, (ids, states, here, tests) in ROWS:
        assert states, ids
        names = re.findall(r"`([^`]+)`", here)
        for name in names:
            assert hasattr(jrnn, name) or hasattr(jrnn.derivation, name), f"{ids}: {name}"
        if here.startswith("definition, used in "):
            assert not tests, f"{ids}: a definition has no test"
            continue
        assert names, f"{ids}: no function computes it"
        for path in tests.split(", "):
            assert re.fullmatch(r"tests/(kernel/)?test_\w+\.py", path), f"{ids}: {path!r}"
            assert (ROOT / path).is_file(), f"{ids}: {path}"
