"""The API's page and its text for language models: what they say, and that the page runs under its policy."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.serving import make_server

from api.framework import Router
from tests.api.conftest import Json

FILES = ("swagger-ui-bundle.js", "swagger-ui.css", "page.css", "start.js")


@pytest.fixture
def document(client: FlaskClient) -> Json:
    shown: Json = client.get("/openapi.json").get_json()
    return shown


class TestPage:
    def test_its_policy_permits_no_inline_script_and_nothing_of_another_origin(
        self, client: FlaskClient
    ) -> None:
        answer = client.get("/docs")
        rules = answer.headers["Content-Security-Policy"].split("; ")
        policy = {rule.partition(" ")[0]: rule.partition(" ")[2] for rule in rules}
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=", answer.text)

    @pytest.mark.parametrize("name", FILES)
    def test_its_files_are_there_and_can_be_stored(self, client: FlaskClient, name: str) -> None:
        page = client.get("/docs").text
        answer = client.get(f"/docs/{name}")
        again = client.get(f"/docs/{name}", headers={"If-None-Match": answer.headers["ETag"]})

        assert f'"docs/{name}"' in page
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "public, max-age=3600"
        assert "sourceMappingURL" not in answer.text
        assert (again.status_code, again.data) == (304, b"")

    @pytest.mark.parametrize("name", ["LICENSE", "index.html", "..%2Fapp.py", "nothing.js"])
    def test_other_files_are_not_served(self, client: FlaskClient, name: str) -> None:
        assert client.get(f"/docs/{name}").status_code == 404


class TestInBrowser:
    @pytest.fixture
    def address(self, app: Router) -> Iterator[str]:
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()

    def test_the_page_shows_every_operation_without_a_violation(
        self, address: str, document: Json, tmp_path: Path
    ) -> None:
        shown, log = browse(f"{address}/docs", tmp_path)

        expected = {
            f"operations-{tag}-{operation['operationId']}"
            for methods in document["paths"].values()
            for operation in methods.values()
            for tag in operation["tags"]
        }
        assert 'data-ready="true"' in shown
        assert expected <= set(re.findall(r'id="([\w-]+)"', shown))
        assert "Content Security Policy" not in log
        assert "Uncaught" not in log

    def test_the_page_is_dark_where_the_browser_prefers_it(
        self, address: str, tmp_path: Path
    ) -> None:
        shown, _ = browse(f"{address}/docs", tmp_path, "--blink-settings=preferredColorScheme=0")

        assert '<html lang="en" class="dark-mode">' in shown


def browse(url: str, folder: Path, *options: str) -> tuple[str, str]:
    """Return the page at ``url`` after its scripts have run, and what the browser logged."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed.")
    completed = subprocess.run(
        [
            chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--enable-logging=stderr", "--v=0", f"--user-data-dir={folder / 'profile'}",
            f"--screenshot={folder / 'page.png'}", "--window-size=1280,1600",
            "--virtual-time-budget=20000", "--dump-dom", *options, url,
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return completed.stdout, completed.stderr


class TestForModels:
    def test_it_lists_every_operation_with_its_summary(
        self, client: FlaskClient, document: Json
    ) -> None:
        answer = client.get("/llms.txt")

        assert answer.content_type == "text/plain; charset=utf-8"
        assert answer.text.startswith("# Longlook\n\n> ")
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                line = f"- `{method.upper()} {path}`: {operation['summary']}\n"
                assert line in answer.text

    def test_its_links_keep_the_prefix_of_a_proxy(self, client: FlaskClient) -> None:
        text = client.get("/llms.txt", environ_overrides={"SCRIPT_NAME": "/ai"}).text
        assert "(/ai/openapi.json)" in text
        assert "(/ai/docs)" in text
