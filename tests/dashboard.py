"""The dashboard in a real browser, over a server that counts: what the page says is what the API says.

    python tests/dashboard.py PATH/TO/reckon FOLDER
    python tests/dashboard.py --url URL FOLDER

The first way starts a server with a data folder of its own, sends it events, restarts it, and removes it; the second looks at a
server that runs, where nothing is sent or stopped. Pictures go to FOLDER. Needs playwright and a Chromium, as tests/page.py does.
"""

import contextlib
import datetime
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from playwright.sync_api import sync_playwright

try:
    from axe_playwright_python.sync_playwright import Axe
except ImportError:
    Axe = None

WIDTHS = [1400, 360]
SCHEMES = ["light", "dark"]
SERIOUS = {"serious", "critical"}
PATIENCE = 30
ENTITIES = [f"video-{n}" for n in range(1, 13)]
VIEW = {"entity": "video-1", "type": "view"}
# Rounds of asking the API before and after the page while events come in.
ROUNDS = 8

CHECKED = []
FAILED = []


def check(what, holds, detail=""):
    CHECKED.append(what)
    if not holds:
        FAILED.append(what)
        print(f"FAIL {what} {detail}")


def same(what, found, expected):
    check(what, found == expected, f": found {found!r}, expected {expected!r}")


