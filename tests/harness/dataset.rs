//! The real data sets beside the project, with their exact facts.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::server::{command, run_ok};

/// A data set and how it is imported.
pub struct Dataset {
    folder: PathBuf,
    pub facts: Value,
    arguments: &'static [&'static str],
}

impl Dataset {
    /// The data set of that name; none, and a line that says so, when it is not beside the project.
    pub fn find(name: &str) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/datasets").join(name);
        let Ok(text) = std::fs::read_to_string(root.join("facts.json")) else {
            eprintln!("skipped: the data set {name} is not beside the project");
            return None;
        };
        Some(Self { folder: root.join("raw"), facts: serde_json::from_str(&text).unwrap(), arguments: arguments(name) })
    }

    /// Its files, in order.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(&self.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The list of its events, a line each, as somebody else has made it.
    pub fn events(&self) -> PathBuf {
        self.folder.with_file_name("events.csv.gz")
    }

    /// The command that imports files into the server at `url`.
    pub fn import_command(&self, url: &str, files: &[PathBuf]) -> Command {
        let mut command = command();
        command.args(["import", "--json", "--url", url]).args(self.arguments).args(files);
        command
    }

    /// Imports files; what its closing table says.
    pub fn import(&self, url: &str, files: &[PathBuf]) -> Value {
        let output = run_ok(&mut self.import_command(url, files));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
    }
}

fn arguments(name: &str) -> &'static [&'static str] {
    match name {
        "usagov_clicks_2013_jan_mar" => &[
            "--format",
            "ndjson",
            "--entity",
            "g",
            "--time",
            "t:s",
            "--country",
            "c",
            "--type",
            "click",
            "--skip-if",
            "_heartbeat_",
        ],
        "gharchive_2015_01_01" => &[
            "--format",
            "ndjson",
            "--entity",
            "repo.name",
            "--time",
            "created_at",
            "--id",
            "id",
            "--type-field",
            "type",
            "--user",
            "actor.login",
        ],
        "nasa_1995_08_01" => {
            &["--format", "tsv", "--entity", "url", "--time", "time:s", "--type", "view", "--user", "host"]
        }
        "apache_semicomplete_2015" => &["--format", "combined", "--type", "view"],
        _ => panic!("nobody knows how to import {name}"),
    }
}
