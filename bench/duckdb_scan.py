"""Asks DuckDB what `reckon bench mixed` has asked of `stats`, on the same Parquet files, and compares the totals.

    reckon bench mixed --dir DATA_FOLDER --json > REPORT
    python bench/duckdb_scan.py DATA_FOLDER REPORT

Prints seconds a query, the better of two runs, and fails when a query adds up to something else. Needs duckdb and
deltalake.
"""

import json
import pathlib
import sys
import time

import deltalake
import duckdb

OWN = "starts_with(entity_id, '_reckon/')"


def stats(folder, connection):
    table = deltalake.DeltaTable(str(pathlib.Path(folder) / "tables" / "batch_counts"))
    files = [str(file) for file in table.file_uris([("granularity", "=", "minute")])]
    rows = connection.read_parquet(files, hive_partitioning=False)
    # Reckon leaves its own entities out, and looks for them only in files that may hold some.
    return rows.filter(f"not {OWN}") if rows.filter(OWN).limit(1).fetchall() else rows


def main():
    asked = json.loads(pathlib.Path(sys.argv[2]).read_text())
    connection = duckdb.connect()
    stats(sys.argv[1], connection).create_view("stats")
    rows = connection.execute("select count(*) from stats").fetchone()[0]
    report = {"rows": rows, "seconds": {}, "differ": {}}
    for scan in asked["sql"]:
        times = []
        for _ in range(2):
            start = time.monotonic()
            answer = connection.execute(scan["query"]).fetchall()
            times.append(time.monotonic() - start)
        report["seconds"][scan["query"]] = round(min(times), 3)
        total = sum(int(row[-1]) for row in answer)
        if total != scan["total"]:
            report["differ"][scan["query"]] = {"reckon": scan["total"], "duckdb": total}
    print(json.dumps(report))
    return 1 if report["differ"] or not asked["sql"] else 0


if __name__ == "__main__":
    sys.exit(main())
