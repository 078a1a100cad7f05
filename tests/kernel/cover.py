"""Cases that together hold every pair of levels of any two factors."""

from itertools import combinations


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


def _gain(missing, case, name, level):
    """The missing pairs that a level makes with those chosen, then with any."""
    of_level = [pair for pair in missing if (name, level) in pair]
    chosen = [pair for pair in of_level if any(case.get(k) == x for k, x in pair if k != name)]
    return len(chosen), len(of_level)
