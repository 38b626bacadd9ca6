"""Asks DuckDB what `reckon bench mixed` asks of `stats`, on the same Parquet files, and holds its total to Reckon's.

    python bench/duckdb_scan.py DATA_FOLDER

Prints seconds a query, the better of two runs. Needs duckdb and deltalake. Batch must have counted everything.
"""

import json
import pathlib
import sys
import time

import deltalake
import duckdb

SCANS = [
    "select sum(count) from stats",
    "select country, sum(count) from stats group by country order by 1",
    "select entity_id, sum(count) from stats group by entity_id order by 2 desc, 1 limit 10",
    "select date_trunc('hour', minute), count(*), sum(count) from stats group by 1 order by 1",
]


def main():
    table = deltalake.DeltaTable(str(pathlib.Path(sys.argv[1]) / "tables" / "batch_counts"))
    files = [str(file) for file in table.file_uris([("granularity", "=", "minute")])]
    connection = duckdb.connect()
    connection.read_parquet(files, hive_partitioning=False).create_view("stats")
    rows = connection.execute("select count(*) from stats").fetchone()[0]
    report = {"rows": rows, "total": int(connection.execute(SCANS[0]).fetchone()[0]), "seconds": {}}
    for query in SCANS:
        times = []
        for _ in range(2):
            start = time.monotonic()
            connection.execute(query).fetchall()
            times.append(time.monotonic() - start)
        report["seconds"][query] = round(min(times), 3)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