def wait_for(what, holds):
    """Waits until `holds` says something true; that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.1)
    sys.exit(f"waited {PATIENCE} s for: {what}")


# The server.


class Server:
    def __init__(self, binary, data):
        with contextlib.closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.listen = f"127.0.0.1:{free.getsockname()[1]}"
        self.binary, self.data, self.url = binary, data, f"http://{self.listen}"
        self.sent = 0
        self.start()

    def start(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECKON_")}
        # Events are counted to the last one.
        environment["RECKON_CANARY_EVERY"] = "0s"
        environment["RECKON_SERVING_POSTGRES"] = environment["RECKON_SERVING_FLIGHT_SQL"] = "127.0.0.1:0"
        command = [self.binary, "up", "--data-dir", self.data, "--listen", self.listen]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
        wait_for("the server", lambda: ready(self.url))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)

    def send(self, events):
        """Sends (entity, type, minutes ago), each of its own id."""
        lines = []
        for entity, event_type, ago in events:
            self.sent += 1
            at = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=ago)
            lines.append(json.dumps({"event_id": f"e{self.sent}", "event_type": event_type, "entity_id": entity,
                                     "event_time": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "country": "US"}))
        self.post("/v1/events", "\n".join(lines), "application/x-ndjson")

    def post(self, path, body="", kind="application/json"):
        request = urllib.request.Request(self.url + path, data=body.encode(), headers={"content-type": kind})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def job(self, kind):
        run = self.post(f"/v1/{kind}/runs", "{}")
        ended = lambda: get(self.url, f"/v1/{kind}/runs/{run['id']}")["state"] != "running"
        wait_for(f"the {kind} run", ended)


def get(url, path, **parameters):
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(f"{url}{path}{query}", timeout=PATIENCE) as answer:
        return json.load(answer)


def ready(url):
    try:
        return get(url, "/readyz")["ready"]
    except (urllib.error.URLError, ConnectionError):
        return False


def fill(server):
    """An hour with falling counts, some of it counted by batch and some by the stream, and events that are refused."""
    before = [(entity, "view", ago) for ago in range(2, 30) for rank, entity in enumerate(ENTITIES)
              for _ in range(24 - 2 * rank)]
    server.send(before + [("video-1", "like", 5)] * 7)
    for body in ["{", '{"event_id": "x", "event_type": "view"}']:
        with contextlib.suppress(urllib.error.HTTPError):
            server.post("/v1/events", body)
    wait_counted(server.url)
    server.job("batch")
    server.job("audit")
    server.send([(entity, "view", ago) for ago in range(0, 4) for entity in ENTITIES[:6] for _ in range(9)])
    wait_counted(server.url)


def wait_counted(url):
    wait_for("all to be counted", lambda: get(url, "/readyz")["lag_records"] == 0)


# The page.

READ = """() => {
    const value = id => document.getElementById(id)?.dataset.value;
    const rows = id => [...document.querySelectorAll(`#${id} tbody tr`)].map(row => [...row.cells].map(cell => cell.textContent));
    return {
        tick: document.body.dataset.tick, link: document.body.dataset.link, entity: document.querySelector('#entity-title').textContent,
        count: value('entity-count'), batch: value('entity-batch'), stream: value('entity-stream'),
        counted: value('counted-value'), dead: value('dead-value'), lag: value('lag-value'), verdict: value('verdict-value'),
        shown: document.querySelector('#entity-count').textContent,
        state: document.querySelector('#entity').dataset.state,
        positions: document.querySelector('#entity').dataset.positions, topPositions: document.querySelector('#top').dataset.positions,
        top: [...document.querySelectorAll('#top-body [data-entity]')].map(row => [row.dataset.entity, row.dataset.count]),
        steps: rows('entity-table'), audits: rows('audit-body'), letters: rows('dead-body'), partitions: rows('log-body'),
    };
}"""


def positions(text):
    return {int(partition): int(offset) for partition, offset in (one.split(":") for one in (text or "").split())}


def told(answer):
    return {at["partition"]: at["position"] for at in answer["provenance"]["partitions"]}


def reached(text, least):
    at = positions(text)
    return bool(at) and all(at.get(partition, -1) >= offset for partition, offset in least.items())


class Tab:
    """A page, what it complains of, and whom it asks."""

    def __init__(self, browser, url, width=1400, scheme="light"):
        self.url, self.wrong, self.outside = url, [], []
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, locale="en-US")
        self.page = self.context.new_page()
        self.page.on("console", lambda said: said.type in ("error", "warning") and self.wrong.append(said.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.context.on("request", lambda request: self.outside.append(request.url)
                        if not request.url.startswith((url, "data:")) else None)

    def open(self, **view):
        self.page.goto(f"{self.url}/?{urllib.parse.urlencode(view)}" if view else self.url)
        self.live()
        return self

    def live(self):
        self.page.wait_for_selector("body[data-link=live]", timeout=PATIENCE * 1000)
        self.page.wait_for_selector("#entity-body:not([hidden])", timeout=PATIENCE * 1000)

    def read(self):
        return self.page.evaluate(READ)

    def wait(self, what, holds):
        """Waits for a sight of the page of which `holds` is true; the sight."""
        def sight():
            self.page.wait_for_timeout(50)
            seen = self.read()
            return seen if holds(seen) else None
        return wait_for(what, sight)

    def unfold(self):
        self.page.evaluate("() => document.querySelectorAll('details').forEach(one => { one.open = true })")

    def close(self):
        self.context.close()


def whole(text):
    return int(text.replace(",", ""))


# The checks.


def check_values(url, tab, name):
    """At a moment when nothing comes in, every value is the API's."""
    tab.unfold()
    asked, seen = wait_for("a moment when nothing changes", lambda: at_rest(url, tab))
    count, stats, top, readyz = asked
    for part in ["count", "batch", "stream"]:
        same(f"{name}: {part} of the entity", seen[part], str(count[part]))
    same(f"{name}: the count as it is shown", seen["shown"], f"{count['count']:,}")
    expected = [[at["start"][:16].replace("T", " "), at["value"]] for at in reversed(stats["points"])]
    same(f"{name}: every step", [[row[0], whole(row[3])] for row in seen["steps"]], expected)
    same(f"{name}: the batch part of the steps", sum(whole(row[1]) for row in seen["steps"]), count["batch"])
    same(f"{name}: the stream part of the steps", sum(whole(row[2]) for row in seen["steps"]), count["stream"])
    same(f"{name}: the top list", seen["top"], [[at["entity_id"], str(at["count"])] for at in top["entities"]])
    for part in ["counted", "dead"]:
        same(f"{name}: {part} in all", seen[part], str(readyz["totals"][part]))
    same(f"{name}: lag", seen["lag"], str(readyz["lag_records"]))
    offsets = [[str(at["partition"]), *(f"{at[part]:,}" for part in ["coverage", "sealed", "position", "durable_end"])]
               for at in readyz["serving"]["partitions"]]
    same(f"{name}: offsets of the log", [row[:5] for row in seen["partitions"]], offsets)


