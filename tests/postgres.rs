//! The PostgreSQL protocol, by a client that others use: the numbers of REST, typed, as they stood, and cancelled.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use serde_json::json;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::harness::{RUNTIME, Server, number, rows};

fn event(id: u32, entity: &str, time: &str, value: &str) -> serde_json::Value {
    json!({"event_id": id.to_string(), "event_type": "view", "entity_id": entity, "event_time": time, "value": value})
}

fn loaded(arguments: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), arguments);
    let events = json!([
        event(1, "a", "2013-02-08T21:29:10Z", "0.1"),
        event(2, "a", "2013-02-08T21:29:20Z", "0.2"),
        event(3, "a", "2013-02-08T22:00:00Z", "-1"),
        event(4, "b", "2013-02-09T00:00:00Z", "5"),
    ]);
    let (status, receipt) = server.post("/v1/events", &events);
    assert_eq!(status, 200, "{receipt}");
    server.wait_counted();
    (dir, server)
}

fn config(address: SocketAddr) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port()).user("reckon").dbname("reckon");
    config
}

/// A client, and the notices that come to it.
async fn connect(address: SocketAddr) -> (Client, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (client, mut connection) = config(address).connect(NoTls).await.unwrap();
    let (tell, notices) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures::stream::poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = tell.send(format!("{} {}", notice.severity(), notice.message()));
            }
        }
    });
    (client, notices)
}

/// The texts of the rows that a statement of the simple protocol gives.
async fn texts(client: &Client, query: &str) -> Vec<Vec<Option<String>>> {
    let messages = client.simple_query(query).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

async fn text(client: &Client, query: &str) -> String {
    texts(client, query).await[0][0].clone().unwrap()
}

async fn code(client: &Client, query: &str) -> SqlState {
    let error = client.simple_query(query).await.unwrap_err();
    error.code().unwrap_or_else(|| panic!("{query}: {error:?}")).clone()
}

#[test]
fn numbers_are_those_of_rest_in_text_and_in_types() {
    let (_dir, server) = loaded(&[]);
    let query = "select entity_id, minute, count, sum from stats order by entity_id, minute";
    let rest = rows(&server.sql(query));
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, _notices) = connect(address).await;
        let found = texts(&client, query).await;
        assert_eq!(found.len(), rest.len());
        for (found, rest) in found.iter().zip(&rest) {
            assert_eq!(found[0].as_deref(), rest[0].as_str());
            assert_eq!(found[2].as_deref().unwrap().parse::<u64>().unwrap(), number(&rest[2]));
            let (exact, written) = (found[3].as_deref().unwrap(), rest[3].as_str().unwrap());
            assert_eq!(exact.trim_end_matches('0').trim_end_matches('.'), written, "{found:?}");
        }
        assert!(found[0][1].as_deref().unwrap().starts_with("2013-02-08 21:29:00"), "{found:?}");
        let statement = client.prepare(query).await.unwrap();
        let types: Vec<&Type> = statement.columns().iter().map(tokio_postgres::Column::type_).collect();
        assert_eq!(types, [&Type::TEXT, &Type::TIMESTAMPTZ, &Type::INT8, &Type::NUMERIC]);
        let typed = client.query(&statement, &[]).await.unwrap();
        assert_eq!((typed[0].get::<_, &str>(0), typed[0].get::<_, i64>(2)), ("a", 2));
        let at: std::time::SystemTime = typed[0].get(1);
        assert_eq!(at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 1_360_358_940);
    });
}

#[test]
fn parameters_are_what_they_are() {
    let (_dir, server) = loaded(&[]);
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, _notices) = connect(address).await;
        let query = "select sum(count)::bigint from stats where entity_id = $1 and count >= $2";
        for (entity, least, expected) in
            [("a", 1_i64, Some(3_i64)), ("a", 2, Some(2)), ("a", 3, None), ("' or 1=1", 0, None)]
        {
            let row = client.query_one(query, &[&entity, &least]).await.unwrap();
            assert_eq!(row.get::<_, Option<i64>>(0), expected, "{entity} {least}");
        }
        let typed = client.prepare_typed("select $1", &[Type::BYTEA]).await.unwrap();
        let row = client.query_one(&typed, &[&&[0_u8, 255][..]]).await.unwrap();
        assert_eq!(row.get::<_, &[u8]>(0), [0, 255]);
        let refused = client.query("select count from stats limit $1", &[&"three"]).await;
        assert!(refused.is_err(), "a text is no number");
    });
}

