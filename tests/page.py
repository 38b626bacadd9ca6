"""The page of an audit in a real browser: it needs nothing from elsewhere, fits, and says what the report says.

    python tests/page.py PATH/TO/reckon FOLDER
    python tests/page.py --report PAGE.html REPORT.json FOLDER
    python tests/page.py --starts

The first way makes a data folder of its own, audits it in several states, and removes it; the second looks at one page;
the third only says, by how it ends, whether a browser starts.
Pictures of every page go to FOLDER. Needs playwright and a Chromium: that of `python -m playwright install chromium`, or
the program that RECKON_TEST_CHROMIUM names. With axe-playwright-python every page is also looked at with axe-core.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from playwright.sync_api import sync_playwright

try:
    from axe_playwright_python.sync_playwright import Axe
except ImportError:
    Axe = None

WIDTHS = [1400, 360]
SCHEMES = ["light", "dark"]
CHARTS = ["stages", "hours", "trend", "horizon"]
SERIOUS = {"serious", "critical"}
# Differences that the design expects.
EXPECTED = {"duplicate_past_window", "late_not_recounted", "repeat_differs"}
# Hours up to which each has a row of its own.
HOURS_MAX = 200
HOURS_LISTED_MAX = 1_000

CHECKED = []


def same(what, found, expected):
    CHECKED.append(what)
    if found != expected:
        print(f"FAIL {what}")
        sys.exit(f"{what}: found {found!r}, expected {expected!r}")


# What the tables should say, from the report alone.


def number(value):
    return f"{value:,}"


def signed(value):
    return f"+{value:,}" if value > 0 else f"{value:,}"


def many(value, one, more):
    return f"{value:,} {one if value == 1 else more}"


def right(value):
    return "✓ yes" if value else "✗ no"


def visible(text):
    """Texts with characters that cannot be seen are left to the tests of the page itself."""
    return text or ""


def stages(report):
    return [[stage["stage"], visible(stage["title"]), number(stage["expected"]), number(stage["found"]),
             signed(stage["found"] - stage["expected"]), right(stage["fingerprints_agree"])]
            for stage in report["stages"]]


def hours(report):
    rows = []
    for hour in report["hours"]:
        more = max(hour["found"] - hour["expected"], 0)
        less = max(hour["expected"] - hour["found"], 0)
        swapped = int(hour["differs"] and more == less == 0)
        rows.append([hour["hour"], hour["hour"], "1", number(hour["expected"]), number(hour["found"]),
                     number(more), number(less), number(swapped)])
    return rows


def hours_that_differ(report):
    differing = [hour for hour in report["hours"] if hour["differs"] or hour["expected"] != hour["found"]]
    return [[hour["hour"], number(hour["expected"]), number(hour["found"]), signed(hour["found"] - hour["expected"]),
             right(not hour["differs"])] for hour in differing[:HOURS_LISTED_MAX]]


def dates(report):
    rows = []
    for date in report["dates"]:
        closed = date["closed"]
        rows.append([date["date"], *(number(date[name]) for name in
                                     ["raw", "repeats", "expected", "minute", "hour", "day"]),
                     "closed" if closed else signed(date["minute"] - date["expected"]), number(date["uncovered"]),
                     number(date["reserved"]), "closed" if closed else "open", right(date["balanced"])])
    return rows


def partitions(report):
    names = ["partition", "log_start", "log_end", "archived", "sealed", "coverage", "gone"]
    return [["not read" if at[name] is None else number(at[name]) for name in names] for at in report["partitions"]]


def segments(report):
    of = report["segments"]
    return [["Segments checked", number(of["checked"])], ["Without a difference", number(of["balanced"])],
            ["With a difference", number(max(of["checked"] - of["balanced"], 0))],
            ["Events accepted", number(of["accepted"])], ["Events counted", number(of["counted"])],
            ["Repeats dropped", number(of["duplicate"])], ["Events refused", number(of["dead"])]]


def served(report):
    of = report["served"]
    return [["Questions", number(of["asked"])], ["Right answers", number(of["equal"])],
            ["Answers that said that they were not complete", number(of["incomplete"])],
            ["Wrong answers", number(max(of["asked"] - of["equal"] - of["incomplete"], 0))]]


def versions(report):
    return [[table["table"], *(number(table[name]) for name in ["version", "files", "bytes", "rows"])]
            for table in report["tables"]]


def classes(report):
    return [[name, "expected" if name in EXPECTED else "error", number(found)]
            for name, found in sorted(report["findings_total"].items())]


def findings(report, expected):
    """Class, and the three numbers, of each finding."""
    rows = []
    for finding in report["findings"]:
        if (finding["class"] in EXPECTED) == expected:
            due, found = finding["expected"], finding["found"]
            rows.append([finding["class"], "" if due is None else number(due), "" if found is None else number(found),
                         "" if None in (due, found) else signed(found - due)])
    return rows


def sums(tables):
    """The first number of each row: what a number says in two ways is compared in the exact one."""
    return [[row[0], exact(row[1])] for row in tables.get("Dedup window", [])]


def exact(text):
    in_bytes = re.search(r"\(([\d,]+) bytes?\)", text)
    found = in_bytes or re.match(r"([\d,]+)", text)
    return found.group(1) if found else text


def window(report):
    of = report["horizon"]
    recommended = number(of["recommended_minutes"]) if of["repeats"] else "no repeats, no recommendation"
    return [["Repeats looked at", number(of["repeats"])], ["99 of 100 come within", number(of["p99_seconds"])],
            ["The latest came after", number(of["max_seconds"])], ["Window now", number(of["window_minutes"])],
            ["Memory of its dedup set", number(of["window_memory"])],
            ["Repeats after the window", number(of["past_window"])], ["Recommended window", recommended],
            ["Memory of its dedup set, if recommended", number(of["recommended_memory"])]]


def check_numbers(report, tables):
    due = {
        "Events at each stage": stages(report), "Hours that differ": hours_that_differ(report), "Dates": dates(report),
        "Partitions of the log": partitions(report), "Segments of the stream": segments(report),
        "Answers asked for": served(report), "Tables that were read": versions(report),
        "Findings of each class": classes(report),
    }
    if len(report["hours"]) <= HOURS_MAX:
        due["Difference per hour"] = hours(report)
    # A table without rows is a sentence.
    for caption, rows in due.items():
        same(f"table {caption}", tables.get(caption, []), rows)
    took = [[part, f"{seconds:.3f} s"] for part, seconds in sorted(report["seconds"].items())]
    same("table How long it took", tables.get("How long it took", []), took)
    for caption, expected in [("Errors", False), ("Differences that the design expects", True)]:
        found = [[row[0], *row[4:7]] for row in tables.get(caption, [])]
        same(f"table {caption}", found, findings(report, expected))
    repeats = [row[1:] for row in tables.get("Repeats by delay after the first copy", [])]
    buckets = [[number(bucket["seconds"]), number(bucket["repeats"])] for bucket in report["horizon"]["buckets"]]
    same("table of repeats", repeats, buckets)
    same("table Dedup window", sums(tables), window(report))
    check_trend(report, tables)
    known = {*due, "Difference per hour", "How long it took", "Errors", "Differences that the design expects",
             "Repeats by delay after the first copy", "Dedup window", "Findings over the last runs"}
    same("tables that nobody has compared", sorted(set(tables) - known), [])


def totals(report):
    expected = sum(found for name, found in report["findings_total"].items() if name in EXPECTED)
    return sum(report["findings_total"].values()) - expected, expected


def check_trend(report, tables):
    errors, expected = totals(report)
    verdict = "✓ balanced" if report["verdict"] == "balanced" else "✗ findings"
    raw = sum(date["raw"] for date in report["dates"])
    row = [report["finished_at"], report["run_id"], verdict, number(errors), number(expected), number(raw)]
    runs = tables.get("Findings over the last runs", [])
    same("the run in the trend", [run for run in runs if run[1] == report["run_id"]], [row])
    if report["previous"] is not None:
        same("the run before in the trend", report["previous"]["run_id"] in [run[1] for run in runs], True)


# What a browser makes of the page.


def open_page(browser, path, width, scheme):
    """A page without a network; what it asks for, and what it complains of."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page, wrong = context.new_page(), []
    address = path.resolve().as_uri()

    def request(route):
        if route.request.url == address:
            route.continue_()
        else:
            wrong.append(f"request of {route.request.url}")
            route.abort()

    context.route("**/*", request)
    page.on("console", lambda said: wrong.append(f"console {said.type}: {said.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error {error}"))
    page.on("requestfailed", lambda failed: wrong.append(f"failed {failed.url}"))
    page.goto(address, wait_until="load")
    return context, page, wrong


