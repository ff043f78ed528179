"""Rows by hex digest."""

import pyarrow as pa

from ucdir.gallery.row_lookup import RowLookup


def test_digests_with_one_beginning_are_told_apart():
    same = "ab" * 8
    column = pa.chunked_array([[same + "00", "cd" * 9], [same + "01", same + "00"]])
    lookup = RowLookup(column)
    assert lookup.row(same + "00") == 0
    assert list(lookup.rows(same + "00")) == [0, 3]
    assert lookup.row(same + "01") == 2
    assert lookup.row("cd" * 9) == 1
    for wrong in (same, same + "02", "ff" * 9, "", "no", "-1", "ü" * 24, " " * 24):
        assert lookup.row(wrong) is None


def test_nothing_is_found_in_nothing():
    assert RowLookup(pa.chunked_array([pa.array([], pa.string())])).row("ab" * 12) is None
