"""Hostile requests: none is a 500, none reads a file, none gets past the token, none overruns the queue."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from osmotic.cli.main import main
from osmotic.training.errors import RunError
from osmotic.web import guard
from osmotic.web.guard import BODY, OPEN, Guard, hostname
from osmotic.web.page import WAITING
from osmotic.web.serve import Server, application, refuse_open

TOKEN = "a-token-of-more-than-16"


@pytest.fixture(scope="module")
def secret(run):
    """The page with a token."""
    with Server(run, port=0, token=TOKEN) as server:
        yield server


def alone(act):
    """Run a coroutine function in a thread of its own: the browser's tests leave a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(act())).result()


def base(server) -> str:
    return f"http://127.0.0.1:{server.port}"


def raw(server, request: bytes) -> bytes:
    """What comes back for these bytes exactly; of a stream without end, its beginning."""
    reply = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as line:
        line.sendall(request)
        while part := line.recv(65536):
            reply += part
            if b"text/event-stream" in reply:
                break
    return reply


def call(server, target: str, data: list, session: str = "s", trigger: dict | None = None) -> dict:
    """The body of a request for one of the page's functions, by the name of its method."""
    config = httpx.get(base(server) + "/config").json()
    found = [d for d in config["dependencies"] if d["api_name"] == target]
    assert len(found) == 1, [d["api_name"] for d in config["dependencies"]]
    return {"fn_index": found[0]["id"], "data": data, "session_hash": session, "event_data": trigger}


def ask(server, body: dict) -> tuple[int, list[dict]]:
    """Join the queue and listen until it is answered."""
    with httpx.Client(base_url=base(server), timeout=60) as client:
        joined = client.post("/gradio_api/queue/join", json=body)
        if joined.status_code != 200:
            return joined.status_code, []
        events = []
        with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": body["session_hash"]}) as stream:
            for line in stream.iter_lines():
                if line.startswith("data:"):
                    events.append(json.loads(line[5:]))
                    if events[-1]["msg"] in ("process_completed", "close_stream", "unexpected_error"):
                        break
        return 200, events


SETTINGS = [-1, "", 3, 4, "ddim", 5, 1.0]

PATHS = [
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=../../etc/passwd",
    "/gradio_api/file=%2Fetc%2Fpasswd",
    "/gradio_api/file=http://127.0.0.1:1/",
    "/gradio_api/file=file:///etc/passwd",
    "/gradio_api/file/etc/passwd",
    "/gradio_api/proxy=http://127.0.0.1:1/",
    "/gradio_api/proxy=https://huggingface.co/",
    "/file=/etc/passwd",
    "/file/etc/passwd",
    "/static/../../../../../etc/passwd",
    "/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    "/static/..%2f..%2f..%2fetc/passwd",
    "/static/..%5c..%5cetc/passwd",
    "/static//etc/passwd",
    "/assets/../../../../etc/passwd",
    "/assets/%2e%2e%2f%2e%2e%2fgradio/routes.py",
    "/assets/....//....//etc/passwd",
    "/assets/%00",
    "/assets/" + "a" * 8000,
    "/svelte/../routes.py",
    "//etc/passwd",
    "/../../../../etc/passwd",
    "/gradio_api/custom_component/1/client/component/..%2f..%2fetc",
    "/gradio_api/stream/a/b/1/playlist.m3u8",
    "/gradio_api/upload_progress?upload_id=1",
    "/gradio_api/deep_link?session_hash=x",
    "/?deep_link=../../../../etc/passwd",
    "/gradio_api/openapi.json",
    "/gradio_api/info",
    "/gradio_api/runs",
    "/gradio_api/run-history/buckets",
    "/gradio_api/vibe-code",
    "/gradio_api/token",
    "/gradio_api/app_id",
    "/gradio_api/dev/reload",
    "/gradio_api/mcp/sse",
    "/monitoring",
    "/monitoring/summary",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/login",
    "/logout",
    "/robots.txt",
    "/pwa_icon",
    "/gradio_api/heartbeat/..%2f..",
    "/gradio_api/heartbeat/" + "a" * 100,
    "/gradio_api/queue/data?session_hash=nobody",
    "/gradio_api/queue/data",
    "/%",
    "/%ff%fe",
    "*",
]