def at_rest(url, tab):
    """What the API says and what the page says three seconds after it was asked; none if the API has changed meanwhile."""
    wait_counted(url)
    def ask():
        readyz = get(url, "/readyz")
        readyz["serving"].pop("watermark")
        answers = [get(url, "/v1/entities/video-1/count", type="view", window="1h"),
                   get(url, "/v1/entities/video-1/stats", type="view", window="1h", step="1m"),
                   get(url, "/v1/top", type="view", n=10, window="1h")]
        for answer in answers:
            answer["provenance"].pop("watermark")
        return [*answers, readyz]
    before = ask()
    tick = int(tab.read()["tick"])
    seen = tab.wait("three newer seconds", lambda seen: seen["tick"] and (int(seen["tick"]) < tick or int(seen["tick"]) >= tick + 3))
    return (before, seen) if ask() == before else None


def check_process(url, tab):
    runs = get(url, "/v1/audit/runs")["runs"]
    seen = tab.wait("the audits and dead letters", lambda seen: seen["audits"] and seen["letters"])
    same("audits listed", len(seen["audits"]), min(len(runs), 5))
    same("verdict of the latest audit", seen["verdict"], runs[0]["verdict"])
    letters = get(url, "/v1/dead-letters", limit=1000)["letters"]
    reasons = {}
    for letter in letters:
        reasons[letter["reason"]] = reasons.get(letter["reason"], 0) + 1
    same("dead letters that were made", sum(reasons.values()), 2)
    archived = lambda seen: {row[0]: whole(row[1]) for row in seen["letters"] if len(row) == 2}
    same("dead letters by reason", archived(tab.wait("the dead letters", lambda seen: archived(seen) == reasons)), reasons)


def check_while_flowing(server, tab):
    """While events come in, what the page says lies between two answers of the API, one before and one after it; and
    equals the first when both hold the same part of the log."""
    stop = threading.Event()

    def flow():
        while not stop.is_set():
            server.send([(ENTITIES[n % 5], "view", 0) for n in range(40)])
            time.sleep(0.05)

    sender = threading.Thread(target=flow)
    sender.start()
    first = None
    try:
        for _ in range(ROUNDS):
            before = get(server.url, "/v1/entities/video-1/count", type="view", window="1h")
            seen = tab.wait("a newer second", lambda seen: reached(seen["positions"], told(before)))
            after = get(server.url, "/v1/entities/video-1/count", type="view", window="1h")
            count = int(seen["count"])
            first = first or count
            check("between the API's answers", before["count"] <= count <= after["count"],
                  f": {before['count']} <= {count} <= {after['count']}")
            same("parts add up", int(seen["batch"]) + int(seen["stream"]), count)
            same("steps add up", sum(whole(row[3]) for row in seen["steps"]), count)
            if positions(seen["positions"]) == told(before):
                same("equal at the same place of the log", count, before["count"])
    finally:
        stop.set()
        sender.join()
    check("counts have grown while events came in", int(tab.read()["count"]) > first)


def check_restart(server, tab):
    """A stopped server is said to be lost at once, and followed again when it is back, with the same counts."""
    same("complaints so far", tab.wrong, [])
    before = tab.read()
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    tab.page.wait_for_selector("body[data-link=lost]", timeout=PATIENCE * 1000)
    check("the stream ends when the server stops", time.monotonic() - began < 5)
    check("the loss is in sight", "lost" in tab.page.inner_text("#link"))
    same("the last counts stay in sight", tab.read()["count"], before["count"])
    server.process.wait(timeout=60)
    same("the server ends in order", server.process.returncode, 0)
    server.start()
    tab.live()
    check_values(server.url, tab, "after a restart")
    tab.wait("the audit of before the restart", lambda seen: seen["audits"] and seen["verdict"] == before["verdict"])
    # While nobody listened, the browser itself says so in the console.
    complaints = [text for text in tab.wrong if "net::ERR" not in text]
    same("complaints over a restart", complaints, [])
    tab.wrong.clear()


