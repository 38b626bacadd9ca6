"""Ten questions on each real data set, asked by the clients that people use: the same answers, equal to the facts.

    python tests/clients.py PATH/TO/reckon DATASETS_FOLDER

psql, psycopg, ADBC over Flight SQL, DuckDB over the tables, and curl over REST. Needs psycopg, adbc-driver-flightsql,
pyarrow, duckdb with pytz, and deltalake; psql and curl are left out, and that is said, where they are not installed.
"""

import datetime
import decimal
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request

import adbc_driver_flightsql.dbapi
import deltalake
import duckdb
import psycopg

# How each data set is imported, and the question that it alone can answer.
DATASETS = {
    "usagov_clicks_2013_jan_mar": (
        ["--format", "ndjson", "--entity", "g", "--time", "t:s", "--country", "c", "--type", "click",
         "--skip-if", "_heartbeat_"],
        "country, sum(count) as n from stats where country is not null group by country order by n desc, country limit 5",
        "top5_countries"),
    "gharchive_2015_01_01": (
        ["--format", "ndjson", "--entity", "repo.name", "--time", "created_at", "--id", "id", "--type-field", "type",
         "--user", "actor.login"],
        "event_type, sum(count) as n from stats group by event_type order by n desc, event_type",
        "kinds"),
    "nasa_1995_08_01": (
        ["--format", "tsv", "--entity", "url", "--time", "time:s", "--type", "view", "--user", "host"],
        "count(distinct user_id) from events", "distinct_users"),
    "apache_semicomplete_2015": (
        ["--format", "combined", "--type", "view", "--user", "client"],
        "count(distinct user_id) from events", "distinct_users"),
}
CHECKED = []


def questions(facts, own, own_fact):
    """Name, SQL, and the answer that the facts have."""
    minute = facts["chosen_minutes"][0]
    first, last = (moment.replace("T", " ").replace("Z", "+00") for moment in minute["window"])
    own_rows = facts[own_fact]
    if isinstance(own_rows, dict):
        own_rows = [[name, number] for name, number in own_rows.items()]
    if isinstance(own_rows, int):
        own_rows = [[own_rows]]
    return [
        ("events in all", "select sum(count) from stats", [[facts["events"]]]),
        ("entities", "select count(distinct entity_id) from stats", [[facts["distinct_entities"]]]),
        ("the first five entities",
         "select entity_id, sum(count) as n from stats group by entity_id order by n desc, entity_id limit 5",
         facts["top5_entities"]),
        ("each day", "select cast(minute as date) as d, sum(count) as n from stats group by 1 order by 1",
         facts["per_day"]),
        ("the busiest minutes",
         f"select minute, sum(count) as n from stats group by minute order by n desc, minute limit "
         f"{len(facts['busiest_minutes'])}", facts["busiest_minutes"]),
        ("the busiest hours",
         "select date_trunc('hour', minute) as h, sum(count) as n from stats group by 1 order by n desc, h limit "
         f"{len(facts['busiest_hours'])}", facts["busiest_hours"]),
        ("minutes with events", "select count(distinct minute) from stats", [[facts["minutes_with_events"]]]),
        ("what it alone can answer", f"select {own}", own_rows),
        ("one minute",
         f"select sum(count), count(distinct entity_id) from stats where minute >= '{first}' and minute < '{last}'",
         [[minute["events"], minute["distinct_entities"]]]),
        ("entities seen once",
         "select count(*) from (select entity_id from stats group by entity_id having sum(count) = 1) as once",
         [[facts["entities_seen_once"]]]),
    ]


def value(found):
    """A value as the facts write it."""
    if isinstance(found, decimal.Decimal):
        return int(found)
    if isinstance(found, datetime.datetime):
        return found.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(found, datetime.date):
        return found.isoformat()
    if isinstance(found, str):
        return text_value(found)
    return found


