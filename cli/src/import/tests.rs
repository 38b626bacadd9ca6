//! Imports into a sink that only remembers: what is sent, and what is known of a file afterwards.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser;
use reckon_data::dead::DeadLetter;
use reckon_data::imports::ImportEntry;
use reckon_data::receipt::Receipt;
use serde_json::Value;

use super::stop::Stop;
use super::{MappingArgs, Report, Sink, Totals, run_until};

/// What a sink was given, and what it does about it.
#[derive(Default)]
struct Given {
    /// Ids of events, and the lines they stand in.
    events: Vec<(String, u64)>,
    letters: Vec<DeadLetter>,
    entries: Vec<ImportEntry>,
    finds: u32,
    sends: u32,
}

/// Done before each send.
type Before = Box<dyn Fn(u32) -> Result<()> + Send + Sync>;

#[derive(Default)]
struct Memory {
    given: Mutex<Given>,
    before: Option<Before>,
}

#[async_trait]
impl Sink for Memory {
    async fn send(&self, body: Bytes, _: &str, _: &str, first_line: u64) -> Result<Receipt> {
        let mut given = self.given.lock().unwrap();
        given.sends += 1;
        if let Some(before) = &self.before {
            before(given.sends)?;
        }
        let mut receipt = Receipt::default();
        for (line, json) in (first_line..).zip(body.split(|byte| *byte == b'\n')).filter(|(_, json)| !json.is_empty()) {
            let event: Value = serde_json::from_slice(json)?;
            given.events.push((event["event_id"].as_str().unwrap().to_owned(), line));
            receipt.accepted += 1;
        }
        Ok(receipt)
    }

    async fn bury(&self, letters: Vec<DeadLetter>) -> Result<()> {
        self.given.lock().unwrap().letters.extend(letters);
        Ok(())
    }

    async fn find(&self, _: &str) -> Result<Vec<ImportEntry>> {
        let mut given = self.given.lock().unwrap();
        given.finds += 1;
        Ok(given.entries.clone())
    }

    async fn record(&self, entry: &ImportEntry) -> Result<()> {
        self.given.lock().unwrap().entries.push(entry.clone());
        Ok(())
    }

    async fn totals(&self) -> Result<Option<Totals>> {
        Ok(None)
    }
}

impl Memory {
    fn failing(before: impl Fn(u32) -> Result<()> + Send + Sync + 'static) -> Self {
        Self { before: Some(Box::new(before)), ..Self::default() }
    }

    /// The same server, which does no more than it should.
    fn mended(self) -> Self {
        Self { given: self.given, before: None }
    }

    /// How many events there are, and how many of them are different ones.
    fn events(&self) -> (usize, usize) {
        let given = self.given.lock().unwrap();
        (given.events.len(), given.events.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len())
    }
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    mapping: MappingArgs,
}

async fn import(sink: &Memory, files: &[PathBuf], options: &str, stop: &Stop) -> Result<Report> {
    let options = Options::parse_from(["import"].into_iter().chain(options.split(' ')));
    run_until(sink, &options.mapping.mapping()?, files, true, stop).await
}

const NDJSON: &str = "--format ndjson --entity v --time t:s";
const BY_LINE: &str = "--format ndjson --entity v --time t:s --id-from line";
const CSV: &str = "--format csv --entity what --time when:s";

async fn one(sink: &Memory, file: &Path, options: &str) -> Result<Report> {
    import(sink, &[file.to_owned()], options, &Stop::default()).await
}

fn file(dir: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("clicks");
    std::fs::write(&path, text).unwrap();
    path
}

fn append(path: &Path, text: &str) {
    std::fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// Lines of about 3 MiB, which are sent in several bodies.
fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{{\"v\":\"video-{n}\",\"t\":1360358940,\"x\":\"{}\"}}\n", "x".repeat(60))).collect()
}

const MANY: u32 = 40_000;

#[tokio::test]
async fn what_is_appended_while_a_file_is_imported_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, &lines(0..MANY));
    let grows = path.clone();
    let sink = Memory::failing(move |send| {
        if send == 1 {
            append(&grows, &lines(MANY..MANY + 7));
        }
        Ok(())
    });
    one(&sink, &path, NDJSON).await.unwrap();
    assert_eq!(sink.events(), (MANY as usize, MANY as usize), "what was surveyed");
    one(&sink, &path, NDJSON).await.unwrap();
    assert_eq!(sink.events(), (MANY as usize + 7, MANY as usize + 7));
    assert_eq!(one(&sink, &path, NDJSON).await.unwrap().read, u64::from(MANY) + 7);
    assert_eq!(sink.events().0, MANY as usize + 7);
}

#[tokio::test]
async fn a_last_line_counts_once_when_its_line_break_comes() {
    let line = |entity: &str| format!("{{\"v\":\"{entity}\",\"t\":1360358940}}");
    let dir = tempfile::tempdir().unwrap();
    for (options, first, note) in [(NDJSON, 2, 0), (BY_LINE, 1, 1)] {
        let sink = Memory::default();
        let path = file(&dir, &format!("{}\n{}", line("a"), line("b")));
        let report = one(&sink, &path, options).await.unwrap();
        assert_eq!((sink.events().0, report.left), (first, note), "{options}");
        append(&path, &format!("\n{}\n", line("c")));
        let report = one(&sink, &path, options).await.unwrap();
        assert_eq!((sink.events(), report.left), ((3, 3), 0), "{options}");
    }
}

