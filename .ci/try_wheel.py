"""Runs the first example of the README with the aiosess that is installed here, and asks it.

python .ci/try_wheel.py README.md
"""

from __future__ import annotations

import http.cookiejar
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

PATIENCE = 30.0

# The application is served here, wherever the example would serve it.
SERVE = """
import pathlib, sys
from aiohttp import web

serve, web.run_app = web.run_app, lambda *_, **__: None
example = {}
exec(pathlib.Path(sys.argv[1]).read_text(), example)
serve(example["app"], host="127.0.0.1", port=int(sys.argv[2]), print=None)
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit("the example does not serve") from None
            time.sleep(0.05)
        else:
            return


def main() -> None:
    readme = Path(sys.argv[1]).read_text()
    block = re.search(r"^```python\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    path = block and re.search(r"""add_get\(["'](/[^"']*)["']""", block[1])
    if not block or not path:
        raise SystemExit(f"{sys.argv[1]} does not begin with an example that has a page")
    # In an empty folder, so that aiosess is the one that is installed.
    with tempfile.TemporaryDirectory() as folder:
        example = Path(folder) / "example.py"
        example.write_text(block[1])
        port = free_port()
        command = [sys.executable, "-I", "-c", SERVE, str(example), str(port)]
        server = subprocess.Popen(command, cwd=folder)
        try:
            wait_for(port, server)
            jar = http.cookiejar.CookieJar()
            browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
            answers = [
                browser.open(f"http://127.0.0.1:{port}{path[1]}", timeout=PATIENCE).read()
                for _ in range(2)
            ]
        finally:
            server.terminate()
            server.wait(PATIENCE)
    if answers != [b"1", b"2"]:
        raise SystemExit(f"the example counted {answers}")
    print(f"Python {sys.version.split()[0]}: the first example of {sys.argv[1]} counts")


if __name__ == "__main__":
    main()
