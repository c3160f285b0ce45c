from __future__ import annotations

import builtins
import hashlib
import io
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from live import running
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from distildire import Detector
from distildire.bundle import BundleError
from distildire.web.app import create_app
from distildire.web.settings import KEY_VARIABLE, Settings, key_from_environment
from distildire.web.uploads import Upload
from distildire.web.videos import holds_video, judge_upload
from standin import make_bundle

Client = Callable[..., TestClient]


def assert_problem(response: Any, status: int, words: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert words in body["detail"]
    assert body["type"]
    assert body["title"]
    return body


def test_one_file_gets_what_the_detector_says(
    client: TestClient, detector: Detector, fake_png: bytes
) -> None:
    response = client.post("/v1/detect", files={"file": ("a.png", fake_png)})
    assert response.status_code == 200
    (result,) = response.json()["results"]
    expected = detector.predict([fake_png])[0].to_dict() | {"path": "a.png"}
    assert result == expected
    assert result["sha256"] == hashlib.sha256(fake_png).hexdigest()


def test_rows_of_a_kind_say_so(bundle: Path, fake_png: bytes) -> None:
    for kind, taken in (("phone", "phone"), ("art", None)):
        of_kind = Detector(bundle, kind=kind, threads=1)
        with TestClient(create_app(of_kind)) as client:
            (result,) = client.post("/v1/detect", content=fake_png).json()["results"]
        assert list(result)[-1] == "kind"
        assert result["kind"] == taken


def test_a_video_that_cannot_be_read_here_has_its_budget(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distildire.web.videos.can_read_videos", lambda: False)
    row = judge_upload(detector, Upload("a.mp4", b"...."), 0.2)
    assert "distildire[video]" in row["error"]
    assert row["fpr"] == 0.2


def test_many_files_keep_their_order(client: TestClient, fake_png: bytes, real_png: bytes) -> None:
    files = [("file", (f"{i}.png", (fake_png, real_png)[i % 2])) for i in range(10)]
    results = client.post("/v1/detect", files=files).json()["results"]
    assert [r["path"] for r in results] == [f"{i}.png" for i in range(10)]
    assert [r["verdict"] for r in results] == ["fake", "real"] * 5


def test_raw_body(client: TestClient, real_png: bytes) -> None:
    response = client.post("/v1/detect", content=real_png, headers={"Content-Type": "image/png"})
    assert response.json()["results"][0]["verdict"] == "real"


def test_no_picture_is_a_problem(client: TestClient) -> None:
    body = assert_problem(
        client.post("/v1/detect", files={"file": ("a.txt", b"hello")}), 422, "not a picture"
    )
    assert body["results"][0]["path"] == "a.txt"
    assert_problem(client.post("/v1/detect", content=b""), 422, "empty")
    assert_problem(client.post("/v1/detect", content=b"hello"), 422, "not a picture")
    assert_problem(client.post("/v1/detect", files={"other": ("a", b"x")}), 422, "`file`")


def test_bad_files_among_good_ones_have_their_error(client: TestClient, real_png: bytes) -> None:
    files = [("file", ("bad.jpg", b"\xff\xd8\xff")), ("file", ("good.png", real_png))]
    response = client.post("/v1/detect", files=files)
    assert response.status_code == 200
    bad, good = response.json()["results"]
    assert bad["error"]
    assert bad["probability"] is None
    assert good["error"] is None


def test_malformed_multipart(client: TestClient) -> None:
    kinds = {
        "multipart/form-data": b"x",
        "multipart/form-data; boundary=abc": b"--abc\r\nbroken",
    }
    for kind, body in kinds.items():
        response = client.post("/v1/detect", content=body, headers={"Content-Type": kind})
        assert response.status_code in {400, 422}
        assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("fpr", ["0", "-1", "0.6", "abc", "nan", "inf"])
def test_error_budget_out_of_range(client: TestClient, real_png: bytes, fpr: str) -> None:
    response = client.post(f"/v1/detect?fpr={fpr}", content=real_png)
    assert_problem(response, 422, "fpr")


def test_error_budget_moves_the_verdict(client: TestClient, detector: Detector) -> None:
    tree = client.get("/v1/models").json()["models"][0]
    bounds = {row["fpr"]: row for row in tree["thresholds"]}
    low, high = detector.bundle.calibration.thresholds(0.05)  # type: ignore[union-attr]
    assert bounds[0.05]["real_below_logit"] == low
    assert bounds[0.05]["fake_above_logit"] == high
    assert bounds[0.001]["fake_above"] > bounds[0.1]["fake_above"]
    assert bounds[0.05]["remark"] is None
    assert "less than one of the 500 real" in bounds[0.001]["remark"]


def test_limits(client_with: Client, real_png: bytes) -> None:
    small = client_with(max_body=1000, max_files=2)
    assert_problem(small.post("/v1/detect", content=real_png), 413, "limit")
    chunks = (b"x" * 400 for _ in range(10))
    assert_problem(small.post("/v1/detect", content=chunks), 413, "limit")
    many = [("file", ("a", b"x"))] * 3
    assert_problem(small.post("/v1/detect", files=many), 413, "over 2 files")
    narrow = client_with(max_pixels=32 * 32)
    assert_problem(narrow.post("/v1/detect", content=real_png), 422, "too many pixels")


def test_who_sends_too_much_is_told(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    body, chunked = bytes(32 * 2**20), {"Transfer-Encoding": "chunked"}
    with running(detector, Settings(max_body=2**20)) as url:
        for headers in ({}, {}, chunked):
            connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
            sent = (body[i : i + 2**16] for i in range(0, len(body), 2**16))
            connection.request(
                "POST", "/v1/detect", sent if headers else body, headers, encode_chunked=True
            )
            answer = connection.getresponse()
            assert (answer.status, b"over the limit" in answer.read()) == (413, True)
            assert answer.headers["connection"] == "close"
            connection.close()
        # Not for ever: neither by the clock nor by the byte.
        for name, value in (("SECONDS", 0.05), ("BYTES", 2**20)):
            with (
                monkeypatch.context() as patched,
                socket.create_connection(
                    tuple(url.removeprefix("http://").split(":")), timeout=60
                ) as idle,
            ):
                patched.setattr(f"distildire.web.problems.LINGER_{name}", value)
                idle.sendall(
                    b"POST /v1/detect HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n"
                )
                if name == "BYTES":
                    idle.sendall(bytes(2**20))
                answer_then_end = b"".join(iter(lambda: idle.recv(2**16), b""))
                assert b" 413 " in answer_then_end


Holding = Callable[..., AbstractContextManager[None]]


@pytest.fixture
def holding(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Holding:
    """Keep a request at work for the length of a `with`; then it must be answered."""
    judge = detector.judge

    @contextmanager
    def hold(client: TestClient, pending: int, **request: Any) -> Iterator[None]:
        go_on = threading.Event()

        def wait(*args: Any, **kwargs: Any) -> Any:
            assert go_on.wait(600)
            return judge(*args, **kwargs)

        monkeypatch.setattr(detector, "judge", wait)
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(client.post, "/v1/detect", **request)
            try:
                while client.get("/healthz").json()["pending"] < pending:
                    assert not held.done()
                    time.sleep(0.01)
                yield
            finally:
                go_on.set()
                monkeypatch.setattr(detector, "judge", judge)
            assert held.result(600).status_code == 200

    return hold


def test_full_queue_says_when_to_return(
    client_with: Client, real_png: bytes, holding: Holding
) -> None:
    client = client_with(max_files=2, queue_size=2)
    with holding(client, 2, files=[("file", ("a.png", real_png))] * 2):
        response = client.post("/v1/detect", content=real_png)
    assert_problem(response, 429, "busy")
    assert int(response.headers["retry-after"]) >= 1
    assert client.post("/v1/detect", content=real_png).status_code == 200


def test_bodies_in_flight_are_bounded(
    client_with: Client, real_png: bytes, holding: Holding
) -> None:
    client = client_with(max_body=2**20, max_in_flight=2**20 + len(real_png) - 1)
    zeros = {"Content-Length": "0" * 30 + str(len(real_png))}
    # A body of unannounced length counts as the largest, whatever stands beside it.
    for headers in ({}, {"Transfer-Encoding": "chunked", "Content-Length": "1"}):
        with holding(client, 1, content=iter([real_png]), headers=headers):
            assert_problem(client.post("/v1/detect", content=real_png), 429, "busy")
            answer = client.post("/v1/detect", content=real_png, headers=zeros)
            assert_problem(answer, 429, "busy")
            assert_problem(client.post("/v1/detect", content=b"junk"), 422, "not a picture")
    for _ in range(2):
        assert client.post("/v1/detect", content=iter([real_png])).status_code == 200


def test_places_are_given_back(client_with: Client, real_png: bytes, holding: Holding) -> None:
    client = client_with(max_requests=1)
    with holding(client, 1, content=real_png):
        assert_problem(client.post("/v1/detect", content=real_png), 429, "busy")
    for body, status in ((real_png, 200), (b"junk", 422), (real_png[:200], 422), (real_png, 200)):
        assert client.post("/v1/detect", content=body).status_code == status
    assert client.get("/healthz").json()["pending"] == 0


def test_key(client_with: Client, real_png: bytes) -> None:
    client = client_with(key="s3cret-ß")
    assert_problem(client.post("/v1/detect", content=real_png), 401, "needed")
    for path in ("/v1/models", "/metrics"):
        assert client.get(path).headers["www-authenticate"] == "Bearer"
    wrong = {"Authorization": "Bearer nope"}
    assert_problem(client.get("/v1/models", headers=wrong), 401, "wrong")
    right = {"Authorization": "Bearer s3cret-ß".encode()}
    assert client.get("/v1/models", headers=right).status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/").status_code == 200


def test_a_key_is_taken_in_either_code(detector: Detector) -> None:
    with running(detector, Settings(key="s3cret-ß")) as url:
        for code, status in (("utf-8", 200), ("latin-1", 200), ("cp437", 401)):
            headers = {"Authorization": "Bearer s3cret-ß".encode(code)}
            assert httpx.get(f"{url}/v1/models", headers=headers).status_code == status, code


def test_uploads_never_touch_the_disk(
    client: TestClient, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("something was written to disk")

    monkeypatch.setattr(tempfile, "_mkstemp_inner", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    opened = builtins.open

    def read_only(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        assert not set(mode) & set("wax+"), (file, mode)
        return opened(file, mode, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", read_only)
    padded = real_png + bytes(3 * 2**20)
    response = client.post("/v1/detect", files=[("file", ("a.png", padded))])
    assert response.status_code == 200, response.text


def test_metrics(client: TestClient, real_png: bytes) -> None:
    client.post("/v1/detect", content=real_png)
    client.get("/nothing-here")
    text = client.get("/metrics").text
    assert 'distildire_files_total{verdict="real"} 1' in text
    assert 'distildire_requests_total{path="/v1/detect",status="200"} 1' in text
    assert 'distildire_requests_total{path="other",status="404"} 1' in text
    assert "distildire_request_seconds_count 1" in text
    for line in text.splitlines():
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    assert_problem(client.get("/nothing"), 404, "Not Found")
    assert_problem(client.get("/v1/detect"), 405, "Not Allowed")


def test_pages_answer_head(client: TestClient) -> None:
    for path in ("/", "/healthz", "/metrics", "/v1/models", "/static/api.js"):
        assert client.head(path).status_code == 200, path
        assert client.head(path).headers["content-type"] == client.get(path).headers["content-type"]
    assert client.head("/v1/detect").status_code == 405
    assert client.head("/nothing").status_code == 404


def test_record_has_the_same_bytes_twice(client: TestClient, real_png: bytes) -> None:
    first, second = (
        client.post("/v1/record", files={"file": ("a.png", real_png)}) for _ in range(2)
    )
    assert first.content == second.content
    assert first.json()["result"]["verdict"] == "real"
    html = client.post("/v1/record?format=html", files={"file": ("a.png", real_png)})
    assert html.headers["content-type"].startswith("text/html")
    assert "attachment" in html.headers["content-disposition"]


def test_a_picture_longer_than_a_jpeg_can_be(client: TestClient, long_png: bytes) -> None:
    files = {"file": ("long.png", long_png)}
    assert client.post("/v1/detect", files=files).json()["results"][0]["verdict"] == "real"
    for path in ("/v1/explain", "/v1/record"):
        answer = client.post(path, files=files)
        assert answer.status_code == 200
        assert '"as it is"' in answer.text


def test_explain(client: TestClient, real_png: bytes) -> None:
    tree = client.post("/v1/explain", files={"file": ("a.png", real_png)}).json()
    assert tree["noise"].startswith("data:image/png;base64,")
    assert tree["record"]["input"]["name"] == "a.png"
    assert_problem(client.post("/v1/explain", content=b"junk"), 422, "not a picture")
    two = [("file", ("a.png", real_png))] * 2
    assert_problem(client.post("/v1/explain", files=two), 422, "send one")


def test_slow_body_is_cut_off(detector: Detector) -> None:
    import asyncio

    app = create_app(detector, Settings(read_seconds=0.05))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(5)
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/detect", "raw_path": b"/v1/detect",
        "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
        "server": ("localhost", 80), "client": ("localhost", 1), "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 408


def test_a_late_answer_is_given_up(
    client_with: Client, detector: Detector, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, judge, go_on = client_with(answer_seconds=0.2), detector.judge, threading.Event()

    def late(*args: Any, **kwargs: Any) -> Any:
        assert go_on.wait(60)
        return judge(*args, **kwargs)

    monkeypatch.setattr(detector, "judge", late)
    try:
        answer = client.post("/v1/detect", content=real_png)
    finally:
        go_on.set()
    assert_problem(answer, 503, "within 0.2 seconds")


def test_errors_of_the_service_have_the_headers_of_all_answers(
    detector: Detector, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(detector, "judge", fail)
    with TestClient(create_app(detector), raise_server_exceptions=False) as client:
        answer, fine = client.post("/v1/detect", content=real_png), client.get("/healthz")
    assert_problem(answer, 500, "its log says more")
    for name in ("content-security-policy", "x-content-type-options", "referrer-policy"):
        assert answer.headers[name] == fine.headers[name]


def test_a_full_line_of_explanations_is_told(
    client_with: Client, detector: Detector, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, score = client_with(max_explanations=1), detector.score_crops
    begun, go_on = threading.Event(), threading.Event()

    def held(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return score(*args, **kwargs)

    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(detector, "score_crops", held)
        first = pool.submit(client.post, "/v1/explain", content=real_png)
        try:
            assert begun.wait(60)
            second = client.post("/v1/explain", content=real_png)
        finally:
            go_on.set()
        assert_problem(second, 429, "busy")
        assert int(second.headers["retry-after"]) >= 1
        assert first.result(60).status_code == 200


def test_a_refused_request_makes_no_work(
    client_with: Client, detector: Detector, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_with(max_explanations=1)
    begun, go_on = threading.Event(), threading.Event()

    def held(*_: Any, **__: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        raise ValueError("held long enough")

    video = b"\0\0\0\x18ftypmp42" + bytes(2000)
    files = [("file", ("a.png", real_png)), ("file", ("a.mp4", video))]
    with ThreadPoolExecutor(1) as pool, monkeypatch.context() as patched:
        for name in ("judge", "score_crops"):
            patched.setattr(detector, name, held)
        pool.submit(client.post, "/v1/explain", content=real_png)
        try:
            assert begun.wait(60)
            assert_problem(client.post("/v1/detect", files=files), 429, "busy")
            assert client.get("/healthz").json()["pending"] == 0
        finally:
            go_on.set()


def test_work_that_waits_ends_with_its_answer(
    client_with: Client, detector: Detector, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, load, go_on = client_with(answer_seconds=0.2), detector.load, threading.Event()
    loaded: list[object] = []

    def held(*args: Any, **kwargs: Any) -> Any:
        loaded.append(args)
        assert go_on.wait(60)
        return load(*args, **kwargs)

    monkeypatch.setattr(detector, "load", held)
    files = [("file", ("a.png", real_png))] * (detector.cores + 3)
    try:
        assert_problem(client.post("/v1/detect", files=files), 503, "within")
    finally:
        go_on.set()
    while client.get("/healthz").json()["pending"]:
        time.sleep(0.01)
    assert len(loaded) <= detector.cores


def test_explanations_of_callers_that_left_are_not_made(
    detector: Detector, real_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    score, go_on = detector.score_crops, threading.Event()

    def held(*args: Any, **kwargs: Any) -> Any:
        assert go_on.wait(60)
        return score(*args, **kwargs)

    def line(url: str, length: int) -> None:
        until = time.monotonic() + 60
        while f"distildire_slow_lane {length}.0\n" not in httpx.get(f"{url}/metrics").text:
            assert time.monotonic() < until
            time.sleep(0.01)

    monkeypatch.setattr(detector, "score_crops", held)
    with running(detector) as url, ThreadPoolExecutor(1) as pool:
        try:
            first = pool.submit(httpx.post, f"{url}/v1/explain", content=real_png, timeout=60)
            line(url, 1)
            host, port = url.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as leaving:
                head = f"POST /v1/explain HTTP/1.1\r\nHost: a\r\nContent-Length: {len(real_png)}"
                leaving.sendall(head.encode() + b"\r\n\r\n" + real_png)
                line(url, 2)
            line(url, 1)
        finally:
            go_on.set()
        assert first.result().status_code == 200


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="max_body"):
        Settings(max_body=0)
    with pytest.raises(ValueError, match="queue_size"):
        Settings(max_files=300)
    with pytest.raises(ValueError, match="DISTILDIRE_API_KEY"):
        Settings(key=" ")
    with pytest.raises(ValueError, match="several lines"):
        Settings(key="a\nb")
    with pytest.raises(ValueError, match="Latin-1"):
        Settings(key="s3cret-€")
    assert key_from_environment({KEY_VARIABLE: "secret\r\n"}) == "secret"


def test_no_address_is_fetched(client: TestClient, real_png: bytes) -> None:
    asked: list[str] = []

    class Noted(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(real_png)

        def log_request(self, *args: object) -> None:
            asked.append(self.command)

    with ThreadingHTTPServer(("127.0.0.1", 0), Noted) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a.png"
        for answer in (
            client.post("/v1/detect", content=url.encode()),
            client.post("/v1/detect", json={"url": url, "file": url}),
            client.post("/v1/detect", data={"file": url, "url": url}),
            client.post("/v1/detect", files={"file": ("a.png", url.encode())}),
            client.post("/v1/detect", files={"file": ("a.svg", f'<svg href="{url}"/>'.encode())}),
            client.post("/v1/detect", files={"file": ("a.m3u8", f"#EXTM3U\n{url}\n".encode())}),
        ):
            assert answer.status_code >= 400
        named = client.post("/v1/detect", params={"url": url}, files={"file": (url, real_png)})
        assert named.status_code == 200
        assert asked == []
        assert httpx.get(url).content == real_png  # it would have answered
        server.shutdown()


def test_page_is_small_and_needs_nothing_else(client: TestClient) -> None:
    static = Path(create_app.__globals__["STATIC"])
    files = [path for path in static.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 300_000
    for path in files:
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert "//cdn" not in text
        assert 'src="http' not in text
    page = client.get("/")
    policy = [one.split() for one in page.headers["content-security-policy"].split("; ")]
    assert ["default-src", "'none'"] in policy
    assert {place for _, *places in policy for place in places} == {
        "'none'", "'self'", "data:", "blob:",
    }  # fmt: skip


def test_a_text_field_is_no_file(client: TestClient) -> None:
    response = client.post("/v1/detect", files={"other": (None, "x"), "file": (None, "text")})
    assert_problem(response, 422, "no file")


def multipart(*parts: tuple[str, bytes], end: bytes = b"--XX--\r\n") -> dict[str, Any]:
    """A body of parts, each a Content-Disposition and its bytes, for `client.post`."""
    body = b"".join(
        b"--XX\r\nContent-Disposition: " + header.encode() + b"\r\n\r\n" + data + b"\r\n"
        for header, data in parts
    )
    kind = "multipart/form-data; boundary=XX"
    return {"content": body + end, "headers": {"Content-Type": kind}}


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ("filename*=UTF-8''a%20%C3%84.png", "a Ä.png"),
        ("filename=\"a.png\"; filename*=UTF-8'en'%E2%82%AC.png", "€.png"),
        ("FileName*=iso-8859-1''%E4.png", "ä.png"),
        ("filename=\"a; filename*=UTF-8''b.png\"", "a; filename*=UTF-8''b.png"),
        ("filename=\"a.png\"; filename*=zlib''%00", "a.png"),
        ("filename=\"a.png\"; filename*=idna''%FF%2E", "a.png"),
        ("filename=\"a.png\"; filename*=UTF-8''%FF", "a.png"),
        ('filename="a.png"; filename*=nonsense', "a.png"),
        ("filename*=no-such''a", ""),
    ],
)
def test_names_after_rfc_5987(
    client: TestClient, real_png: bytes, parameters: str, name: str
) -> None:
    body = multipart((f'form-data; name="file"; {parameters}', real_png))
    response = client.post("/v1/detect", **body)
    assert response.status_code == 200, response.text
    assert response.json()["results"][0]["path"] == name


def test_names_of_half_letters(client: TestClient, real_png: bytes) -> None:
    body = multipart(('form-data; name="file"; filename="+2AA-.png"', real_png))
    body["headers"]["Content-Type"] += "; charset=utf-7"
    for path in ("/v1/detect", "/v1/record", "/v1/explain"):
        response = client.post(path, **body)
        assert response.status_code == 200, response.text
        assert r'"\\ud800.png"' in response.text


def test_odd_parts_are_named(client: TestClient, real_png: bytes) -> None:
    for parameters, status, words in (
        ('name="file"', 422, "`file` has no filename"),
        ('name="files[]"; filename="a.png"', 422, "named `files[]`"),
        ('name="a\x7f\x00b"; filename="a.png"', 422, r"named `a\x7f\x00b`"),
        ('filename="a.png"', 400, '"name"'),
    ):
        body = multipart((f"form-data; {parameters}", real_png))
        assert_problem(client.post("/v1/detect", **body), status, words)


def test_a_body_cut_short(client: TestClient, real_png: bytes) -> None:
    part = ('form-data; name="file"; filename="a.png"', real_png)
    assert_problem(client.post("/v1/detect", **multipart(part, end=b"")), 400, "cut short")
    whole = multipart(part)
    whole["content"] = whole["content"][:900]
    assert_problem(client.post("/v1/detect", **whole), 400, "cut short")


@pytest.mark.parametrize("brand", ["heic", "heix", "heim", "heis", "hevc", "mif1"])
def test_heic_is_told_as_heic(client: TestClient, brand: str) -> None:
    data = b"\0\0\0\x18ftyp" + brand.encode() + b"\0\0\0\0mif1heic" + bytes(200)
    response = client.post("/v1/detect", content=data)
    body = assert_problem(response, 422, "")
    assert re.search("HEIC|HEIF", body["detail"]), body["detail"]
    assert "video" not in body["detail"]


def test_a_transport_stream_is_told_from_a_gif() -> None:
    packet = b"G@\0\x10" + bytes(184)
    assert holds_video(packet * 3)
    gif = bytearray(b"GIF89a" + bytes(600))
    gif[188] = gif[376] = ord("G")
    assert not holds_video(bytes(gif))
    jpeg = bytearray(b"\xff\xd8\xff\xe0" + bytes(600))
    jpeg[4] = jpeg[196] = jpeg[388] = ord("G")
    assert not holds_video(bytes(jpeg))
    assert not holds_video(packet * 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.flv", {"codec": "flv"}),
        ("a.wmv", {"codec": "wmv2"}),
        ("a.mpg", {"codec": "mpeg4", "fps": 25}),
        ("a.m2ts", {"container": {"mpegts_m2ts_mode": "1"}}),
        ("a.ts", {}),
        ("a.mov", {}),
    ],
)
def test_videos_are_told_by_their_content(
    detector: Detector, tmp_path: Path, flat: NDArray[np.uint8], name: str, options: dict[str, Any]
) -> None:
    pytest.importorskip("av")
    from clips import write_clip

    data = write_clip(tmp_path / name, [flat] * 6, **options).read_bytes()
    if name == "a.mov":  # as QuickTime wrote them at first
        data = data[:4] + b"free" + data[8:]
    assert holds_video(data)
    assert judge_upload(detector, Upload(name, data), 0.01)["error"] is None


def test_nothing_to_judge_and_what_a_file_declares(client: TestClient, real_png: bytes) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1")
    buffer = io.BytesIO()
    Image.new("RGB", (200, 200)).save(buffer, "PNG", pnginfo=about)
    result = client.post("/v1/detect", content=buffer.getvalue()).json()["results"][0]
    assert (result["verdict"], result["probability"]) == ("unsure", 0.5)
    assert result["note"].startswith("nothing to judge")
    assert "Stable Diffusion" in result["declares"]
    plain = client.post("/v1/detect", content=real_png).json()["results"][0]
    assert plain["note"] is plain["declares"] is None


def test_a_model_without_calibration_is_refused(tmp_path: Path) -> None:
    raw = Detector(make_bundle(tmp_path / "raw", calibrated=False))
    with pytest.raises(BundleError, match="calibrate"):
        create_app(raw)