def text_value(found):
    if found.isdigit():
        return int(found)
    found = found.replace(".000000", "")
    for form in ("%Y-%m-%d %H:%M:%S%z", "%Y-%m-%dT%H:%M:%S%z"):
        try:
            padded = found + "00" if found.endswith("+00") else found
            return datetime.datetime.strptime(padded, form).strftime("%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            pass
    return found


def rows(found):
    """Rows in an order of their own, for the facts say nothing of ties."""
    return sorted(([value(column) for column in row] for row in found), key=lambda row: (str(-row[-1]), str(row)))


class Clients:
    """One of each, of a server and its data folder."""

    def __init__(self, url, listens, folder):
        self.url = url
        host, port = listens["postgres"].rsplit(":", 1)
        self.target = f"host={host} port={port} user=reckon dbname=reckon"
        self.postgres = psycopg.connect(self.target, autocommit=True)
        self.flight = adbc_driver_flightsql.dbapi.connect(f"grpc://{listens['flight_sql']}")
        self.duck = duckdb.connect()
        self.duck.execute("set timezone = 'UTC'")
        root = pathlib.Path(folder) / "tables"
        self.view("stats", root / "batch_counts", [("granularity", "=", "minute")])
        self.view("events", root / "events", None)
        self.all = {"psycopg": self.psycopg, "ADBC": self.adbc, "DuckDB": self.duckdb}
        for name, ask in (("psql", self.psql), ("curl", self.curl)):
            if shutil.which(name):
                self.all[name] = ask
            else:
                print(f"skipped: {name} is not installed")

    def view(self, name, table, partitions):
        files = [str(file) for file in deltalake.DeltaTable(str(table)).file_uris(partitions)]
        self.duck.read_parquet(files, hive_partitioning=False).create_view(name)

    def psycopg(self, query):
        return self.postgres.execute(query).fetchall()

    def psql(self, query):
        run = subprocess.run(["psql", "-X", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c", query, self.target],
                             capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise RuntimeError(run.stderr)
        return [line.split("\t") for line in run.stdout.splitlines()]

    def adbc(self, query):
        with self.flight.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    def duckdb(self, query):
        # As text: times with a zone would need one more module.
        return self.duck.execute(f"select columns(*)::varchar from ({query}) as answer").fetchall()

    def curl(self, query):
        body = json.dumps({"query": query})
        run = subprocess.run(["curl", "-sS", "-H", "content-type: application/json", "-d", body, f"{self.url}/v1/sql"],
                             capture_output=True, text=True, check=True)
        return json.loads(run.stdout)["rows"]


def same(what, found, expected):
    CHECKED.append(what)
    if found != expected:
        sys.exit(f"FAIL {what}: found {found}, expected {expected}")


def get(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)


def rest(url, facts):
    """Of the ten, those that REST has routes for."""
    top = get(f"{url}/v1/top?n=5")
    same("REST: the first five entities", rows([e["entity_id"], e["count"]] for e in top["entities"]),
         rows(facts["top5_entities"]))
    minute = facts["chosen_minutes"][0]
    for entity, count in minute["top_entities"]:
        query = f"from={minute['window'][0]}&to={minute['window'][1]}"
        name = urllib.request.quote(entity, safe="")
        same(f"REST: {entity} in a minute", get(f"{url}/v1/entities/{name}/count?{query}")["count"], count)


def ask(binary, name, datasets):
    arguments, own, own_fact = DATASETS[name]
    facts = json.loads((datasets / name / "facts.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        up = subprocess.Popen(
            [binary, "up", "--data-dir", folder, "--listen", "127.0.0.1:0", "--serving-postgres", "127.0.0.1:0",
             "--serving-flight-sql", "127.0.0.1:0", "--canary-every", "0s"], stdout=subprocess.PIPE, text=True)
        try:
            url = next(word for word in up.stdout.readline().split() if word.startswith("http://"))
            files = sorted(str(file) for file in (datasets / name / "raw").iterdir())
            for command in (["import", "--url", url, *arguments, *files], ["batch", "--url", url]):
                subprocess.run([binary, *command], check=True, capture_output=True)
            clients = Clients(url, get(f"{url}/readyz")["listens"], folder)
            for number, (what, query, expected) in enumerate(questions(facts, own, own_fact), 1):
                for client, answer in clients.all.items():
                    same(f"{name}, {client}: {what}", rows(answer(query)), rows(expected))
                print(f"ok   {name} {number:2}: {what}: {', '.join(clients.all)}: {str(rows(expected))[:70]}")
            rest(url, facts)
        finally:
            up.send_signal(signal.SIGTERM)
            up.wait(timeout=60)


def main():
    binary, datasets = str(pathlib.Path(sys.argv[1]).resolve()), pathlib.Path(sys.argv[2])
    for name in DATASETS:
        if (datasets / name / "facts.json").exists():
            ask(binary, name, datasets)
        else:
            print(f"skipped: the data set {name} is not there")
    print(f"clients: {len(CHECKED)} of {len(CHECKED)} answers equal to the facts")


if __name__ == "__main__":
    main()