#[test]
fn cursors_and_portals_give_all_rows_in_pieces() {
    let (_dir, server) = loaded(&[]);
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (mut client, _notices) = connect(address).await;
        let transaction = client.transaction().await.unwrap();
        let portal = transaction.bind("select value from generate_series(1, 25000) as t(value)", &[]).await.unwrap();
        let (mut sum, mut pieces) = (0, 0);
        loop {
            let piece = transaction.query_portal(&portal, 7_000).await.unwrap();
            if piece.is_empty() {
                break;
            }
            pieces += 1;
            sum += piece.iter().map(|row| row.get::<_, i64>(0)).sum::<i64>();
        }
        assert_eq!((pieces, sum), (4, 25_000 * 25_001 / 2));
        transaction.rollback().await.unwrap();
        assert_eq!(code(&client, "declare c cursor for select 1").await.code(), "25P01");
        client
            .simple_query("begin; declare c cursor for select * from generate_series(1, 10) as t(value)")
            .await
            .unwrap();
        assert_eq!(texts(&client, "fetch 3 from c").await.len(), 3);
        assert_eq!(texts(&client, "move 2 from c; fetch next from c").await, [[Some("6".to_owned())]]);
        assert_eq!(texts(&client, "fetch all from c").await.len(), 4);
        client.simple_query("close c").await.unwrap();
        assert_eq!(code(&client, "fetch 1 from c").await.code(), "34000");
        assert_eq!(code(&client, "select 1").await, SqlState::IN_FAILED_SQL_TRANSACTION);
        client.simple_query("rollback").await.unwrap();
        assert_eq!(text(&client, "select 1").await, "1");
    });
}

/// Of a server that lacks minutes of `stats`: every way to ask for them is told so, before the first row.
pub fn tells_what_is_missing(server: &Server) {
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, mut notices) = connect(address).await;
        let query = "select sum(count) from stats";
        let cursor = format!("begin; declare c cursor for {query}; fetch all from c; commit");
        let copy = format!("copy ({query}) to stdout");
        client.simple_query(query).await.unwrap();
        client.simple_query(&cursor).await.unwrap();
        client.query(query, &[]).await.unwrap();
        let mut copied = Box::pin(client.copy_out(copy.as_str()).await.unwrap());
        while copied.next().await.transpose().unwrap().is_some() {}
        for way in ["simple", "cursor", "prepared", "copy"] {
            let notice = notices.recv().await.unwrap();
            assert!(notice.starts_with("WARNING the answer is incomplete"), "{way}: {notice}");
        }
        let provenance = text(&client, "show reckon.provenance").await;
        assert!(provenance.contains("\"complete\":false"), "{provenance}");
        client.simple_query("select sum(count) from stats_hour").await.unwrap();
        assert!(notices.try_recv().is_err(), "hours are whole");
    });
}

/// What clients ask of the catalogue is read in PostgreSQL's dialect, where each argument is read twice.
#[test]
fn functions_within_functions_are_read_to_their_end() {
    let (_dir, server) = loaded(&[]);
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, _notices) = connect(address).await;
        let query = format!("select {}'a'{} where version() <> ''", "upper(".repeat(30), ")".repeat(30));
        assert_eq!(text(&client, &query).await, "A");
    });
}