def check_address(browser, url):
    tab = Tab(browser, url).open(**VIEW)
    page = tab.page
    page.select_option("#window", "6h")
    page.wait_for_url("**window=6h**")
    page.check("#compare")
    page.wait_for_url("**compare=1**")
    page.select_option("#top-n", "5")
    page.wait_for_url("**top=5**")
    tab.wait("a shorter list", lambda seen: 0 < len(seen["top"]) <= 5)
    address = page.url
    page.click("#top-body [data-entity=video-2] a")
    tab.wait("the other entity", lambda seen: "video-2" in seen["entity"])
    check("the address names the entity", "entity=video-2" in page.url, page.url)
    page.go_back()
    tab.wait("the entity of before", lambda seen: "video-1" in seen["entity"] and seen["count"])
    same("back leads to the address of before", page.url, address)
    page.go_forward()
    tab.wait("forward", lambda seen: "video-2" in seen["entity"])
    other = Tab(browser, url)
    other.page.goto(address)
    other.live()
    controls = "() => ['search', 'type', 'window', 'step', 'top-n', 'top-window'].map(id => document.getElementById(id).value)"
    same("a link leads to the very view", other.page.evaluate(controls), ["video-1", "view", "6h", "", "5", "1h"])
    same("and to its comparison", other.page.is_checked("#compare"), True)
    compared = "#entity-before-cell:not([hidden])"
    other.page.wait_for_selector(compared, timeout=PATIENCE * 1000)
    other.page.uncheck("#compare")
    other.page.wait_for_selector(compared, state="hidden", timeout=PATIENCE * 1000)
    other.page.check("#compare")
    other.page.wait_for_selector(compared, timeout=PATIENCE * 1000)
    for one in (tab, other):
        same("complaints about addresses", one.wrong, [])
        same("requests to elsewhere", one.outside, [])
        one.close()


def check_first_view(browser, url):
    tab = Tab(browser, url).open()
    top = get(url, "/v1/top", n=1, window="1h")["entities"][0]["entity_id"]
    check("without a choice the first of the list is shown", f"entity={top}" in tab.page.url, tab.page.url)
    tab.close()


def check_keyboard(browser, url):
    tab = Tab(browser, url).open(**VIEW)
    page = tab.page
    page.keyboard.press("/")
    focused = "() => document.activeElement.id"
    same("/ leads to the search", page.evaluate(focused), "search")
    page.keyboard.type("video-3")
    page.keyboard.press("Enter")
    tab.wait("the entity that was typed", lambda seen: "video-3" in seen["entity"])
    page.keyboard.press("/")
    page.keyboard.type("video-4")
    page.wait_for_selector("#found li")
    page.keyboard.press("ArrowDown")
    same("the search points at what it found", page.get_attribute("#search", "aria-activedescendant"), "found-0")
    page.keyboard.press("Enter")
    tab.wait("the entity that was found", lambda seen: "video-4" in seen["entity"])
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    same("? opens the help", page.is_visible("#help"), True)
    page.keyboard.press("Escape")
    same("Escape closes it", page.is_visible("#help"), False)
    page.evaluate("() => document.activeElement.blur()")
    page.keyboard.press("]")
    page.wait_for_url("**window=6h**")
    page.keyboard.press("[")
    tab.wait("the range of before", lambda _: "window=" not in page.url)
    page.keyboard.press("t")
    same("t changes the theme", page.evaluate("() => document.documentElement.dataset.theme"), "light")
    check_reach(page)
    same("complaints about keys", tab.wrong, [])
    tab.close()


def check_reach(page):
    """The tab key leads to everything that can be used."""
    usable = """() => [...document.querySelectorAll('a[href], button, input, select, summary')]
        .filter(one => one.checkVisibility() && one.closest('dialog:not([open])') === null)
        .map(one => one.id || one.textContent.trim())"""
    due = set(page.evaluate(usable))
    page.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
    seen = set()
    for _ in range(3 * len(due) + 20):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("() => document.activeElement.id || document.activeElement.textContent.trim()"))
        if due <= seen:
            break
    same("out of reach of the tab key", sorted(due - seen), [])