@pytest.mark.parametrize("path", PATHS)
def test_no_path_is_a_500_or_a_file(served, path):
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    reply = raw(served, request)
    status = int(reply.split(b" ", 2)[1])
    assert status < 500
    assert b"root:" not in reply
    assert b"def create_app" not in reply
    if not path.startswith(("/?", "/gradio_api/queue/data")):
        assert status in (400, 404)


POSTS = [
    ("/gradio_api/upload", b"--x\r\n", "multipart/form-data; boundary=x"),
    ("/gradio_api/upload", b"{}", "application/json"),
    ("/gradio_api/queue/join", b"a=1", "application/x-www-form-urlencoded"),
    ("/gradio_api/queue/join", b"--x\r\n", "multipart/form-data; boundary=x"),
    ("/gradio_api/queue/join", b"", "application/json"),
    ("/gradio_api/queue/join", b"{", "application/json"),
    ("/gradio_api/queue/join", b"[]", "application/json"),
    ("/gradio_api/queue/join", b"null", "application/json"),
    ("/gradio_api/queue/join", b"\xff\xfe\x00", "application/json"),
    ("/gradio_api/queue/join", b"[" * 100_000, "application/json"),
    ("/gradio_api/queue/join", b'{"data": [], "fn_index": 0}', "application/json"),
    ("/gradio_api/queue/join", b'{"data": [], "session_hash": "s"}', "application/json"),
    ("/gradio_api/queue/join", b'{"data": 5, "fn_index": "x", "session_hash": []}', "application/json"),
    ("/gradio_api/cancel", b"{}", "application/json"),
    ("/gradio_api/cancel", b'{"session_hash": "x", "fn_index": 0, "event_id": "y"}', "application/json"),
    ("/gradio_api/run/predict", b'{"data": []}', "application/json"),
    ("/gradio_api/call/draw", b'{"data": []}', "application/json"),
    ("/gradio_api/component_server", b"{}", "application/json"),
    ("/gradio_api/process_recording", b"{}", "application/json"),
    ("/gradio_api/vibe-edit", b"{}", "application/json"),
    ("/gradio_api/reset", b"{}", "application/json"),
    ("/login", b"username=a&password=b", "application/x-www-form-urlencoded"),
    ("/", b"{}", "application/json"),
]


@pytest.mark.parametrize(("path", "body", "kind"), POSTS)
def test_no_post_is_a_500(served, path, body, kind):
    reply = httpx.post(base(served) + path, content=body, headers={"content-type": kind})
    assert reply.status_code in (400, 404, 413, 415, 422)
    assert "Traceback" not in reply.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "WHATEVER"])
