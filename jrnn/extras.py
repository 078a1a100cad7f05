"""How to get a package that only a part of jrnn needs; an extra of pyproject.toml brings it."""


def install(extra: str) -> str:
    """What an error says of a package that is missing.

    Args:
        extra: the extra of jrnn that brings it.

    Returns:
        The command, and where it works: jrnn is on no package index.
    """
    return f"pip install -e '.[{extra}]', in the clone of jrnn, brings it"
