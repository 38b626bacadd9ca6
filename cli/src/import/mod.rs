//! `reckon import`: files of events, whatever their format, each counted once.

mod entries;
mod fields;
mod file;
mod lines;
mod mapping;
mod report;
mod sink;
mod source;
mod stop;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

pub use mapping::{Mapping, MappingArgs};
pub use report::Report;
pub use sink::{Local, Remote, Sink, Totals, counted};

use file::FileImport;
use stop::Stop;

/// Imports files, one after another, and says what came of it. Ctrl-C ends it in order.
///
/// # Errors
/// When the server takes nothing more, or a file cannot be read; the other files are imported all the same.
pub async fn run(sink: &dyn Sink, mapping: &Mapping, files: &[PathBuf], quiet: bool) -> Result<Report> {
    let stop = Stop::on_ctrl_c();
    run_until(sink, mapping, files, quiet, &stop).await
}

async fn run_until(sink: &dyn Sink, mapping: &Mapping, files: &[PathBuf], quiet: bool, stop: &Stop) -> Result<Report> {
    let (start, before) = (Instant::now(), sink.totals().await?);
    let mut entries = sink.find(&mapping.hash()).await?;
    let mut report = Report { files: files.len() as u64, ..Report::default() };
    let bar = progress_bar(files, quiet);
    let (mut accepted, mut failed) = (0, Vec::new());
    for path in files {
        bar.set_message(path.display().to_string());
        let outcome = match source::survey(path, &entries) {
            Ok(survey) => {
                bar.inc_length(survey.bytes);
                let import = FileImport::new(sink, mapping, &bar, stop, path, survey);
                let (entry, outcome) = import.run(path, &mut report).await;
                entries.push(entry);
                outcome
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(events) => accepted += events,
            Err(error) => failed.push(format!("{}: {error:#}", path.display())),
        }
        if stop.is_set() {
            break;
        }
    }
    bar.finish_and_clear();
    let again = "Run the import again once that is mended: it goes on where it was.";
    if stop.is_set() {
        bail!("the import was interrupted; run it again: it goes on where it was\n{}", failed.join("\n"));
    }
    report.settle(accepted, before, sink.totals().await?);
    report.time(start.elapsed().as_secs_f64());
    if failed.is_empty() {
        return Ok(report);
    }
    let (bad, all) = (failed.len(), files.len());
    bail!("{bad} of {all} files could not be imported whole:\n{}\n{again}", failed.join("\n"))
}

fn progress_bar(files: &[PathBuf], quiet: bool) -> ProgressBar {
    if quiet || files.is_empty() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
