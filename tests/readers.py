"""Other readers open every table and find the same rows, sums and partitions as Reckon does.

    python tests/readers.py PATH/TO/reckon

Needs deltalake, polars and duckdb. Makes a data folder of its own, and removes it.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import deltalake
import duckdb
import polars

TABLES = ["events", "stream_counts", "batch_counts", "dead_letters", "imports"]


def lines():
    for n in range(5_000):
        minute = f"2013-02-{8 + n % 3:02d}T21:{n % 60:02d}:00Z"
        yield json.dumps({"v": f"video-{n % 97}", "t": minute, "c": "US" if n % 2 else None, "x": f"{n % 7}.25"})
    yield "no event at all"


def reckon(binary, folder, *arguments):
    run = subprocess.run([binary, *arguments, "--data-dir", folder], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f"reckon {' '.join(arguments)} failed: {run.stdout}{run.stderr}")
    return run.stdout


CHECKED = []


def same(what, found, expected):
    CHECKED.append(what)
    print(f"{'ok  ' if found == expected else 'FAIL'} {what}: {found}")
    if found != expected:
        sys.exit(f"{what}: found {found}, expected {expected}")


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "clicks.ndjson"
        source.write_text("\n".join(lines()) + "\n")
        data = str(pathlib.Path(folder) / "data")
        reckon(binary, data, "import", "--format", "ndjson", "--entity", "v", "--time", "t", "--country", "c",
               "--value", "x", "--type", "view", str(source))
        reckon(binary, data, "batch")
        root = pathlib.Path(data) / "tables"
        opened = {name: deltalake.DeltaTable(str(root / name)) for name in TABLES}
        frames = {name: polars.scan_delta(str(root / name)).collect() for name in TABLES}
        for name in TABLES:
            same(f"rows of {name} in deltalake", opened[name].count(), frames[name].height)
        events = frames["events"]
        same("events in polars", events.height, 5_000)
        same("dates of events", sorted(str(d) for d in events["event_date"].unique()),
             ["2013-02-08", "2013-02-09", "2013-02-10"])
        minutes = frames["batch_counts"].filter(polars.col("granularity") == "minute")
        days = frames["batch_counts"].filter(polars.col("granularity") == "day")
        same("batch counts by minute", minutes["count"].sum(), 5_000)
        same("batch counts by day", days["count"].sum(), 5_000)
        same("sum of values", minutes["value_sum"].sum(), events["value"].sum())
        segments = frames["stream_counts"]
        same("stream counts", segments.filter(polars.col("kind") == "count")["count"].sum(), 5_000)
        same("stream summaries", segments.filter(polars.col("kind") == "summary")["counted"].sum(), 5_000)
        same("dead letters", frames["dead_letters"]["body"].to_list(), [b"no event at all"])
        same("imports", frames["imports"].filter(polars.col("finished"))["lines"].max(), 5_001)
        connection = duckdb.connect()
        files = [str(root / "batch_counts" / f) if not str(f).startswith("/") else str(f)
                 for f in opened["batch_counts"].file_uris()]
        total, country = connection.execute(
            "select sum(count), sum(count) filter (where country = 'US') from read_parquet(?, hive_partitioning = true)"
            " where granularity = 'minute'", [files]).fetchone()
        same("counts in duckdb", (int(total), int(country)), (5_000, 2_500))
        answer = json.loads(reckon(binary, data, "sql", "--format", "json", "select sum(count) as n from stats"))
        same("counts in reckon", int(answer[0]["n"]), 5_000)
    print(f"{len(CHECKED)} passed, 0 failed")


if __name__ == "__main__":
    main()
