//! `reckon import`: files of events, whatever their format, each counted once.

mod fields;
mod file;
mod lines;
mod mapping;
mod report;
mod sink;
mod source;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

pub use mapping::{Mapping, MappingArgs};
pub use report::Report;
pub use sink::{Local, Remote, Sink, Totals};

use file::FileImport;

/// Imports files, one after another, and says what came of it.
///
/// # Errors
/// When the server takes nothing more, or a file cannot be read; the other files are imported all the same.
pub async fn run(sink: &dyn Sink, mapping: &Mapping, files: &[PathBuf], quiet: bool) -> Result<Report> {
    let (start, before) = (Instant::now(), sink.totals().await?);
    let mut report = Report { files: files.len() as u64, ..Report::default() };
    let bar = progress_bar(files, quiet);
    let (mut accepted, mut failed) = (0, Vec::new());
    for path in files {
        bar.set_message(path.display().to_string());
        let entries = sink.find(&mapping.hash()).await?;
        let outcome = match source::survey(path, &entries) {
            Ok(survey) => {
                bar.inc_length(survey.bytes);
                FileImport::new(sink, mapping, &bar, path, survey).run(path, &mut report).await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(events) => accepted += events,
            Err(error) => failed.push(format!("{}: {error:#}", path.display())),
        }
    }
    bar.finish_and_clear();
    report.settle(accepted, before, sink.totals().await?);
    report.time(start.elapsed().as_secs_f64());
    if failed.is_empty() {
        return Ok(report);
    }
    bail!(
        "{} of {} files could not be imported whole:\n{}\nRun the import again once that is mended: it goes on where it was.",
        failed.len(),
        files.len(),
        failed.join("\n")
    )
}

fn progress_bar(files: &[PathBuf], quiet: bool) -> ProgressBar {
    if quiet || files.is_empty() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
