"""promtool reads what a running server says in /metrics, and the rules in docs/monitoring, and finds nothing wrong with either.

    python tests/prometheus.py PATH/TO/reckon PATH/TO/promtool

Starts a server with a data folder of its own, has everything of it counted, and removes it.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

RULES = pathlib.Path(__file__).resolve().parent.parent / "docs" / "monitoring" / "alerts.yml"
PATIENCE = 60


def start(binary, folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECKON_")}
    environment |= {"RECKON_SERVING_POSTGRES": "127.0.0.1:0", "RECKON_SERVING_FLIGHT_SQL": "127.0.0.1:0",
                    "RECKON_CANARY_EVERY": "1s", "RECKON_CANARY_EVENTS": "200"}
    server = subprocess.Popen([binary, "up", "--listen", "127.0.0.1:0", "--data-dir", folder], env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in server.stdout:
        if found := re.search(r"http://\S+", line):
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return server, found.group(0)
    sys.exit("the server ended before it listened")


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=PATIENCE).read()
    except urllib.error.HTTPError:
        # Refusals are counted too.
        pass


def metrics(url):
    """What it says once every metric has a value: the last to come is how long the canary waited."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE) as answer:
            text = answer.read()
        if b"\nreckon_canary_delay_seconds " in text:
            return text
        time.sleep(0.2)
    sys.exit(f"waited {PATIENCE} s for a round of the canary that was right")


def check(promtool, what, *arguments, text=None):
    run = subprocess.run([promtool, "check", *arguments], input=text, capture_output=True, check=False)
    said = (run.stdout + run.stderr).decode().strip()
    # Of metrics it says only what is wrong, some of it without failing.
    if run.returncode != 0 or (text and said):
        sys.exit(f"FAIL {what}: promtool ended with {run.returncode}: {said}")
    print(f"ok   {what}: {said or 'promtool finds nothing'}")


def main():
    binary, promtool = str(pathlib.Path(sys.argv[1]).resolve()), sys.argv[2]
    check(promtool, "the rules", "rules", str(RULES))
    with tempfile.TemporaryDirectory() as folder:
        server, url = start(binary, folder)
        try:
            post(f"{url}/v1/events", [{"event_type": "view", "entity_id": "a\"b\\c", "event_time": "2026-11-20T12:00:00Z"},
                                      {"entity_id": ""}])
            post(f"{url}/v1/sql", {"query": "select count(*) from stats"})
            post(f"{url}/v1/sql", {"query": "select nothing"})
            text = metrics(url)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=PATIENCE)
        families = sum(line.startswith(b"# TYPE ") for line in text.splitlines())
        check(promtool, f"{families} metrics of a server", "metrics", text=text)


if __name__ == "__main__":
    main()
