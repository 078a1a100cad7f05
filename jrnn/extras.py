"""Installation hints for optional packages, which are extras in pyproject.toml."""


def install(extra: str) -> str:
    """The hint in an error about a missing package.

    Args:
        extra: the extra of jrnn that installs the package.

    Returns:
        The command, and where to run it: jrnn is not on a package index.
    """
    return f"pip install -e '.[{extra}]', in the clone of jrnn, brings it"
