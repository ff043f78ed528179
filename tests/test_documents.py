"""JSON documents: the one rule for versions, what is refused, and that nothing changes on the way."""

import json
import math
from dataclasses import dataclass

import pytest

from ucdir.documents import DamagedDocument, from_json, to_json
from ucdir.errors import UcdirError


@dataclass(frozen=True)
class Shelf:
    name: str
    sizes: tuple[int, ...]
    weight: float = 1.0


SHELF = Shelf("Söller", (1, 2), 0.1)


def test_what_is_read_is_what_was_written() -> None:
    text = to_json(SHELF, 3)
    assert from_json(Shelf, text, 3, "shelf 'x'") == SHELF
    assert json.loads(text) == {"format_version": 3, "name": "Söller", "sizes": [1, 2], "weight": 0.1}
    assert "Söller" in text
    assert to_json(SHELF, 3, ensure_ascii=True).isascii()


def test_nan_becomes_null() -> None:
    assert json.loads(to_json(Shelf("a", (), math.nan), 1))["weight"] is None


def test_an_older_document_lacks_fields_and_may_lack_the_version() -> None:
    assert from_json(Shelf, '{"name": "a", "sizes": []}', 2, "shelf 'x'") == Shelf("a", ())


def test_a_newer_document_is_refused() -> None:
    with pytest.raises(UcdirError, match=r"shelf 'x' has format 4, this ucdir reads up to 3\. Update ucdir\."):
        from_json(Shelf, to_json(SHELF, 4), 3, "shelf 'x'")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", "no attribute 'get'"),
        ('{"format_version": "new"}', "not supported"),
        ('{"sizes": []}', "name: field required"),
        ('{"name": "a", "sizes": ["b"]}', r"sizes\.0: input should be a valid integer"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_damage_is_named(text: str, reason: str) -> None:
    with pytest.raises(DamagedDocument, match=reason):
        from_json(Shelf, text, 3, "shelf 'x'")
