//! kill -9 at many moments of an import: nothing acknowledged is lost, nothing counts twice.

use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Dataset, Server, number, rows};

fn total(server: &Server) -> u64 {
    server.wait_counted();
    number(&rows(&server.sql("select coalesce(sum(count), 0) from stats"))[0][0])
}

/// Kills the server after `moment` of an import, restarts it, and runs the import to its end.
fn kill_server_after(data: &Dataset, moment: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &["--stream-seal-every", "200ms", "--archive-commit-every", "300ms"]);
    let mut import = data.import_command(server.url(), &data.files());
    let mut child = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    let path = server.kill();
    // The importer would try again for a while; it is killed as well.
    child.kill().unwrap();
    child.wait().unwrap();
    let server = Server::start(&path);
    data.import(server.url(), &data.files());
    let events = number(&data.facts["events"]);
    assert_eq!(total(&server), events, "killed after {moment:?}");
    server.batch();
    assert_eq!(total(&server), events, "killed after {moment:?}, after batch");
}

#[test]
fn the_server_killed_at_ten_moments_of_an_import() {
    let Some(data) = Dataset::find("usagov_clicks_2013_jan_mar") else { return };
    for moment in [5, 60, 120, 200, 300, 420, 560, 720, 900, 1_200] {
        kill_server_after(&data, Duration::from_millis(moment));
    }
}

#[test]
fn the_importer_killed_goes_on_where_it_was() {
    let Some(data) = Dataset::find("usagov_clicks_2013_jan_mar") else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for moment in [30, 90, 180, 300] {
        let mut import = data.import_command(server.url(), &data.files());
        let mut child = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(moment));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    data.import(server.url(), &data.files());
    assert_eq!(total(&server), number(&data.facts["events"]));
}
