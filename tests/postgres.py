"""psql, psycopg and JDBC, against a server of its own: the same numbers over every way that they ask.

    python tests/postgres.py PATH/TO/reckon

Needs psycopg; psql, and a JDK with a driver (RECKON_TEST_PGJDBC names its jar), are used where they are there.
"""

import datetime
import decimal
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import psycopg

CHECKED = []


def check(what, found, expected):
    CHECKED.append(found == expected)
    print(f"{'ok  ' if found == expected else 'FAIL'} {what}: {found if found != expected else ''}")
    if found != expected:
        print(f"     expected {expected}")


def start(binary, folder):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECKON_")}
    environment |= {"RECKON_SERVING_POSTGRES": "127.0.0.1:0", "RECKON_CANARY_EVERY": "0s"}
    server = subprocess.Popen([binary, "up", "--listen", "127.0.0.1:0", "--data-dir", folder], env=environment,
                              stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if found := re.search(r"http://\S+", line):
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return server, found.group(0)
    sys.exit("the server ended before it listened")


def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def post(url, body):
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as answer:
        return json.load(answer)


def load(url):
    events = [{"event_id": str(n), "event_type": "view", "entity_id": f"video-{n % 97}", "value": f"{n % 7}.25",
               "event_time": f"2013-02-{8 + n % 3:02d}T21:{n % 60:02d}:00Z"} for n in range(5_000)]
    post(f"{url}/v1/events", events)
    for _ in range(600):
        if get(f"{url}/readyz")["lag_records"] == 0:
            return
        time.sleep(0.1)
    sys.exit("the events were not counted within a minute")


def with_psycopg(url, where):
    query = "select entity_id, minute, count, sum from stats order by entity_id, minute limit 500"
    rest = [(entity, datetime.datetime.fromisoformat(minute), int(count), decimal.Decimal(total))
            for entity, minute, count, total in post(f"{url}/v1/sql", {"query": query})["rows"]]
    with psycopg.connect(where, autocommit=True) as connection:
        for binary in (False, True):
            with connection.cursor(binary=binary) as cursor:
                check(f"rows, binary={binary}", cursor.execute(query).fetchall(), rest)
                asked = "select sum(count)::bigint from stats where entity_id = %s and minute < %s and count >= %s"
                until = datetime.datetime(2013, 2, 9, tzinfo=datetime.timezone.utc)
                expected = post(f"{url}/v1/sql", {"query": "select sum(count) from stats where entity_id = 'video-7' "
                                                  "and minute < '2013-02-09T00:00:00Z'"})["rows"][0][0]
                found = cursor.execute(asked, ("video-7", until, 1)).fetchone()[0]
                check(f"parameters, binary={binary}", found, int(expected))
                check(f"a parameter as a column, binary={binary}",
                      cursor.execute("select %s, %s", (7, "seven")).fetchone(), (7, "seven"))
                lists = cursor.execute("select count(distinct entity_id) from stats where entity_id = any(%s)",
                                       (["video-1", "video-2", "nothing"],))
                check(f"a list, binary={binary}", lists.fetchone()[0], 2)
    with psycopg.connect(where) as connection:
        for binary in (False, True):
            with connection.cursor("of server", binary=binary) as cursor:
                cursor.itersize = 100
                cursor.execute(query)
                check(f"a cursor of the server, binary={binary}", list(cursor), rest)
        with connection.cursor() as cursor:
            try:
                cursor.execute("select * from nothing")
                check("an unknown table", "an answer", "an error")
            except psycopg.errors.UndefinedTable:
                check("an unknown table", 1, 1)
            try:
                cursor.execute("select 1")
                check("a failed transaction", "an answer", "an error")
            except psycopg.errors.InFailedSqlTransaction:
                check("a failed transaction", 1, 1)
        connection.rollback()
        with connection.cursor() as cursor, cursor.copy("copy (select entity_id, count from stats limit 10) to stdout") as copy:
            check("rows copied", len(list(copy.rows())), 10)
        for _ in range(7):
            # From the sixth on prepared.
            check("prepared", connection.execute("select count(*) from stats where count > %s", (0,)).fetchone()[0] > 0, True)


def with_psql(where):
    def psql(*commands, ok=True):
        arguments = [argument for command in commands for argument in ("-c", command)]
        run = subprocess.run(["psql", where, "-X", "-v", "ON_ERROR_STOP=1", *arguments], capture_output=True,
                             text=True, check=False, timeout=120)
        check(f"psql {' '.join(commands)} ends well", (run.returncode == 0) == ok or run.stderr, True)
        return run.stdout

    check("\\dt names stats", "stats" in psql("\\dt"), True)
    check("\\d stats names its columns", "entity_id" in psql("\\d stats"), True)
    for command in ("\\d", "\\dn", "\\l", "\\df", "\\du"):
        psql(command)
    check("\\x", "-[ RECORD 1 ]" in psql("\\x", "select count(*) from stats"), True)
    lines = psql("\\copy (select entity_id, count from stats limit 5) to stdout csv header").strip().splitlines()
    check("\\copy", len(lines), 6)
    psql("select * from nothing", ok=False)
    endless = "select count(*) from generate_series(1, 300000) a, generate_series(1, 300000) b where a.value + b.value = 7"
    began = time.monotonic()
    run = subprocess.Popen(["psql", where, "-X", "-c", endless], stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    told = run.communicate(timeout=30)[1]
    check("Ctrl-C ends a query", "canceling statement" in told and time.monotonic() - began < 30, True)


JDBC = """
import java.sql.*;
import java.util.concurrent.Callable;
public class Ask {
  static int rows(ResultSet rows) throws SQLException { int n = 0; while (rows.next()) n++; return n; }
  static void check(String what, Callable<Boolean> asked) {
    try { System.out.println(what + " " + asked.call()); }
    catch (Exception e) { System.out.println(what + " failed: " + e.getMessage()); }
  }
  public static void main(String[] args) throws Exception {
    try (Connection c = DriverManager.getConnection(args[0], "reckon", "any")) {
      DatabaseMetaData m = c.getMetaData();
      check("tables", () -> rows(m.getTables(null, "public", "stats", null)) == 1);
      check("tables of a kind", () -> rows(m.getTables(null, null, "%", new String[] {"TABLE"})) > 5);
      check("columns", () -> rows(m.getColumns(null, "public", "stats", null)) > 5);
      // Before all types are known: it writes each of them into its question, which gets longer than a query may be.
      check("own types", () -> rows(m.getUDTs(null, null, "%", null)) == 0);
      check("types", () -> rows(m.getTypeInfo()) > 10);
      check("keys", () -> rows(m.getPrimaryKeys(null, "public", "stats")) == 0);
      check("schemas", () -> rows(m.getSchemas()) == 3);
      check("a schema", () -> rows(m.getSchemas(null, "pub%")) == 1);
      check("catalogs", () -> { ResultSet r = m.getCatalogs(); return r.next() && r.getString(1).equals("reckon"); });
      check("indexes", () -> rows(m.getIndexInfo(null, "public", "stats", false, true)) == 0);
      check("imported keys", () -> rows(m.getImportedKeys(null, "public", "stats")) == 0);
      check("exported keys", () -> rows(m.getExportedKeys(null, "public", "stats")) == 0);
      check("kinds of tables", () -> rows(m.getTableTypes()) > 5);
      check("procedures", () -> rows(m.getProcedures(null, null, "%")) == 0);
      check("functions", () -> rows(m.getFunctions(null, null, "abs")) > 1);
      check("a function's columns", () -> rows(m.getFunctionColumns(null, null, "abs", null)) > 1);
      check("privileges", () -> rows(m.getTablePrivileges(null, "public", "stats")) == 0);
      check("privileges of columns", () -> rows(m.getColumnPrivileges(null, "public", "stats", "%")) == 0);
      check("a row's identifier", () -> rows(m.getBestRowIdentifier(null, "public", "stats", 2, true)) == 0);
      check("version columns", () -> rows(m.getVersionColumns(null, "public", "stats")) == 1);
      check("what a client says of itself", () -> rows(m.getClientInfoProperties()) > 0);
      check("columns of an index", () -> m.getMaxColumnsInIndex() == 32);
      check("the longest name", () -> m.getMaxTableNameLength() == 63);
      check("prepared", () -> {
        PreparedStatement s = c.prepareStatement("select count(*) from stats where entity_id = ? and count >= ?");
        long first = 0;
        // From the fifth on with a name, and in binary.
        for (int n = 0; n < 8; n++) {
          s.setString(1, "video-1");
          s.setLong(2, 1);
          ResultSet r = s.executeQuery();
          r.next();
          if (n == 0) first = r.getLong(1);
          if (r.getLong(1) != first || r.next()) return false;
        }
        return first > 0;
      });
      check("columns of a prepared statement", () -> {
        ResultSetMetaData d = c.prepareStatement("select entity_id, count, sum from stats where count > ?").getMetaData();
        return d.getColumnCount() == 3 && d.getColumnTypeName(2).equals("int8") && d.getColumnName(3).equals("sum");
      });
      check("fetched some at a time", () -> {
        ResultSet all = c.createStatement().executeQuery("select count(*) from stats");
        all.next();
        c.setAutoCommit(false);
        Statement s = c.createStatement();
        s.setFetchSize(100);
        boolean is = rows(s.executeQuery("select entity_id, minute, sum from stats")) == all.getInt(1);
        c.rollback();
        return is;
      });
    }
  }
}
"""


def with_jdbc(where, jar):
    with tempfile.TemporaryDirectory() as folder:
        source = pathlib.Path(folder) / "Ask.java"
        source.write_text(JDBC)
        run = subprocess.run(["java", "-cp", jar, str(source), where], capture_output=True, text=True, check=False,
                             timeout=300)
        lines = run.stdout.splitlines()
        # Each says what it asked, and whether that is so or why it failed.
        for line in lines:
            what, _, found = line.partition(" failed: ") if " failed: " in line else line.rpartition(" ")
            check(f"JDBC: {what}", found, "true")
        check("JDBC asked everything", len(lines) if run.returncode == 0 else run.stderr, JDBC.count("      check("))


def main():
    with tempfile.TemporaryDirectory() as folder:
        server, url = start(str(pathlib.Path(sys.argv[1]).resolve()), folder)
        try:
            load(url)
            host, port = get(f"{url}/readyz")["listens"]["postgres"].rsplit(":", 1)
            where = f"host={host} port={port} user=reckon dbname=reckon"
            with_psycopg(url, where)
            if shutil.which("psql"):
                with_psql(where)
            else:
                print("skipped: psql is not installed")
            jar = os.environ.get("RECKON_TEST_PGJDBC")
            # A file of Java is run by a java that compiles.
            if jar and shutil.which("java") and shutil.which("javac"):
                with_jdbc(f"jdbc:postgresql://{host}:{port}/reckon", jar)
            else:
                print("skipped: JDBC, for there is no JDK (java, javac), or RECKON_TEST_PGJDBC names no driver")
        finally:
            server.terminate()
            server.wait(timeout=30)
    print(f"PostgreSQL clients: {sum(CHECKED)} of {len(CHECKED)}")
    sys.exit(0 if all(CHECKED) else 1)


if __name__ == "__main__":
    main()