def check_refusal(browser, url):
    """What cannot be followed is said, with the server's reason."""
    tab = Tab(browser, url).open(**VIEW)
    tab.wait("a list", lambda seen: seen["top"])
    tab.page.fill("#filter", "colour:red")
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("body[data-link=refused]", timeout=PATIENCE * 1000)
    check("the reason is in sight", "filter" in tab.page.inner_text("#entity-error"))
    same("no list of another question is in sight", tab.read()["top"], [])
    tab.page.goto(f"{url}/?entity=video-1&from=noon")
    tab.page.wait_for_selector("body[data-link=refused]", timeout=PATIENCE * 1000)
    check("so is that of a time that is none", "from" in tab.page.inner_text("#entity-error"))
    same("errors of the page over refusals", [text for text in tab.wrong if "400" not in text], [])
    tab.close()


NAME = '<img src=x onerror="document.title=`done`">'


def faked(answers, path):
    """Lets the page follow these seconds and no others: of an entity with such a name, with its counts, or why there are none."""
    provenance = {"complete": True, "state": "settled", "watermark": "2026-01-01T00:09:00Z", "partitions": [{"partition": 0, "position": 7}],
                  "missing": [], "late": 0, "definitions_mixed": False, "batch_version": 3}
    events = [("history", {"columns": ["time_ms", "accepted", "counted", "duplicate", "dead", "records"], "rows": []})]
    for number, answer in enumerate(answers, 1):
        series = answer if "error" in answer else {
            "entity_id": NAME, "step_minutes": 1, "provenance": provenance, "changed": [], "gone": [],
            "window": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:10:00Z"}, **answer}
        if "error" not in answer:
            events.append(("series", {**series, "points": [{"start": "2026-01-01T00:01:00Z", "batch": answer["batch"],
                                                            "stream": answer["stream"], "late": 0}]}))
        listed = {"entity_id": NAME, "title": f"{NAME}!", "channel": NAME, "rank": 1, "count": 2**64 - 1}
        events.append(("tick", {
            "id": number, "now": f"2026-01-01T00:10:{number:02}Z", "counts_here": True, "ready": True, "reasons": [NAME], "damaged": 0,
            "totals": {"accepted": 2**63, "counted": 2**63, "duplicate": 0, "dead": 0}, "lag": {"records": 0, "seconds": 0.6933333333333334,
            "silent_partitions": 0}, "per_second": None, "serving": None, "audit": {"runs": []}, "batch": None,
            "dead_letters": {"version": 1, "reasons": [{"reason": NAME, "count": 1}], "newest": [
                {"received_at": "2026-01-01T00:00:00Z", "reason": NAME, "field": None, "message": NAME, "source": None}]},
            "signals": {"window_seconds": 59.0007, "requests_per_second": 0.01694915254237288, "errors_per_second": 0.0, "under_way": 0,
                        "latency_p50_ms": 98.03921568627451, "latency_p99_ms": None, "under_way_max": 9, "streams": 1, "streams_max": 9},
            "top": {"entities": [listed], "provenance": provenance}, "series": series}))
    body = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in events)
    path.fulfill(status=200, content_type="text/event-stream", body=body)


def check_strange(browser, url):
    """Names are text and never markup, numbers are not rounded, and older counts are never said to be those of now."""
    counts = {"count": 2**64 - 1, "batch": 2**63, "stream": 2**63 - 1}
    for name, answers in [("counts", [counts]), ("no answer", [counts, {"error": "no room"}])]:
        tab = Tab(browser, url)
        tab.page.route("**/v1/live?*", lambda path: faked(answers, path))
        tab.page.goto(f"{url}/?{urllib.parse.urlencode({'entity': NAME})}")
        tab.page.wait_for_selector(f"body[data-tick='{len(answers)}']", timeout=PATIENCE * 1000)
        seen = tab.read()
        for part, count in counts.items():
            same(f"{name}: {part} beyond doubles", seen[part], str(count))
        same(f"{name}: as it is shown", seen["shown"], f"{2**64 - 1:,}")
        same(f"{name}: a list's count beyond doubles", seen["top"], [[NAME, str(2**64 - 1)]])
        check(f"{name}: a rate of many digits", "0.02" in tab.page.inner_text("#signal-traffic"))
        same(f"{name}: whether it is said that counts are older", tab.page.is_visible("#entity-error"), len(answers) > 1)
        tab.page.wait_for_timeout(300)
        same(f"{name}: markup of names", tab.page.locator("img[src=x]").count(), 0)
        check(f"{name}: names do nothing", tab.page.title() != "done", tab.page.title())
        same(f"{name}: complaints", tab.wrong, [])
        tab.close()


