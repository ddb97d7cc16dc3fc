"""Who may ask the explorer's server, and what a read-only page does."""

import http.client
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest

from pipeline import annotations
from pipeline.artifacts.annotation import Annotation
from pipeline.core import extras
from pipeline.core.errors import ConfigError
from pipeline.core.store import Store
from pipeline.explore.security import MAX_BODY
from pipeline.explore.server import Explorer
from pipeline.explore.service import Service

JSON = {"content-type": "application/json"}


def ask(explorer, path, method="GET", body=None, **headers):
    """(status, headers, body) of a request below the page's own address."""
    connection = http.client.HTTPConnection("127.0.0.1", explorer.port, timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def own(explorer):
    return f"http://127.0.0.1:{explorer.port}"


def edit(explorer, **headers):
    body = json.dumps({"after": 0, "annotation": Annotation().plain})
    return ask(explorer, f"/{explorer.token}/api/annotation", "POST", body, **headers)[0]


def test_a_page_is_found_below_its_token_alone(explorer):
    assert ask(explorer, f"/{explorer.token}/")[0] == 200
    for path in ("/", "/api/run", f"/{explorer.token}x/api/run", f"/x/{explorer.token}/", "//", f"/{'a' * 32}/"):
        assert ask(explorer, path)[0] == 403, path


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:80", "127.0.0.1@evil.example", "10.0.0.1", ""]
)
def test_another_host_is_refused(explorer, host):
    assert ask(explorer, f"/{explorer.token}/api/run", Host=host)[0] in (400, 403)


def test_another_origin_is_refused(explorer):
    path = f"/{explorer.token}/api/run"
    assert ask(explorer, path, Origin=own(explorer))[0] == 200
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{explorer.port + 1}"):
        assert ask(explorer, path, Origin=origin)[0] == 403


def test_only_the_page_itself_changes_something(explorer):
    assert edit(explorer, **JSON) == 403
    assert edit(explorer, Origin="https://evil.example", **JSON) == 403
    assert edit(explorer, Origin=own(explorer), content_type="text/plain") == 415
    assert edit(explorer, Origin=own(explorer), **JSON) == 200


def test_no_other_site_may_read_answers(explorer):
    _, headers, _ = ask(explorer, f"/{explorer.token}/", Origin=own(explorer))
    assert not [name for name in headers if name.lower().startswith("access-control")]
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "static/../server.py",
        "static/%2e%2e/server.py",
        "static/..%2fserver.py",
        "static/page.css%00.js",
        "api/picture/../../etc",
    ],
)
def test_paths_lead_nowhere_else(explorer, path):
    status, _, body = ask(explorer, f"/{explorer.token}/{path}")
    assert status == 404
    assert b"import" not in body


@pytest.mark.parametrize("row", ["10", "99999999999999999999", "-1", "1.5", "..%2f..%2fetc%2fpasswd"])
def test_an_image_is_a_row_of_the_runs_table(explorer, row):
    for what in ("picture", "patch", "tokens", "map"):
        assert ask(explorer, f"/{explorer.token}/api/{what}/{row}")[0] in (400, 404)


@pytest.mark.parametrize(
    "query", ["side=1e9", "side=99999999", "h=-1&w=5&y=0&x=0", "h=1e30&w=1e30&y=0&x=0", "h=nan&w=1&y=0&x=0"]
)
def test_a_picture_is_bounded(explorer, query):
    status, _, body = ask(explorer, f"/{explorer.token}/api/picture/0?{query}")
    assert status in (200, 400, 404)
    assert len(body) < 2**20


