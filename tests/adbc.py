"""ADBC's driver for Flight SQL asks a running server: queries, parameters, metadata, an older version, refusals, cancel.

    python tests/adbc.py PATH/TO/reckon

Needs adbc-driver-flightsql, adbc-driver-manager and pyarrow. Starts a server of its own, and stops it.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import adbc_driver_flightsql.dbapi
import adbc_driver_manager

HEADER = "adbc.flight.sql.rpc.call_header."
CHECKED = []


def same(what, found, expected):
    CHECKED.append(found == expected)
    print(f"{'ok  ' if CHECKED[-1] else 'FAIL'} {what}: {found}")
    if not CHECKED[-1]:
        print(f"     expected {expected}")


class Server:
    """A server that ends with this process."""

    def __init__(self, binary, folder, *arguments):
        command = [binary, "up", "--data-dir", folder, "--listen", "127.0.0.1:0", "--canary-every", "0s",
                   "--serving-flight-sql", "127.0.0.1:0", "--serving-postgres", "", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if "http://" not in line:
            sys.exit(f"the server did not start: {line}")
        self.url = line[line.index("http://"):].split()[0]
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        self.flight_sql = "grpc://" + self.get("/readyz")["listens"]["flight_sql"]

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return json.load(answer)

    def text(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return answer.read().decode()

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def send(self, events):
        self.post("/v1/events", events)
        deadline = time.monotonic() + 60
        while self.get("/readyz")["lag_records"] > 0:
            if time.monotonic() > deadline:
                sys.exit("events are not counted")
            time.sleep(0.05)

    def connect(self, **headers):
        options = {HEADER + name.replace("_", "-"): value for name, value in headers.items()}
        return adbc_driver_flightsql.dbapi.connect(self.flight_sql, db_kwargs=options, autocommit=True)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=60)


def event(number):
    return {"event_id": str(number), "event_type": "view", "entity_id": f"video-{number % 7}",
            "event_time": f"2013-02-08T21:{number % 60:02d}:00Z", "country": "US" if number % 2 else None}


def rows(connection, query, parameters=None):
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchall()


def refusal(connection, query, parameters=None):
    try:
        rows(connection, query, parameters)
    except adbc_driver_manager.Error as error:
        return error.status_code.name, str(error)
    return "none", ""


def queries(server, connection):
    total = "select cast(sum(count) as bigint) from stats"
    same("a sum", rows(connection, total), [(1_000,)])
    by_rest = server.post("/v1/sql", {"query": "select entity_id, sum(count) from stats group by 1 order by 1"})
    by_adbc = rows(connection, "select entity_id, cast(sum(count) as bigint) from stats group by 1 order by 1")
    same("the same as over REST", by_adbc, [(name, int(count)) for name, count in by_rest["rows"]])
    with connection.cursor() as cursor:
        cursor.execute(total)
        reader = cursor.fetch_record_batch()
        told = {name.decode(): value.decode() for name, value in (reader.schema.metadata or {}).items()}
        reader.read_all()
    same("whether the answer is whole", told.get("reckon-complete"), "true")
    same("its provenance", json.loads(told.get("reckon-provenance", "{}")).get("source"), "counts")
    numbers = rows(connection, "select value from generate_series(1, 250000)")
    same("more rows than serving.rows_max", (len(numbers), sum(number for number, in numbers)), (250_000, 31_250_125_000))
    same("no rows", rows(connection, "select entity_id from stats where entity_id = 'nobody'"), [])


def parameters(connection):
    query = "select cast(coalesce(sum(count), 0) as bigint) from stats where entity_id = $1 and count >= $2"
    same("parameters", rows(connection, query, ("video-3", 1)), [(143,)])
    same("other ones", rows(connection, query, ("nobody", 1)), [(0,)])
    status, text = refusal(connection, query, ("video-3",))
    same("too few", (status, "parameters" in text), ("INVALID_ARGUMENT", True))
    with connection.cursor() as cursor:
        cursor.adbc_prepare(query)
        cursor.execute(query, ("video-0", 1))
        first = cursor.fetchall()
        cursor.execute(query, ("video-6", 1))
        same("the same statement again", (first, cursor.fetchall()), ([(143,)], [(142,)]))


def metadata(connection):
    info = connection.adbc_get_info()
    same("who it is", info["vendor_name"], "Reckon")
    objects = connection.adbc_get_objects(depth="columns", table_name_filter="stats").read_all().to_pylist()
    tables = {table["table_name"]: {column["column_name"] for column in table["table_columns"]}
              for catalog in objects for schema in catalog["catalog_db_schemas"] or []
              for table in schema["db_schema_tables"] or []}
    same("its tables", list(tables), ["stats"])
    same("their columns", {"entity_id", "minute", "count"} <= tables.get("stats", set()), True)
    names = {table["table_name"] for catalog in connection.adbc_get_objects(depth="tables").read_all().to_pylist()
             for schema in catalog["catalog_db_schemas"] or [] for table in schema["db_schema_tables"] or []}
    same("all tables", {"stats", "stats_hour", "stats_day", "events", "dead_letters"} <= names, True)
    schema = connection.adbc_get_table_schema("stats")
    same("a table's schema", str(schema.field("entity_id").type), "string")
    same("types of tables", "TABLE" in connection.adbc_get_table_types(), True)


def older_version(server, connection):
    server.post("/v1/batch/runs", {})
    deadline = time.monotonic() + 120
    query = "select cast(sum(count) as bigint) from stats_batch"
    while rows(connection, query) != [(1_000,)] and time.monotonic() < deadline:
        time.sleep(0.2)
    version = server.post("/v1/sql", {"query": "select 1 from stats"})["provenance"]["batch_version"]
    server.send([event(5_000)])
    total = "select cast(sum(count) as bigint) from stats"
    same("now", rows(connection, total), [(1_001,)])
    with server.connect(reckon_as_of=f"version:{version}") as then:
        same("as of an older version", rows(then, total), [(1_000,)])
    with server.connect(reckon_as_of="yesterday") as wrong:
        same("as of nothing", refusal(wrong, total)[0], "INVALID_ARGUMENT")
    with server.connect(reckon_complete_only="true") as whole:
        same("whole answers only", rows(whole, total), [(1_001,)])


def refusals(connection):
    for what, query in [("no SQL", "selec 1"), ("no table", "select * from nothing"), ("writing", "drop table stats")]:
        status, text = refusal(connection, query)
        same(what, (status, "query: " in text), ("INVALID_ARGUMENT", True))
    slow = ("select count(*) from generate_series(1, 300000) a, generate_series(1, 300000) b"
            " where a.value + b.value = 7")
    same("too long", refusal(connection, slow)[0], "TIMEOUT")


def cancel(server, connection):
    cursor = connection.cursor()
    cursor.execute("select value from generate_series(1, 100000000000)")
    reader = cursor.fetch_record_batch()
    reader.read_next_batch()
    cursor.adbc_cancel()
    ended = "not"
    try:
        # A few batches may have been on their way.
        for _ in range(1_000_000):
            reader.read_next_batch()
    except StopIteration:
        ended = "as if that were all"
    except Exception:  # Whatever the driver makes of it, it is no end.
        ended = "with an error"
    same("a cancelled query ends", ended, "with an error")
    cursor.close()
    deadline = time.monotonic() + 30
    while "reckon_flight_sql_streams 0\n" not in server.text("/metrics") and time.monotonic() < deadline:
        time.sleep(0.1)
    same("nothing of it runs", "reckon_flight_sql_streams 0\n" in server.text("/metrics"), True)


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        server = Server(binary, folder, "--serving-query-time", "5s")
        try:
            server.send([event(number) for number in range(1_000)])
            with server.connect() as connection:
                queries(server, connection)
                parameters(connection)
                metadata(connection)
                older_version(server, connection)
                refusals(connection)
                cancel(server, connection)
        finally:
            server.stop()
    print(f"ADBC: {sum(CHECKED)} of {len(CHECKED)}")
    sys.exit(0 if all(CHECKED) else 1)


if __name__ == "__main__":
    main()
