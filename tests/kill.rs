//! kill -9 at many moments of an import: nothing acknowledged is lost, nothing counts twice.

use std::process::Stdio;
use std::time::Duration;

use crate::harness::{Dataset, Server, number, total};

/// Without a kill in the middle of an import, these tests would show nothing.
fn assert_some_in_the_middle(totals: &[u64], events: u64) {
    let middle = totals.iter().filter(|&&total| 0 < total && total < events).count();
    assert!(middle > 0, "no kill hit the middle of the import of {events} events: {totals:?}");
}

/// Kills the server after `moment` of an import, restarts it, and runs the import to its end; how many events
/// there were after the restart.
fn kill_server_after(data: &Dataset, moment: Duration) -> u64 {
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
    let after_restart = total(&server);
    data.import(server.url(), &data.files());
    let events = number(&data.facts["events"]);
    assert_eq!(total(&server), events, "killed after {moment:?}");
    server.batch();
    assert_eq!(total(&server), events, "killed after {moment:?}, after batch");
    after_restart
}

#[test]
fn the_server_killed_at_ten_moments_of_an_import() {
    let Some(data) = Dataset::find("usagov_clicks_2013_jan_mar") else { return };
    let moments = [5, 60, 120, 200, 300, 420, 560, 720, 900, 1_200].map(Duration::from_millis);
    let totals = moments.map(|moment| kill_server_after(&data, moment));
    assert_some_in_the_middle(&totals, number(&data.facts["events"]));
}

#[test]
fn the_importer_killed_goes_on_where_it_was() {
    let Some(data) = Dataset::find("usagov_clicks_2013_jan_mar") else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut totals = Vec::new();
    for moment in [30, 90, 180, 300] {
        let mut import = data.import_command(server.url(), &data.files());
        let mut child = import.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(moment));
        child.kill().unwrap();
        child.wait().unwrap();
        totals.push(total(&server));
    }
    assert_some_in_the_middle(&totals, number(&data.facts["events"]));
    data.import(server.url(), &data.files());
    assert_eq!(total(&server), number(&data.facts["events"]));
}
