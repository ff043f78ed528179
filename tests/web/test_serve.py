"""`ucdir serve` as a real process behind a real socket: slow and broken uploads, signals, updates, wrong starts."""

import errno
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress

import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("uvicorn", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("python_multipart", reason="ucdir serve needs the extra 'serve'")
pytest.importorskip("prometheus_client", reason="ucdir serve needs the extra 'serve'")

from ucdir.cli import main
from ucdir.web import server

pytestmark = pytest.mark.slow

END = b"\r\n--x--\r\n"
STARTING = "from ucdir.cli import main; main()"
SHORT_WAITS = "import ucdir.web.server as server; server.IDLE_SECONDS = 0.5; from ucdir.cli import main; main()"


def form(image, last=END):
    """The body of a search with an upload."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return head + image + last


def picture(size=(60, 40)):
    content = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(content, "PNG")
    return content.getvalue()


def noise(side):
    """A picture that does not get smaller by packing."""
    content = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(content, "PNG")
    return content.getvalue()


def post(address, body, **headers):
    """Status and JSON of one search over a connection of its own."""
    connection = http.client.HTTPConnection(*address, timeout=600)
    try:
        connection.request("POST", "/search", body, {"Content-Type": "multipart/form-data; boundary=x", **headers})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def get(running, path):
    with urllib.request.urlopen(running.url + path, timeout=600) as answer:
        return json.load(answer)


def begin_upload(address, length):
    """An open socket on which the head of an upload was sent."""
    opened = socket.create_connection(address, timeout=600)
    head = (
        f"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\nContent-Length: {length}"
    )
    opened.sendall(f"{head}\r\n\r\n".encode())
    return opened


def begin_read_upload(address, length):
    """The same, when the service has begun to read the body."""
    opened = socket.create_connection(address, timeout=600)
    kind = "Content-Type: multipart/form-data; boundary=x\r\nExpect: 100-continue"
    opened.sendall(f"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\n{kind}\r\nContent-Length: {length}\r\n\r\n".encode())
    received = b""
    while not received.endswith(b"\r\n\r\n"):
        received += opened.recv(1000)
    assert received.startswith(b"HTTP/1.1 100 ")
    return opened


def until(is_so):
    """Wait for something that comes about by itself."""
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answer_on(opened):
    """Status line, headers and body that come until the other side closes."""
    received = b""
    while part := opened.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), head.lower(), body


# Uploads that are not as they should be


@pytest.fixture(scope="module")
def impatient(launch, galleries):
    return launch(galleries[0], "--upload-seconds", "1", "--max-bytes", "1000000", starting=SHORT_WAITS)


def test_a_slow_upload_times_out(impatient):
    with begin_upload(impatient.address, 10_000) as opened:
        opened.sendall(form(picture())[:300])
        status, head, body = answer_on(opened)
    assert status == 408
    assert b"connection: close" in head
    assert "did not arrive within 1 seconds" in json.loads(body)["detail"]


def test_a_head_sent_slowly_ends(impatient):
    for sent in (b"", b"GET /health HTTP/1.1\r\nHost: 127.0"):
        with socket.create_connection(impatient.address, timeout=600) as opened:
            opened.sendall(sent)
            with suppress(ConnectionResetError):
                assert opened.recv(1000) == b""
    assert get(impatient, "/health")["status"] == "ok"


def test_a_broken_upload_leaves_the_service_as_it_was(impatient):
    before = metric(impatient, "ucdir_searches_in_progress")
    for _ in range(20):
        with begin_upload(impatient.address, 100_000) as opened:
            opened.sendall(form(picture(), last=b""))
    assert post(impatient.address, form(picture()))[0] == 200
    assert metric(impatient, "ucdir_searches_in_progress") == before == 0


def metric(running, name):
    with urllib.request.urlopen(f"{running.url}/metrics", timeout=600) as answer:
        return float(re.search(rf"^{name} (\S+)$", answer.read().decode(), re.MULTILINE)[1])


def send_without_end(opened, length):
    """Send up to so many bytes, until the other side no longer takes them."""
    block = b"\0" * 1_000_000
    with suppress(OSError):
        for _ in range(length // len(block)):
            opened.sendall(block)


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_of_a_gigabyte_is_refused_and_takes_no_memory(impatient, declared):
    """Whether the client still reads the refusal depends on how fast it sends; the log says that it was refused."""
    post(impatient.address, form(picture()))
    before, refused = impatient.memory(), impatient.log.read_text().count("POST /search 413")
    if declared:
        opened = begin_upload(impatient.address, 1_000_000_000)
    else:
        opened = socket.create_connection(impatient.address, timeout=600)
        kind = b"Content-Type: multipart/form-data; boundary=x"
        opened.sendall(b"POST /search HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n" + kind + b"\r\n\r\n")
        opened.sendall(b"3B9ACA00\r\n")
    with opened:
        opened.sendall(form(b"", last=b""))
        sender = threading.Thread(target=send_without_end, args=(opened, 900_000_000))
        sender.start()
        with suppress(ConnectionResetError):
            status, _, body = answer_on(opened)
            assert status == 413
            assert "more than 1,000,000 bytes" in json.loads(body)["detail"]
        sender.join()
    until(lambda: impatient.log.read_text().count("POST /search 413") == refused + 1)
    assert impatient.memory() - before < 60_000_000
    assert get(impatient, "/health")["status"] == "ok"


def test_a_client_that_asks_first_need_not_send_what_is_too_large(impatient):
    with socket.create_connection(impatient.address, timeout=600) as opened:
        head = b"POST /search HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        opened.sendall(head + b"Content-Length: 1000000000\r\nExpect: 100-continue\r\n\r\n")
        assert answer_on(opened)[0] == 413


@pytest.mark.parametrize(
    "sent",
    [b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\0\1\0\1\xfc", b"A" * 100_000],
)
def test_what_is_not_http(impatient, sent):
    with socket.create_connection(impatient.address, timeout=600) as opened, suppress(ConnectionResetError):
        opened.sendall(sent)
        opened.recv(1000)
    assert get(impatient, "/health")["status"] == "ok"


def test_an_answer_that_is_not_taken_ends(launch, make_gallery, tmp_path):
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "noise.png").write_bytes(noise(2500))
    running = launch(make_gallery(tmp_path / "g", tmp_path / "large"), starting=SHORT_WAITS)
    (hit,) = post(running.address, form(picture()))[1]["hits"]
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.connect(running.address)
        opened.sendall(f"GET {hit['image']} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        until(lambda: "GET /images/" in running.log.read_text())
        received = b""
        with suppress(ConnectionResetError):
            while part := opened.recv(65536):
                received += part
    assert len(received) < hit["bytes"]
    with urllib.request.urlopen(running.url + hit["image"], timeout=600) as answer:
        assert answer.read() == (tmp_path / "large" / "noise.png").read_bytes()


def test_an_upload_without_room_on_the_disk_is_asked_to_come_back(launch, galleries):
    """A limit on the size of files stands for a disk that is full."""
    full = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    running = launch(galleries[0], starting=f"{full}resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000)); {STARTING}")
    status, answer = post(running.address, form(noise(600)))
    assert (status, answer) == (503, {"detail": "the service has no room for uploads at the moment; its log says why."})
    assert post(running.address, form(picture()))[0] == 200
    log = running.log.read_text()
    assert "ERROR an upload could not be kept: [Errno 27] File too large" in log
    assert "Traceback" not in log
    assert "Exception ignored" not in log


def test_a_search_that_nobody_waits_for_gives_its_place_back(service):
    body = form(noise(1500))
    for _ in range(5):
        with begin_upload(service.address, len(body)) as opened:
            opened.sendall(body)
    until(lambda: metric(service, "ucdir_searches_in_progress") == 0)


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_is_in_flight_is_done(served, number):
    body = form(noise(400))
    with begin_read_upload(served.address, len(body)) as opened:
        opened.sendall(body[:100_000])
        served.process.send_signal(number)
        until(lambda: refuses(served.address))
        opened.sendall(body[100_000:])
        status, _, answered = answer_on(opened)
    assert status == 200
    assert len(json.loads(answered)["hits"]) == 24
    assert served.process.wait(timeout=600) == 0
    log = served.log.read_text()
    assert "Traceback" not in log
    assert re.search(r"INFO POST /search 200 \d+ ms$", log, re.MULTILINE)


def refuses(address):
    """Whether it no longer takes connections."""
    try:
        socket.create_connection(address, timeout=600).close()
    except ConnectionRefusedError:
        return True
    return False


def test_killed_in_the_middle_of_an_upload_it_leaves_nothing(launch, own_gallery, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = sorted(tmp_path.rglob("*"))
    running = launch(own_gallery, TMPDIR=str(scratch))
    body = form(noise(900))
    with begin_read_upload(running.address, len(body)) as opened:
        opened.sendall(body[:-1000])
        assert running.end(signal.SIGKILL) == -signal.SIGKILL
    assert sorted(tmp_path.rglob("*")) == before


# Living galleries


def test_no_request_fails_while_the_gallery_is_updated(served, own_pictures, own_gallery, make_gallery):
    body, statuses, ended = form(picture()), [], threading.Event()
    known = post(served.address, body)[1]["hits"][0]["id"]
    by_id = b'--x\r\nContent-Disposition: form-data; name="image_id"\r\n\r\n' + known.encode() + END

    def ask(number):
        while not ended.is_set():
            statuses.append(post(served.address, by_id if number % 2 else body)[0])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for count in range(4):
        (own_pictures / "drawing" / "fish" / f"new{count}.png").write_bytes(picture((60 + count, 40)))
        make_gallery(own_gallery)
    until(lambda: get(served, "/galleries")["galleries"][0]["count"] == 44)
    ended.set()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200}


def test_embeddings_cut_off_while_it_serves_do_not_end_it(served, own_gallery):
    assert post(served.address, form(picture()))[0] == 200
    with (own_gallery / "embeddings.npy").open("r+b") as file:
        file.truncate(100)
    until(lambda: get(served, "/health")["status"] == "degraded")
    assert post(served.address, form(picture()))[0] == 200
    assert served.process.poll() is None
    assert "is damaged" in served.log.read_text()


# Starting


def start(*arguments, **environment):
    """Exit code, stdout and stderr of a `ucdir serve` that is not to start."""
    command = [sys.executable, "-m", "ucdir", "serve", *map(str, arguments), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env={**os.environ, **environment}, check=False)
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run_command(monkeypatch, capsys):
    """run_command(code, *arguments): what `ucdir serve` says in this process when it ends at once with this code."""

    def run(code, *arguments):
        monkeypatch.setattr(sys, "argv", ["ucdir", "serve", *map(str, arguments), "--device", "cpu"])
        with pytest.raises(SystemExit) as left:
            main()
        printed = capsys.readouterr()
        assert (left.value.code, printed.out) == (code, "")
        assert printed.err.count("\n") == 1
        return printed.err

    return run


def test_a_port_that_is_taken(galleries):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert start(galleries[0], "--port", port)[::2] == (
            1,
            f"ucdir: port {port} of 127.0.0.1 is taken by another program. Give another one: --port {port + 1}.\n",
        )


def test_the_last_port_is_not_followed_by_another():
    """65535 itself may be taken by somebody else here, so the sentence alone is looked at."""
    refused = server._refused("127.0.0.1", 65535, OSError(errno.EADDRINUSE, "taken"))
    assert str(refused).endswith("Give another one: --port 65534.")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("{0}", "--host", "no.such.host.invalid"), 2, "--host 'no.such.host.invalid' is unknown"),
        (("{0}", "--host", "203.0.113.7"), 2, "--host '203.0.113.7' cannot be used"),
        (("{0}", "--port", "70000"), 2, "--port 70000: expected 0 to 65535"),
        (("{0}", "{0}"), 2, "two galleries have the name 'everything'"),
        (("a={0}", "a={1}"), 2, "two galleries have the name 'a'"),
        (("={0}",), 2, "has no name or no gallery next to the '='"),
        (("{0}", "--token-file", "/no/file"), 1, "--token-file '/no/file' cannot be read"),
        (("{0}", "--token-file", "/dev/null"), 2, "must be one word of printable ASCII"),
        (("{0}", "--queue", "0"), 2, "--queue 0: must be greater than 0"),
    ],
)
def test_wrong_starts_are_told_in_one_sentence(galleries, run_command, arguments, code, sentence):
    given = [text.format(*galleries) if text[0] in "{a=" else text for text in arguments]
    assert sentence in run_command(code, *given)


def test_an_engine_that_is_none(galleries):
    pytest.importorskip("ucdir.gallery.milvus", reason="the Milvus engine is not in this tree")
    assert start(galleries[0], "--engine", "lake")[::2] == (
        2,
        "ucdir: --engine 'lake' is unknown. Use folder, milvus:FILE.db (Milvus Lite) or milvus:http://HOST:19530 (a server).\n",
    )


def test_a_gallery_that_is_not_there():
    assert start("/no/gallery") == (
        1,
        "",
        "ucdir: gallery not found: '/no/gallery'. Make one with: ucdir index RUN DIR --out /no/gallery\n",
    )


def test_another_encoder_is_refused(galleries, tmp_path, run_command):
    import torch

    from ucdir.model.encoder import build_encoder

    torch.manual_seed(1)
    build_encoder("torchvision/mobilenet_v2", "none", 48).save(tmp_path / "other")
    assert "was indexed with encoder" in run_command(1, galleries[0], "--port", "0", "--encoder", tmp_path / "other")


def test_what_is_missing_is_named(galleries):
    hidden = "import importlib.util as u; f = u.find_spec; u.find_spec = lambda n, *a: None if n == 'uvicorn' else f(n, *a); "
    command = [sys.executable, "-c", f"{hidden}from ucdir.__main__ import main; main()", "serve", str(galleries[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert done.stderr == "ucdir: ucdir serve needs packages that are not installed: uvicorn. Run: pip install 'ucdir[serve]'\n"


def test_two_galleries_of_one_encoder_and_a_name(service, launch, galleries, tmp_path):
    """The token comes from the environment, is needed, and is nowhere in what is printed."""
    running = launch(f"first={galleries[1]}", galleries[0], "--host", "0.0.0.0", UCDIR_TOKEN="s3cret-t0ken")
    assert running.url.startswith("http://127.0.0.1:")
    assert get(running, "/health")["token_required"] is True
    assert post(running.address, form(picture()))[0] == 401
    status, answer = post(running.address, form(picture()), Authorization="Bearer s3cret-t0ken")
    assert (status, answer["gallery"]) == (200, "first")
    assert running.end() == 0
    assert "s3cret" not in running.log.read_text()
    assert "warning" not in running.log.read_text()


def test_open_to_all_without_a_token_is_warned_of(launch, galleries):
    running = launch(galleries[0], "--host", "0.0.0.0")
    assert post(running.address, form(picture()), Host="any.name")[0] == 200
    assert running.end() == 0
    assert "warning: anyone who can reach 0.0.0.0 can search and see these images" in running.log.read_text()


def test_the_service_starts_without_torch():
    code = "import sys, ucdir.gallery.folder; before = 'torch' in sys.modules; import ucdir.web.app, ucdir.web.server, "
    code += "ucdir.commands.serve; sys.exit(3 if before else 'torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], check=False).returncode
    if ended == 3:
        pytest.skip("in this tree the galleries themselves import torch")
    assert ended == 0