READ_TABLES = """() => [...document.querySelectorAll('table')].map(table => [
    table.caption.textContent,
    [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.textContent)),
])"""


def read_tables(page):
    tables = page.evaluate(READ_TABLES)
    captions = [caption for caption, _ in tables]
    same("tables of one name", sorted(captions), sorted(set(captions)))
    return dict(tables)


def check_sight(page, report, width):
    errors, _ = totals(report)
    verdict = "✓ Balanced" if report["verdict"] == "balanced" else f"✗ {many(errors, 'finding', 'findings')}"
    same("verdict", page.inner_text(".verdict"), verdict)
    same("verdict in sight", page.is_visible(".verdict"), True)
    same("charts", page.eval_on_selector_all("figure", "all => all.map(one => one.id)"), CHARTS)
    same("drawings", page.locator("figure svg.chart").count(), len(CHARTS))
    sizes = page.eval_on_selector_all("figure svg.chart", "all => all.map(one => one.getBoundingClientRect().height)")
    same("drawings in sight", all(size > 50 for size in sizes), True)
    # What is wider scrolls by itself.
    widths = page.evaluate("() => [document.documentElement.scrollWidth, document.body.scrollWidth]")
    same(f"no horizontal scroll at {width}", max(widths) <= width, True)
    # Folded tables must fit as well.
    page.evaluate("() => document.querySelectorAll('details').forEach(one => { one.open = true })")
    unfolded = page.evaluate("() => document.documentElement.scrollWidth")
    same(f"no horizontal scroll at {width}, all unfolded", unfolded <= width, True)