#[tokio::test]
async fn a_last_line_that_is_half_written_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Memory::default();
    let path = file(&dir, "{\"v\":\"a\",\"t\":1360358940}\n{\"v\":\"");
    one(&sink, &path, BY_LINE).await.unwrap();
    append(&path, "b\",\"t\":1360358940}\n");
    one(&sink, &path, BY_LINE).await.unwrap();
    assert_eq!(sink.events(), (2, 2));
    assert_eq!(sink.given.lock().unwrap().letters, []);
}

#[tokio::test]
async fn no_line_with_a_quote_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Memory::default();
    let rows = ["a,5\" disk,1", "b,\"c\",2", "c,6\" disk,3", "\"d,7,4", "e,\"x\ny\",5", "f\rg,8,6"];
    let path = file(&dir, &format!("what,who,when\n{}\n", rows.join("\n")));
    let report = one(&sink, &path, CSV).await.unwrap();
    assert_eq!((sink.events().0, report.refused, report.skipped), (4, 2, 1));
    let given = sink.given.lock().unwrap();
    let letters: Vec<_> = given.letters.iter().map(|letter| letter.body.clone().unwrap()).collect();
    assert_eq!(letters, [b"\"d,7,4".to_vec(), b"f\rg,8,6".to_vec()], "with their bytes (R-8)");
    assert_eq!(given.letters[1].source.as_deref(), Some("clicks:8"));
}

#[tokio::test]
async fn numbers_that_differ_in_the_last_digit_are_two() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Memory::default();
    let line = |id: &str| format!("{{\"v\":\"a\",\"t\":1360358940,\"in\":{{\"id\":{id}}}}}\n");
    let path = file(&dir, &(line("123456789012345678901") + &line("123456789012345678902")));
    one(&sink, &path, &format!("{NDJSON} --id in.id")).await.unwrap();
    assert_eq!(sink.events(), (2, 2));
}

#[tokio::test]
async fn what_was_acknowledged_before_a_failure_is_known_when_the_file_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    for grown in [false, true] {
        let path = file(&dir, &lines(0..MANY));
        let sink = Memory::failing(|send| if send == 3 { bail!("the disk is full") } else { Ok(()) });
        let error = one(&sink, &path, NDJSON).await.unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
        let (before, _) = sink.events();
        assert!(0 < before && before < MANY as usize, "{before}");
        let sink = sink.mended();
        let all = if grown { MANY + 5 } else { MANY };
        append(&path, &lines(MANY..all));
        let report = one(&sink, &path, NDJSON).await.unwrap();
        assert_eq!(sink.events(), (all as usize, all as usize), "nothing is sent twice");
        assert_eq!((report.duplicate, report.counted), (before as u64, u64::from(all) - before as u64));
    }
}

#[tokio::test]
async fn an_interrupted_import_is_known_when_the_file_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, &lines(0..MANY));
    let stop = Arc::new(Stop::default());
    let stopping = Arc::clone(&stop);
    let sink = Memory::failing(move |send| {
        if send == 2 {
            stopping.set();
        }
        Ok(())
    });
    let error = import(&sink, std::slice::from_ref(&path), NDJSON, &stop).await.unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
    let (before, _) = sink.events();
    assert!(0 < before && before < MANY as usize, "{before}");
    append(&path, &lines(MANY..MANY + 5));
    let sink = sink.mended();
    one(&sink, &path, NDJSON).await.unwrap();
    assert_eq!(sink.events(), (MANY as usize + 5, MANY as usize + 5), "nothing is sent twice");
}

#[tokio::test]
async fn lines_of_a_body_are_numbered_as_those_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Memory::default();
    let line = "{\"v\":\"a\",\"t\":1360358940}\n";
    let gap = "{\"skip\":1}\n".repeat(70_000);
    let path = file(&dir, &format!("\n{line}nonsense\n\n{line}{gap}{line}"));
    one(&sink, &path, &format!("{NDJSON} --skip-if skip")).await.unwrap();
    let given = sink.given.lock().unwrap();
    let found: Vec<u64> = given.events.iter().map(|(_, line)| *line).collect();
    assert_eq!(found, [2, 5, 70_006]);
    assert_eq!(given.sends, 2, "no body has that many blank lines");
}

#[tokio::test]
async fn what_is_known_is_asked_once() {
    let dir = tempfile::tempdir().unwrap();
    let sink = Memory::default();
    let path = file(&dir, &lines(0..3));
    let copy = dir.path().join("copy");
    std::fs::copy(&path, &copy).unwrap();
    import(&sink, &[path, copy], NDJSON, &Stop::default()).await.unwrap();
    assert_eq!(sink.events(), (3, 3), "the copy is known");
    assert_eq!(sink.given.lock().unwrap().finds, 1);
}
