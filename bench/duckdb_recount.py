"""Recounts the raw events of a data folder with DuckDB: the same keys, minutes, hours and days as `reckon batch`.

    python bench/duckdb_recount.py DATA_FOLDER

Prints seconds for counting alone and for counting and writing sorted Parquet files. Needs duckdb and deltalake.
"""

import json
import pathlib
import sys
import tempfile
import time

import deltalake
import duckdb

FIRSTS = "select distinct on (key_hash) entity_id, event_type, country, event_time, key_hash, value from events"
COUNTS = """
    select entity_id, event_type, date_trunc('{level}', {time}) as minute, country, {count} as count,
           {fingerprint} as fingerprint, {values} as value_count, sum({sum}) as value_sum
    from {source} group by all
"""


def levels():
    yield "minute", COUNTS.format(level="minute", time="event_time", count="count(*)", fingerprint="bit_xor(key_hash)",
                                  values="count(value)", sum="value", source="firsts")
    for level in ("hour", "day"):
        yield level, COUNTS.format(level=level, time="minute", count="sum(count)", fingerprint="bit_xor(fingerprint)",
                                   values="sum(value_count)", sum="value_sum", source="minutes")


def main():
    root = pathlib.Path(sys.argv[1]) / "tables" / "events"
    files = [str(file) for file in deltalake.DeltaTable(str(root)).file_uris()]
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        connection = duckdb.connect()
        connection.execute("set memory_limit = '2GB'")
        connection.execute(f"set temp_directory = '{folder}/spill'")
        connection.execute("set preserve_insertion_order = false")
        connection.read_parquet(files, hive_partitioning=False).create_view("events")
        start = time.monotonic()
        for level, sql in levels():
            name = {"minute": "minutes"}.get(level, level)
            sql = f"with firsts as ({FIRSTS}) {sql}" if level == "minute" else sql
            connection.execute(f"create temp table {name} as {sql}")
        counted = time.monotonic() - start
        rows = 0
        for level in ("minute", "hour", "day"):
            name = {"minute": "minutes"}.get(level, level)
            connection.execute(f"copy (from {name} order by entity_id, event_type, minute) to '{folder}/{level}.parquet'"
                               " (format parquet, compression zstd)")
            rows += connection.execute(f"select count(*) from {name}").fetchone()[0]
        total = connection.execute("select sum(count) from minutes").fetchone()[0]
        print(json.dumps({"counted": int(total), "rows": rows, "seconds": {
            "count": round(counted, 2), "count and write": round(time.monotonic() - start, 2)}}))


if __name__ == "__main__":
    main()
