"""Files of gallery images between being opened and being sent."""

import os
from hashlib import sha256

import pytest

from ucdir.gallery.interface import GalleryImage
from ucdir.web.originals import CHUNK_BYTES, Gone, content_of, disposition, is_untouched, open_indexed


def indexed(path):
    content, status = path.read_bytes(), path.stat()
    digest = sha256(content).hexdigest()
    return GalleryImage(path, "d", digest, 1, 1, len(content), None, status.st_mtime_ns, status.st_ctime_ns)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "image.bin"
    path.write_bytes(os.urandom(3 * CHUNK_BYTES + 17))
    return path


def test_what_is_sent_is_what_was_indexed(file):
    image = indexed(file)
    opened = open_indexed(image)
    assert b"".join(content_of(opened, image)) == file.read_bytes()
    assert opened.closed


@pytest.mark.parametrize("change", ["first byte", "last byte", "longer", "shorter"])
def test_a_file_that_changes_while_it_is_sent_is_never_sent_whole(file, change):
    image = indexed(file)
    pieces, sent = content_of(open_indexed(image), image), []
    with file.open("r+b") as writing:
        if change == "first byte":
            writing.write(bytes([file.read_bytes()[0] ^ 1]))
        elif change == "last byte":
            writing.seek(-1, os.SEEK_END)
            writing.write(bytes([file.read_bytes()[-1] ^ 1]))
        elif change == "shorter":
            writing.truncate(CHUNK_BYTES + 5)
        else:
            writing.truncate(image.bytes + 5)
    if change == "longer":
        assert sum(len(piece) for piece in pieces) == image.bytes
        with pytest.raises(Gone):
            open_indexed(image)
        return
    with pytest.raises(Gone, match="has changed since it was indexed"):
        sent.extend(pieces)
    assert sum(len(piece) for piece in sent) < image.bytes


def test_the_file_system_vouches_only_for_what_was_not_touched(file):
    image = indexed(file)
    assert is_untouched(image)
    file.touch()
    assert not is_untouched(image)
    assert open_indexed(image).close() is None
    file.unlink()
    assert not is_untouched(image)


def test_names_in_headers():
    assert disposition('a"b\r\n; \u732b.png') == "inline; filename*=UTF-8''a%22b%0D%0A%3B%20%E7%8C%AB.png"
