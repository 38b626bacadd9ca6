//! Asking for audits: on the command line and over REST.

use std::path::Path;
use std::process::{Command, Output};

use reckon_audit::report::model::Report;
use serde_json::{Value, json};

use crate::harness::{Server, command, data_at};

/// What `reckon audit` ends with.
pub const BALANCED: i32 = 0;
/// There are findings.
pub const FINDINGS: i32 = 1;
/// It could not run.
pub const NOT_RUN: i32 = 2;

/// `reckon audit`, asking a server.
pub fn audit_of(server: &Server) -> Command {
    let mut command = command();
    command.args(["audit", "--url", server.url()]);
    command
}

/// `reckon audit` of a folder, whether a server runs on it or not.
pub fn audit_in(dir: &Path) -> Command {
    let mut command = command();
    data_at(command.arg("audit"), dir);
    command
}

/// Runs an audit that must end with this code.
pub fn ends_with(command: &mut Command, code: i32) -> Output {
    let output = command.output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(code),
        "{command:?}\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Its report, when it must end with this code.
pub fn report(command: &mut Command, code: i32) -> Report {
    let output = ends_with(command.arg("--json"), code);
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("no report: {error}: {}", String::from_utf8_lossy(&output.stdout)))
}

/// Starts an audit over REST: its id, or none when another one is going on.
pub fn start(server: &Server) -> Option<String> {
    let (status, run) = server.post("/v1/audit/runs", &json!({"dates": [], "repair": false}));
    match status {
        202 => Some(run["id"].as_str().unwrap().to_owned()),
        409 => {
            assert_eq!((&run["status"], run["title"].is_string()), (&json!(409), true), "{run}");
            None
        }
        _ => panic!("{status}: {run}"),
    }
}

/// Waits until an audit has ended, which must have succeeded; its report.
pub fn ended(server: &Server, id: &str) -> Value {
    let run = || server.get(&format!("/v1/audit/runs/{id}"));
    server.wait_until("the audit has ended", || run()["state"] != "running");
    let run = run();
    assert_eq!(run["state"], "succeeded", "{run}");
    run["report"].clone()
}

/// The rows of all tables of a page, as the texts of their cells.
pub fn rows_of_page(page: &str) -> Vec<Vec<String>> {
    let rows = page.lines().filter(|line| line.starts_with("<tr>"));
    let cells = |row: &str| {
        let cells = row.split("<bdi>").skip(1);
        cells.map(|cell| cell.split("</bdi>").next().unwrap_or_default().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// A number as people read it: `12,345`.
pub fn thousands(number: u64) -> String {
    let (rest, last) = (number / 1_000, number % 1_000);
    if rest == 0 { last.to_string() } else { format!("{},{last:03}", thousands(rest)) }
}
