"""Cases that together hold every level, or every pair of levels of any two factors."""

import random
from itertools import combinations, cycle, islice, product

import pytest


def pairs(case):
    return set(combinations(case.items(), 2))


def pairwise(factors):
    """The same cases at every call: each begins with a pair that is missing, and adds the most.

    Args:
        factors: the levels of each factor, by name.

    Returns:
        A list of cases, dicts of one level for each factor.
    """
    missing = {}  # in order, since the levels of a set are in none
    for a, b in combinations(factors, 2):
        missing |= {((a, x), (b, y)): None for x in factors[a] for y in factors[b]}
    cases = []
    while missing:
        case = dict(next(iter(missing)))
        for name in sorted(factors, key=lambda name: -len(factors[name])):
            if name not in case:
                gains = {x: _gain(missing, case, name, x) for x in factors[name]}
                case[name] = max(gains, key=gains.get)
        case = {name: case[name] for name in factors}
        for pair in pairs(case):
            missing.pop(pair, None)
        cases.append(case)
    return cases


def each(factors):
    """As many cases as the longest factor has levels, which are mixed at random, but always alike.

    Args:
        factors: the levels of each factor, by name.

    Returns:
        A list of cases, dicts of one level for each factor.
    """
    rng = random.Random(0)
    count = max(map(len, factors.values()))
    columns = ([*islice(cycle(levels), count)] for levels in factors.values())
    mixed = [rng.sample(column, count) for column in columns]
    return [dict(zip(factors, case, strict=True)) for case in zip(*mixed, strict=True)]


def in_tiers(chosen=each, /, **factors):
    """Parametrizes a test with the full product, of which few cases are quick, all others thorough.

    Args:
        chosen: which cases are quick, a function of the factors.
        factors: the levels of each argument, by name.

    Returns:
        The decorator.
    """
    quick = chosen(factors)
    cases = (dict(zip(factors, case, strict=True)) for case in product(*factors.values()))
    marked = [
        pytest.param(
            *case.values(),
            marks=[] if case in quick else pytest.mark.thorough,
            id=" ".join(getattr(x, "__name__", str(x)) for x in case.values()),
        )
        for case in cases
    ]
    return pytest.mark.parametrize(list(factors), marked)


def _gain(missing, case, name, level):
    """The missing pairs that a level makes with those chosen, then with any."""
    of_level = [pair for pair in missing if (name, level) in pair]
    chosen = [pair for pair in of_level if any(case.get(k) == x for k, x in pair if k != name)]
    return len(chosen), len(of_level)
