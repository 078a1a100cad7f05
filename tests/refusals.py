"""Tests of tables of calls that are refused."""

import pytest


def refused(table):
    """A test of each row of a table, for the module to name: `test_refused = refused(REFUSED)`.

    Args:
        table: a call and a text that is in the message of its ValueError, by name.

    Returns:
        The test.
    """

    @pytest.mark.parametrize("name", table)
    def test(name):
        call, text = table[name]
        with pytest.raises(ValueError) as error:  # noqa: PT011
            call()
        assert text in str(error.value), error.value

    return test