def check_sight(browser, url, folder):
    papers = {}
    for width in WIDTHS:
        for scheme in SCHEMES:
            tab = Tab(browser, url, width, scheme).open(**VIEW, compare="1")
            name = f"{width}, {scheme}"
            tab.wait("audits and dead letters", lambda seen: seen["audits"])
            tab.page.wait_for_selector("#entity-before-cell:not([hidden])", timeout=PATIENCE * 1000)
            tab.page.wait_for_timeout(1500)
            same(f"charts in sight at {name}", tab.page.locator(".chart canvas").count(), 2)
            painted = "() => [...document.querySelectorAll('.chart canvas')].every(one => one.getContext('2d')" \
                      ".getImageData(0, 0, one.width, one.height).data.some(byte => byte > 0))"
            same(f"charts are drawn at {name}", tab.page.evaluate(painted), True)
            labels = tab.page.eval_on_selector_all(".chart", "all => all.map(one => one.getAttribute('aria-label'))")
            check(f"charts are told in words at {name}", all("events" in text.lower() for text in labels), str(labels))
            tab.page.screenshot(path=folder / f"dashboard-{width}-{scheme}.png", full_page=True)
            tab.unfold()
            tab.page.wait_for_timeout(1200)
            widths = tab.page.evaluate("() => [document.documentElement.scrollWidth, document.body.scrollWidth]")
            check(f"no horizontal scroll at {name}", max(widths) <= width, str(widths))
            papers[scheme] = tab.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
            same(f"complaints at {name}", tab.wrong, [])
            same(f"requests to elsewhere at {name}", tab.outside, [])
            check_access(tab.page, name)
            tab.close()
    check("light and dark differ", papers["light"] != papers["dark"])


def check_access(page, name):
    if Axe is None:
        return
    found = Axe().run(page).response["violations"]
    bad = [f"{one['id']}: {one['help']} ({one['nodes'][0]['target']})" for one in found if one["impact"] in SERIOUS]
    same(f"nothing serious for axe at {name}", bad, [])


def check_answer(url):
    """The page may do nothing but run what came with it."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        policy, page = answer.headers["content-security-policy"], answer.read().decode()
    check("the policy is strict", policy.startswith("default-src 'none'") and "unsafe" not in policy, policy)
    return page


def run(browser, server, url, folder):
    check_sight(browser, url, folder)
    check_address(browser, url)
    check_first_view(browser, url)
    check_keyboard(browser, url)
    check_refusal(browser, url)
    check_strange(browser, url)
    if server is None:
        return
    tab = Tab(browser, url).open(**VIEW)
    check_values(url, tab, "at rest")
    check_process(url, tab)
    check_while_flowing(server, tab)
    check_values(url, tab, "after the flow")
    server.job("batch")
    check_values(url, tab, "after a batch run")
    check_restart(server, tab)
    same("requests to elsewhere", tab.outside, [])
    tab.close()


def started(playwright):
    program = os.environ.get("RECKON_TEST_CHROMIUM") or None
    # The page is our own, and the sandbox is not to be had everywhere.
    return playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


def main():
    folder = pathlib.Path(sys.argv[-1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        server = None
        if sys.argv[1] == "--url":
            url = sys.argv[2].rstrip("/")
        else:
            server = Server(str(pathlib.Path(sys.argv[1]).resolve()), str(pathlib.Path(work) / "data"))
            url = server.url
        try:
            if "/assets/" not in check_answer(url):
                if shutil.which("npm"):
                    sys.exit("the binary has no dashboard, although there is npm: see the warning of its build")
                print("skipped: the binary was built without npm, so it has no dashboard")
                return
            if server:
                fill(server)
            browser = started(playwright)
            run(browser, server, url, folder)
            browser.close()
        finally:
            if server:
                server.stop()
    if Axe is None:
        print("skipped: axe-core, for there is no axe-playwright-python")
    print(f"pictures are in {folder}")
    print(f"dashboard: {len(CHECKED) - len(FAILED)} of {len(CHECKED)} checks passed")
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