def test_a_request_is_bounded(explorer):
    headers = {"Origin": own(explorer), "content_length": str(MAX_BODY + 1), **JSON}
    assert ask(explorer, f"/{explorer.token}/api/annotation", "POST", b"", **headers)[0] == 413


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("annotation", {"after": 0}),
        ("annotation", {"after": 0, "annotation": {"classes": [], "groups": {"99": "a"}, "points": []}}),
        ("annotation", {"after": 0, "annotation": {"classes": [{"name": "a\u0000"}], "groups": {}, "points": []}}),
        ("annotation", {"after": 99, "annotation": Annotation().plain}),
        ("find", {"row": 0, "y": 99, "x": 0}),
        ("find", {"row": 99, "y": 0, "x": 0}),
        ("groups", {"nodes": [23]}),
        ("groups", {"nodes": [0] * 5000}),
        ("group", {"nodes": []}),
        ("export", {"format": "../x", "cut": 4}),
        ("export", {"format": "png", "cut": 4, "out": "/tmp"}),
        ("classify", {"annotation": Annotation().plain, "rows": [0]}),
        ("view", "not JSON"),
    ],
)
def test_what_cannot_be_done_is_said(explorer, path, body):
    text = body if isinstance(body, str) else json.dumps(body)
    headers = {"Origin": own(explorer), **JSON}
    status, _, answer = ask(explorer, f"/{explorer.token}/api/{path}", "POST", text, **headers)
    assert status in (400, 404)
    assert json.loads(answer)["error"]


def test_a_read_only_page_changes_nothing(explored, said, chromium, open_page):
    served = Explorer(explored.store, explored.record, read_only=True).start()
    try:
        before = annotations.versions(explored.store, explored.record)
        assert edit(served, Origin=own(served), **JSON) == 400
        page = open_page(url=served.url)
        assert "Read-only" in page.locator(".top").inner_text()
        page.keyboard.press("n")
        assert page.locator("dialog").count() == 0
        page.keyboard.press("s")
        page.locator(".unit").nth(4).wait_for()
        page.close()
        assert annotations.versions(explored.store, explored.record) == before
    finally:
        served.close()


def test_a_taken_port_is_named(explored, explorer, call):
    status, _, err = call("explore", explored.id, "--store", explored.store.url, "--port", str(explorer.port))
    assert status == 2
    assert "--port 0" in err


@pytest.fixture
def notebook():
    """notebook(html): the address of a page of another server on this machine."""
    servers = []

    def serve(html: str) -> str:
        class Page(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(html.encode())

            def log_message(self, *args):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://localhost:{servers[-1].server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("framed", [True, False])
def test_only_a_notebooks_page_may_frame_it(framed, explored, chromium, notebook):
    served = Explorer(explored.store, explored.record, framed=framed).start()
    page = chromium.new_page()
    try:
        page.goto(notebook(served._repr_html_() if framed else f'<iframe src="{served.url}"></iframe>'))
        frame = page.wait_for_selector("iframe").content_frame()
        if framed:
            frame.wait_for_selector(".unit")
        else:
            page.wait_for_timeout(500)
            assert frame.query_selector("#page") is None
    finally:
        page.close()
        served.close()


def test_nothing_is_written_to_a_store_that_is_read_only(explored, tmp_path):
    store = Store(shutil.copytree(explored.store.folder, tmp_path / "store"))
    shutil.rmtree(store.folder / "artifacts/search", ignore_errors=True)
    before = sorted(entry.path for entry in store.entries(""))
    service = Service(store, explored.record, read_only=True)
    service.start()
    service.corpus.indexing.wait()
    assert service.progress()["index"] == {"done": 10, "total": 10, "error": None}
    assert len(service.find(7, 1, 1, 50)) == 10
    service.close()
    assert sorted(entry.path for entry in store.entries("")) == before
    assert service.exports.base == Path.cwd() / "exports"


def test_scores_are_shown_where_there_are_labels(finished):
    scores = Service(finished.store, finished.record, read_only=True).facts()["scores"]
    assert scores["miou"] == finished.scores.result.miou
    assert scores["baseline"] == finished.scores.baseline.miou


def test_a_missing_package_is_named_with_its_extra(explored, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"stegoflow\[explore\]"):
        Explorer(explored.store, explored.record)