#[test]
fn a_cursor_that_has_failed_gives_no_rest() {
    let (_dir, server) = loaded(&[]);
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, _notices) = connect(address).await;
        let broken = "for select 10 / (5 - value) from generate_series(1, 10) as t(value)";
        client.simple_query(&format!("declare c cursor with hold {broken}")).await.unwrap();
        assert_eq!(code(&client, "fetch 20 from c").await.code(), "22012");
        for again in ["fetch 20 from c", "fetch all from c", "move 1 from c"] {
            assert_eq!(code(&client, again).await.code(), "55000", "{again}: no rows would pass for the end");
        }
        client.simple_query("close c").await.unwrap();
        client.simple_query(&format!("begin; declare c cursor {broken}; savepoint s")).await.unwrap();
        assert_eq!(code(&client, "move all from c").await.code(), "22012");
        client.simple_query("rollback to savepoint s").await.unwrap();
        assert_eq!(code(&client, "fetch 1 from c").await.code(), "55000");
        client.simple_query("rollback").await.unwrap();
        // One that a client has stopped reading on the way, too.
        let all = "declare c cursor with hold for select value from generate_series(1, 1000000000) as t(value)";
        client.simple_query(all).await.unwrap();
        assert_eq!(texts(&client, "fetch 2 from c").await.len(), 2);
        client.simple_query("set statement_timeout = '300ms'").await.unwrap();
        assert_eq!(code(&client, "move all from c").await, SqlState::QUERY_CANCELED);
        client.simple_query("reset statement_timeout").await.unwrap();
        assert_eq!(code(&client, "fetch 1 from c").await.code(), "55000");
        // And one whose rows were on their way: nobody knows how many of them have come.
        client.simple_query("close c").await.unwrap();
        client.simple_query(all).await.unwrap();
        client.simple_query("set statement_timeout = '300ms'").await.unwrap();
        assert_eq!(code(&client, "fetch all from c").await, SqlState::QUERY_CANCELED);
        client.simple_query("reset statement_timeout").await.unwrap();
        assert_eq!(code(&client, "fetch 1 from c").await.code(), "55000");
    });
}

const ENDLESS: &str =
    "select count(*) from generate_series(1, 300000) a, generate_series(1, 300000) b where a.value + b.value = 7";

#[test]
fn a_cancel_and_the_statements_time_end_what_runs() {
    let (_dir, server) = loaded(&[]);
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, _notices) = connect(address).await;
        let cancel = client.cancel_token();
        let start = Instant::now();
        let later = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel_query(NoTls).await.unwrap();
        });
        assert_eq!(code(&client, ENDLESS).await, SqlState::QUERY_CANCELED);
        later.await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        client.simple_query("set statement_timeout = '300ms'").await.unwrap();
        let start = Instant::now();
        assert_eq!(code(&client, ENDLESS).await, SqlState::QUERY_CANCELED);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        client.simple_query("reset statement_timeout").await.unwrap();
        // Its rows are cancelled, too, when they are on their way already.
        let cancel = client.cancel_token();
        let rows = client.query_raw::<_, i64, _>("select value from generate_series(1, 1000000000) as t(value)", []);
        let mut rows = Box::pin(rows.await.unwrap());
        rows.next().await.unwrap().unwrap();
        cancel.cancel_query(NoTls).await.unwrap();
        let ended = loop {
            match rows.next().await {
                Some(Ok(_)) => {}
                other => break other.unwrap().unwrap_err(),
            }
        };
        assert_eq!(ended.code(), Some(&SqlState::QUERY_CANCELED));
        assert_eq!(text(&client, "select 1").await, "1", "the connection goes on");
    });
}

#[test]
fn what_is_wrong_has_its_code() {
    let (_dir, server) = loaded(&[]);
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, _notices) = connect(address).await;
        for (query, expected) in [
            ("selec 1", "42601"),
            ("select * from nothing", "42P01"),
            ("select nothing from stats", "42703"),
            ("select nothing(1)", "42883"),
            ("drop table stats", "25006"),
            ("insert into stats values (1)", "25006"),
            ("copy stats from stdin", "25006"),
            ("listen changes", "0A000"),
            ("set client_encoding = 'latin1'", "22023"),
            ("set reckon.as_of = 'yesterday'", "22023"),
            ("deallocate nothing", "26000"),
            ("show nothing", "42704"),
        ] {
            assert_eq!(code(&client, query).await.code(), expected, "{query}");
        }
        let both = client.prepare("select 1; select 2").await.unwrap_err();
        assert_eq!(both.code(), Some(&SqlState::SYNTAX_ERROR));
    });
    let metrics = server.get("/metrics").to_string();
    for name in ["reckon_postgres_connections", "reckon_postgres_statements_total", "reckon_postgres_errors_total"] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[test]