def check_access(page):
    if Axe is None:
        return
    found = Axe().run(page).response["violations"]
    bad = [f"{one['id']}: {one['help']} ({one['nodes'][0]['target']})" for one in found if one["impact"] in SERIOUS]
    same("nothing serious for axe", bad, [])


def colours(page):
    return page.evaluate("() => getComputedStyle(document.body).backgroundColor")


def check_page(browser, name, path, report, folder):
    papers = {}
    for width in WIDTHS:
        for scheme in SCHEMES:
            context, page, wrong = open_page(browser, path, width, scheme)
            check_sight(page, report, width)
            check_numbers(report, read_tables(page))
            papers[scheme] = colours(page)
            page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
            # What the page has done by itself; axe comes after.
            same("requests and complaints", wrong, [])
            check_access(page)
            context.close()
            print(f"ok   {name} at {width}, {scheme}")
    same("light and dark differ", papers["light"] != papers["dark"], True)


# Pages of data of our own.


def reckon(binary, data, *arguments, codes=(0,)):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECKON_")}
    run = subprocess.run([binary, *arguments, "--data-dir", data], capture_output=True, text=True, check=False,
                         env=environment)
    if run.returncode not in codes:
        sys.exit(f"reckon {' '.join(arguments)} ended with {run.returncode}: {run.stdout}{run.stderr}")
    return run.stdout


def lines():
    """5,000 events, and the first 1,000 of them again."""
    for n in [*range(5_000), *range(1_000)]:
        minute = f"2013-02-{8 + n % 3:02d}T{n % 20:02d}:{n % 60:02d}:00Z"
        yield json.dumps({"i": f"e{n}", "v": f"video-{n % 97}", "t": minute, "c": "US" if n % 2 else None})


def made(binary, work):
    """Names, pages and reports: of data that is right, that is damaged, and that is made good again."""
    source, data = work / "clicks.ndjson", str(work / "data")
    source.write_text("\n".join(lines()) + "\n")
    reckon(binary, data, "import", "--format", "ndjson", "--id", "i", "--entity", "v", "--time", "t", "--country", "c",
           "--type", "view", str(source))
    reckon(binary, data, "batch")

    def audited(name, code, *more):
        page = work / f"{name}.html"
        report = json.loads(reckon(binary, data, "audit", "--json", "--page", str(page), *more, codes=(code,)))
        return name, page, report

    audited("first", 0)
    yield audited("balanced", 0)
    counts = pathlib.Path(data) / "tables" / "batch_counts"
    for file in counts.rglob("*.parquet"):
        if "granularity=minute" in file.parts and "event_date=2013-02-09" in file.parts:
            file.unlink()
    yield audited("damaged", 1)
    yield audited("repaired", 0, "--repair")


def started(playwright):
    program = os.environ.get("RECKON_TEST_CHROMIUM") or None
    # The pages are our own, and the sandbox is not to be had everywhere.
    return playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


def main():
    if sys.argv[1:] == ["--starts"]:
        with sync_playwright() as playwright:
            started(playwright).close()
        return
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        folder = pathlib.Path(sys.argv[-1])
        folder.mkdir(parents=True, exist_ok=True)
        if sys.argv[1] == "--report":
            path = pathlib.Path(sys.argv[2])
            pages = [(path.stem, path, json.loads(pathlib.Path(sys.argv[3]).read_text()))]
        else:
            pages = made(str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(work))
        browser = started(playwright)
        for name, path, report in pages:
            check_page(browser, name, path, report, folder)
        browser.close()
    if Axe is None:
        print("skipped: axe-core, for there is no axe-playwright-python")
    print(f"{len(CHECKED)} passed, 0 failed; pictures are in {folder}")


if __name__ == "__main__":
    main()
