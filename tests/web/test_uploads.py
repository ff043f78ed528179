"""Embedding in batches, places, thumbnails that are kept: without HTTP."""

import threading
from concurrent.futures import CancelledError

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("prometheus_client", reason="ucdir serve needs the extra 'serve'")

from ucdir.model.runtime import unplaced
from ucdir.web.security import host_name
from ucdir.web.thumbnails import Thumbnails
from ucdir.web.uploads import BATCH, Busy, Embedder, Places


class Means:
    """An encoder that gives the mean of each view, and waits before each batch until it may go on."""

    fingerprint, image_size, views, domains, rows, confidence = "f", 4, (), (), "", None

    def __init__(self):
        self.may_go_on = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.batches = []

    def __call__(self, views, domains=()):
        self.begun.release()
        self.may_go_on.acquire()
        self.batches.append(len(views))
        if (views == 255).any():
            raise RuntimeError("no such view")
        return unplaced(views.mean(axis=(1, 2, 3), dtype=np.float32)[:, None])


@pytest.fixture
def encode():
    return Means()


@pytest.fixture
def embedder(encode):
    embedder = Embedder(encode)
    yield embedder
    encode.may_go_on.release(100)
    embedder.close()


def view(value):
    return np.full((3, 4, 4), value, np.uint8)


def test_what_waits_is_embedded_together_and_each_gets_its_own_row(embedder, encode):
    first = embedder.submit(view(0))
    encode.begun.acquire()
    others = [embedder.submit(view(value)) for value in range(1, 2 * BATCH)]
    encode.may_go_on.release(100)
    assert [future.result().rows[0, 0] for future in (first, *others)] == list(range(2 * BATCH))
    assert encode.batches == [1, BATCH, BATCH - 1]


def test_a_cancelled_job_costs_nothing(embedder, encode):
    first = embedder.submit(view(0))
    encode.begun.acquire()
    dropped = [embedder.submit(view(1)) for _ in range(3)]
    assert all(future.cancel() for future in dropped)
    kept = embedder.submit(view(2))
    encode.may_go_on.release(100)
    assert (first.result().rows[0, 0], kept.result().rows[0, 0]) == (0, 2)
    with pytest.raises(CancelledError):
        dropped[0].result()
    assert encode.batches == [1, 1]


def test_an_error_reaches_whoever_asked_and_the_thread_goes_on(embedder, encode):
    encode.may_go_on.release(100)
    with pytest.raises(RuntimeError, match="no such view"):
        embedder.submit(view(255)).result()
    assert embedder.submit(view(3)).result().rows[0, 0] == 3


def test_closing_finishes_what_waits(encode):
    embedder = Embedder(encode)
    jobs = [embedder.submit(view(value)) for value in range(40)]
    encode.may_go_on.release(100)
    embedder.close()
    assert [job.result(timeout=0).rows[0, 0] for job in jobs] == list(range(40))


def test_places_are_given_back_whatever_happens():
    places = Places(2)
    with places.place():
        with pytest.raises(KeyError), places.place():
            raise KeyError
        with places.place(), pytest.raises(Busy), places.place():
            raise AssertionError
        assert places.taken == 1
    assert places.taken == 0


def test_thumbnails_stay_within_their_bytes_and_the_oldest_go_first():
    kept = Thumbnails(max_bytes=100)
    for number in range(10):
        kept.put((str(number), 64), b"x" * 20)
        kept.get(("0", 64))
    assert kept.size == 100
    assert [number for number in range(10) if kept.get((str(number), 64))] == [0, 6, 7, 8, 9]
    kept.put(("0", 64), b"y" * 10)
    assert (kept.size, len(kept)) == (90, 5)
    kept.put(("large", 64), b"x" * 26)
    assert kept.get(("large", 64)) is None


def test_thumbnails_in_threads_keep_count():
    kept = Thumbnails(max_bytes=1000)

    def fill(seed):
        for number in np.random.default_rng(seed).integers(0, 300, 2000):
            kept.put((str(number), 64), b"x" * int(number % 50))
            kept.get((str(number + 1), 64))

    threads = [threading.Thread(target=fill, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept.size == sum(len(content) for content in kept._kept.values()) <= 1000


@pytest.mark.parametrize(
    ("header", "name"),
    [("a.b:80", "a.b"), ("A.B", "a.b"), ("[::1]:8000", "::1"), ("[::1]", "::1"), ("", ""), (":80", ""), ("[", "")],
)
def test_host_names(header, name):
    assert host_name(header) == name