fn an_older_version_and_the_provenance_can_be_asked() {
    let (_dir, server) = loaded(&[]);
    server.batch();
    let version = server.sql("select 1 from stats")["provenance"]["batch_version"].clone();
    assert_eq!(server.post("/v1/events", &event(5, "b", "2013-02-08T21:29:30Z", "1")).0, 200);
    server.wait_counted();
    server.batch();
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, _notices) = connect(address).await;
        let query = "select sum(count) from stats";
        assert_eq!(text(&client, query).await, "5");
        client.simple_query(&format!("set reckon.as_of = 'version:{version}'")).await.unwrap();
        assert_eq!(text(&client, "show reckon.as_of").await, format!("version:{version}"));
        assert_eq!(text(&client, query).await, "4");
        let provenance: serde_json::Value =
            serde_json::from_str(&text(&client, "show reckon.provenance").await).unwrap();
        assert_eq!((&provenance["as_of"]["version"], &provenance["complete"]), (&version, &json!(true)));
        assert_eq!(code(&client, "select count(*) from events").await.code(), "22023");
        client.simple_query("reset reckon.as_of").await.unwrap();
        assert_eq!(text(&client, query).await, "5");
        for (local, end, after) in [("local", "commit", "5"), ("", "rollback", "5"), ("", "commit", "4")] {
            client.simple_query(&format!("begin; set {local} reckon.as_of = 'version:{version}'")).await.unwrap();
            assert_eq!(text(&client, query).await, "4");
            client.simple_query(end).await.unwrap();
            assert_eq!(text(&client, query).await, after, "{local} {end}");
        }
        let mut began = config(address);
        began.options(format!("-c reckon.as_of=version:{version}"));
        let (client, connection) = began.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client.simple_query("set reckon.as_of = 'version:0'; discard all").await.unwrap();
        assert_eq!(text(&client, query).await, "4", "as it began");
    });
}

#[test]
fn clients_find_what_they_begin_with() {
    let (_dir, server) = loaded(&[]);
    let described = rows(&server.sql(
        "select column_name from information_schema.columns where table_name = 'stats' order by ordinal_position",
    ));
    let described: Vec<Option<String>> = described.iter().map(|row| row[0].as_str().map(str::to_owned)).collect();
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, mut notices) = connect(address).await;
        assert!(text(&client, "select version()").await.starts_with("PostgreSQL 16"));
        assert_eq!(text(&client, "select current_database()").await, "reckon");
        assert_eq!(text(&client, "show server_version_num").await, "160006");
        let columns = "select a.attname from pg_catalog.pg_attribute a join pg_catalog.pg_class c on a.attrelid = c.oid \
                       where c.relname = 'stats' and a.attnum > 0 order by a.attnum";
        let names: Vec<Option<String>> = texts(&client, columns).await.into_iter().flatten().collect();
        assert_eq!(names, described);
        client.simple_query("set timezone = 'Europe/Berlin'").await.unwrap();
        let notice = notices.recv().await.unwrap();
        assert!(notice.starts_with("WARNING") && notice.contains("UTC"), "{notice}");
        client.simple_query("discard all").await.unwrap();
        assert_eq!(text(&client, "show timezone").await, "UTC");
    });
}

#[test]
fn there_is_room_for_so_many_and_for_cancels_besides() {
    let (_dir, server) = loaded(&["--serving-postgres-connections", "1"]);
    let address = server.postgres();
    RUNTIME.block_on(async {
        let (client, _notices) = connect(address).await;
        let refused = config(address).connect(NoTls).await.err().unwrap();
        assert_eq!(refused.code(), Some(&SqlState::TOO_MANY_CONNECTIONS), "{refused:?}");
        let cancel = client.cancel_token();
        let later = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cancel.cancel_query(NoTls).await.unwrap();
        });
        assert_eq!(code(&client, ENDLESS).await, SqlState::QUERY_CANCELED);
        later.await.unwrap();
        drop(client);
        let start = Instant::now();
        while config(address).connect(NoTls).await.is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "the place stays taken");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let took = server.terminate();
    assert!(took.as_secs() < 10, "{took:?}");
}