def test_other_methods_are_refused(served, method):
    reply = raw(served, f"{method} / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert int(reply.split(b" ", 2)[1]) in (400, 405)


BAD = [
    [],
    [None] * 7,
    [-1, "", 3, 65, "ddim", 5, 1.0],
    [-1, "", 3, 1e9, "ddim", 5, 1.0],
    [-1, "", 3, 4, "ddim", 251, 1.0],
    [-1, "", -3, 4, "ddim", 5, 1.0],
    [-1, "", 2**70, 4, "ddim", 5, 1.0],
    [-1, "", 3, 4, "no-such", 5, 1.0],
    [-1, "", 3, 4, {"path": "/etc/passwd"}, 5, 1.0],
    [99, "", 3, 4, "ddim", 5, 1.0],
    ["zero", "", 3, 4, "ddim", 5, 1.0],
    [-1, "", "3", "4", "ddim", "5", "x"],
    [-1, "", 3, 4, "ddim", 5, 1e300],
    [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, "", 3, 4, "ddim", 5, 1.0],
    [-1, "a text, and there are none", 3, 4, "ddim", 5, 1.0],
    [-1, {"path": "/etc/passwd"}, 3, 4, "ddim", 5, 1.0],
]


@pytest.mark.parametrize("data", BAD)
def test_settings_outside_the_caps_are_answered_with_a_refusal(served, data):
    status, events = ask(served, call(served, "draw", data))
    assert status in (200, 400, 422)
    if status == 200:
        assert events[-1]["msg"] == "process_completed"
        assert events[-1]["success"] is False
        assert "root:" not in json.dumps(events)


def test_a_draw_that_is_allowed_gives_pictures_and_the_commands(served):
    status, events = ask(served, call(served, "draw", SETTINGS))
    assert status == 200
    assert events[-1]["success"] is True
    shown, _, command, python, *_ = events[-1]["output"]["data"]
    shown = shown if isinstance(shown, str) else json.dumps(shown)
    assert shown.count("data:image/png;base64,") == 4
    assert "&lt;b&gt;two" in shown
    assert "<b>two" not in shown
    assert "--seed 3 --sampler ddim --steps 5" in json.dumps(command)
    assert "model.sample(" in json.dumps(python)


@pytest.mark.parametrize("index", [None, -1, 10**9, "0", {"path": "/etc/passwd"}, [0]])
def test_samples_that_are_not_there_cannot_be_chosen(served, index):
    session = f"choose-{index}"[:20].replace("{", "").replace("'", "").replace("[", "")
    assert ask(served, call(served, "draw", SETTINGS, session))[1][-1]["success"] is True
    _, events = ask(served, call(served, "chosen", [None], session, {"index": index}))
    assert events[-1]["success"] is False
    # gradio itself refuses what looks like a file.
    assert ("There is no sample" in events[-1]["output"]["error"]) != isinstance(index, dict)
    _, events = ask(served, call(served, "repaint", [None, 0], session, {"painted": index}))
    assert events[-1]["success"] is False


def test_a_sample_can_be_chosen_and_repainted_by_its_tab_alone(served):
    assert ask(served, call(served, "draw", SETTINGS, "mine"))[1][-1]["success"] is True
    _, events = ask(served, call(served, "chosen", [None], "mine", {"index": 2}))
    assert events[-1]["success"] is True
    assert "Sample 2 is" in json.dumps(events[-1]["output"])
    _, events = ask(served, call(served, "repaint", [None, 2], "mine", {"painted": "1" * 20 + "0" * 44}))
    assert json.dumps(events[-1]["output"]).count("data:image/png") == 4
    _, events = ask(served, call(served, "chosen", [None], "other", {"index": 2}))
    assert "Nothing is drawn yet" in events[-1]["output"]["error"]


HOSTS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost@evil.example", "10.0.0.1", "", "[::1"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_foreign_host_is_403(served, host):
    reply = raw(served, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert int(reply.split(b" ", 2)[1]) == 403


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_ones_own_host_is_served(served, host):
    reply = raw(served, f"GET / HTTP/1.1\r\nHost: {host}:{served.port}\r\nConnection: close\r\n\r\n".encode())
    assert int(reply.split(b" ", 2)[1]) == 200


def test_two_hosts_are_not_served(served):
    reply = raw(served, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    assert int(reply.split(b" ", 2)[1]) in (400, 403)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1.x", ""])
def test_a_foreign_origin_is_403(served, origin):
    reply = httpx.post(base(served) + "/gradio_api/queue/join", json={}, headers={"origin": origin})
    assert reply.status_code == 403
    assert "access-control-allow-origin" not in reply.headers
    cross = httpx.get(base(served) + "/config", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"})
    assert cross.status_code == 403


def test_the_page_keeps_to_itself(served):
    reply = httpx.get(base(served) + "/", headers={"x-forwarded-host": "evil.example", "origin": base(served)})
    assert reply.status_code == 200
    found = {urlsplit(word).hostname for word in reply.text.replace('"', " ").split() if word.startswith("http")}
    assert found <= {"127.0.0.1"}
    assert "connect-src 'self'" in reply.headers["content-security-policy"]
    assert reply.headers["x-frame-options"] == "DENY"
    assert not [name for name in reply.headers if name.startswith("access-control") or name == "server"]
    config = httpx.get(base(served) + "/config").json()
    assert {d["api_visibility"] for d in config["dependencies"]} == {"private"}
    assert config["analytics_enabled"] is False
    assert not config["footer_links"]
    assert json.dumps(config).count("googleapis") == 0


def test_without_the_token_nothing_is_served(secret):
    for path in ("/", "/config", "/theme.css", "/gradio_api/queue/data?session_hash=s", "/assets/index.js"):
        for shown in ({}, {"authorization": "Bearer wrong"}, {"cookie": "osmotic=wrong"}, {"cookie": "osmotic="}):
            assert httpx.get(base(secret) + path, headers=shown).status_code == 401
    assert httpx.post(base(secret) + "/gradio_api/queue/join", json={}).status_code == 401
    assert httpx.get(base(secret) + "/?token=wrong-but-long-enough").status_code == 401
    assert httpx.get(base(secret) + f"/config?token={TOKEN}").status_code == 401


def test_the_token_opens_the_page_and_does_not_stay_in_the_address(secret):
    with httpx.Client(base_url=base(secret)) as client:
        entered = client.get(f"/?token={TOKEN}")
        assert (entered.status_code, entered.headers["location"]) == (303, "/")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert TOKEN not in cookie
        assert client.get("/").status_code == 200
        assert client.get("/config").status_code == 200
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.get(base(secret) + "/config", headers=bearer).status_code == 200
    foreign = httpx.get(base(secret) + f"/?token={TOKEN}", headers={"host": "evil.example"})
    assert foreign.status_code == 403


def test_large_slow_and_lying_bodies_are_refused(served, monkeypatch):
    monkeypatch.setattr(guard, "PATIENCE", 0.3)
    join = base(served) + "/gradio_api/queue/join"
    head = {"content-type": "application/json"}
    assert httpx.post(join, content=b" " * (BODY + 1), headers=head).status_code == 413

    def chunks():
        for _ in range(BODY // 65536 + 2):
            yield b" " * 65536

    assert httpx.post(join, content=chunks(), headers=head).status_code == 413
    request = (
        "POST /gradio_api/queue/join HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        "Connection: close\r\nContent-Length: "
    )
    for length in ("-1", "1e3", "99999999999999999999999", "0x10"):
        assert int(raw(served, f"{request}{length}\r\n\r\n".encode()).split(b" ", 2)[1]) in (400, 413)
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
        line.sendall(f"{request}100\r\n\r\n".encode() + b"{")
        assert line.recv(4096).split(b" ", 2)[1] == b"413"


def test_two_hundred_at_once_leave_a_bounded_queue_and_a_server_that_answers(served):
    body = call(served, "draw", [-1, 3, 1, "ddim", 30, 1.0])

    async def storm() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=base(served), limits=limits, timeout=60) as client:
            one = [client.post("/gradio_api/queue/join", json=body | {"session_hash": f"p{i}"}) for i in range(200)]
            return await asyncio.gather(*one)

    replies = alone(storm)
    assert {r.status_code for r in replies} == {200, 503}
    # Besides those that wait there are the running one and those that were taken up meanwhile.
    assert sum(r.status_code == 200 for r in replies) <= 4 * WAITING
    refused = [r for r in replies if r.status_code == 503]
    assert {r.json()["detail"] for r in refused} == {"The server is busy with other requests; try again in a minute."}
    assert httpx.get(base(served) + "/").status_code == 200
    for _ in range(300):
        if ask(served, call(served, "draw", SETTINGS, "after"))[0] == 200:
            break
        time.sleep(0.1)
    else:
        pytest.fail("the queue never drained")


def test_connections_that_stay_open_are_bounded_and_given_back():
    gate = asyncio.Event()
    sent = []

    async def app(scope, receive, send):
        await gate.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def many():
        wall = Guard(app, "127.0.0.1", None, lambda: WAITING)
        scope = {"type": "http", "method": "GET", "path": "/config", "headers": [(b"host", b"localhost")]}
        tasks = [asyncio.create_task(wall(scope, receive, send)) for _ in range(OPEN + 10)]
        await asyncio.sleep(0.05)
        assert sent == [503] * 10
        gate.set()
        await asyncio.gather(*tasks)
        assert sent == [503] * 10 + [200] * OPEN
        assert wall.open == 0

    alone(many)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("localhost:80", "localhost"),
        ("[::1]:80", "::1"),
        ("A.b", "a.b"),
        ("a@b", ""),
        ("a/b", ""),
        ("[", ""),
        ("a\tb", ""),
        ("", ""),
    ],
)
def test_names_are_read_from_hosts(header, name):
    assert hostname(header) == name


def test_a_wildcard_address_takes_addresses_and_this_machines_name_only():
    wall = Guard(None, "0.0.0.0", TOKEN, lambda: WAITING)
    for host in ("192.168.1.5:7860", "[fe80::1]:7860", socket.gethostname(), "localhost"):
        assert wall._ours(host)
    assert not wall._ours("evil.example")
    assert not Guard(None, "127.0.0.1", TOKEN, lambda: WAITING)._ours("192.168.1.5")


def test_open_addresses_need_a_token():
    refuse_open("127.0.0.1", None)
    refuse_open("0.0.0.0", TOKEN)
    with pytest.raises(ValueError, match=r"--host 0\.0\.0\.0 lets other machines in, so it needs --token"):
        refuse_open("0.0.0.0", None)
    with pytest.raises(ValueError, match="--token needs at least 16 characters, and has 5"):
        refuse_open("0.0.0.0", "short")
    with pytest.raises(ValueError, match="without spaces"):
        refuse_open("0.0.0.0", "a token with spaces in it")


def test_the_command_line_refuses_in_one_sentence(run, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, text in [
            ([str(tmp_path)], "is not a run"),
            ([str(run), "--host", "0.0.0.0"], "needs --token"),
            ([str(run), "--host", "0.0.0.0", "--token", "short"], "at least 16 characters"),
            ([str(run), "--port", port], f"127.0.0.1:{port} cannot be listened on"),
            ([str(run), "--port", "99999"], "cannot be listened on"),
            ([str(run), "--port", "x"], "--port"),
        ]:
            assert main(["serve", *words]) == 2
            error = capsys.readouterr().err
            assert text in error
            assert error.count("\n") == 1


def test_help_and_refusals_need_neither_torch_nor_gradio(tmp_path):
    code = (
        "import sys, contextlib\nfrom osmotic.cli.main import main\n"
        "with contextlib.suppress(SystemExit): main(['serve', '--help'])\n"
        f"print(main(['serve', {str(tmp_path)!r}]))\n"
        "print({'torch', 'gradio'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-2:] == ["2", "set()"], done.stderr


def test_a_missing_gradio_is_a_sentence_with_the_command_that_mends_it(served, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(RunError, match=r"The page needs gradio.*run `pip install 'osmotic\[serve\]'`\."):
        application(served.session, None, "127.0.0.1", 0, None, str(tmp_path))


def test_control_c_stops_it_and_nothing_is_left(run, tmp_path):
    place = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "osmotic", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=place)
    try:
        line = process.stdout.readline()
        assert line.startswith("open http://127.0.0.1:")
        url = line.split()[1]
        for _ in range(100):
            try:
                assert httpx.get(url).status_code == 200
                break
            except httpx.ConnectError:
                time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out, error) == (0, "stopped\n", "")
    assert not list(tmp_path.glob("osmotic-serve-*"))
