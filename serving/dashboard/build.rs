//! Builds the page with npm, in a copy of its sources, and lists its files for `include_bytes!`.
//!
//! Where there is no npm, or it fails, the build goes on, and `/` says how to get the page. `RECKON_DASHBOARD_SKIP=1` spares
//! the attempt.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What the page is made of, in `page/`.
const SOURCES: [&str; 6] = ["package.json", "package-lock.json", "build.mjs", "index.html", "src", "api"];
/// Longest time that npm may take, once for the packages and once for the page.
const TIME_MAX: Duration = Duration::from_secs(240);
const SKIP: &str = "RECKON_DASHBOARD_SKIP";

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=fallback.html");
    println!("cargo::rerun-if-env-changed={SKIP}");
    for source in SOURCES {
        println!("cargo::rerun-if-changed=page/{source}");
    }
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let skipped = std::env::var(SKIP).is_ok_and(|value| !value.is_empty() && value != "0");
    let built: Outcome<Vec<(String, PathBuf)>> =
        if skipped { Err(format!("{SKIP} is set").into()) } else { build(&out.join("page")) };
    let (is_whole, files) = match built {
        Ok(files) => (true, files),
        Err(error) => {
            if !skipped {
                println!("cargo::warning=the dashboard was not built, `/` says how to get it: {error}");
            }
            (false, vec![("/".to_owned(), fs::canonicalize("fallback.html")?)])
        }
    };
    fs::write(out.join("assets.rs"), listed(is_whole, &files)?)?;
    Ok(())
}

/// Builds the page in `work`; the paths and files of it.
fn build(work: &Path) -> Outcome<Vec<(String, PathBuf)>> {
    fs::create_dir_all(work)?;
    for source in SOURCES {
        replace(&Path::new("page").join(source), &work.join(source))?;
    }
    // Packages are fetched once for a lock file.
    let (lock, stamp) = (fs::read(work.join("package-lock.json"))?, work.join("fetched"));
    if fs::read(&stamp).ok().as_ref() != Some(&lock) {
        // What is fetched by halves is none of any lock file.
        if stamp.exists() {
            fs::remove_file(&stamp)?;
        }
        npm(work, &["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"])?;
        fs::write(&stamp, &lock)?;
    }
    let dist = work.join("dist");
    if dist.exists() {
        fs::remove_dir_all(&dist)?;
    }
    npm(work, &["run", "build"])?;
    let mut files = vec![("/".to_owned(), dist.join("index.html")), ("/docs".to_owned(), dist.join("docs.html"))];
    for entry in fs::read_dir(dist.join("assets"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("a file's name is no text")?;
        files.push((format!("/assets/{name}"), path.clone()));
    }
    files.sort();
    Ok(files)
}

/// Copies a file or a folder, in place of what was there.
fn replace(from: &Path, to: &Path) -> Outcome<()> {
    if !from.is_dir() {
        fs::copy(from, to)?;
        return Ok(());
    }
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        replace(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Runs npm, within its time; what it says goes to a file, and the end of it into the error.
fn npm(work: &Path, arguments: &[&str]) -> Outcome<()> {
    let said = work.join("npm.log");
    let log = fs::File::create(&said)?;
    let mut child = Command::new("npm")
        .args(arguments)
        .current_dir(work)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| format!("npm cannot be started: {error}"))?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > TIME_MAX {
            child.kill()?;
            child.wait()?;
            return Err(format!("npm {} took longer than {} s", arguments.join(" "), TIME_MAX.as_secs()).into());
        }
        sleep(Duration::from_millis(50));
    };
    if status.success() {
        return Ok(());
    }
    let text = fs::read_to_string(&said).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("rror")).take(2).collect();
    Err(format!("npm {} ended with {status}: {} ({})", arguments.join(" "), lines.join("; "), said.display()).into())
}

/// The list, as Rust.
fn listed(is_whole: bool, files: &[(String, PathBuf)]) -> Outcome<String> {
    let mut text = format!("pub(crate) const IS_WHOLE: bool = {is_whole};\npub(crate) static FILES: &[File] = &[\n");
    for (path, file) in files {
        let mut hash = DefaultHasher::new();
        hash.write(&fs::read(file)?);
        let etag = format!("\"{:016x}\"", hash.finish());
        let kind = kind(file)?;
        writeln!(
            text,
            "    File {{ path: {path:?}, kind: {kind:?}, etag: {etag:?}, body: include_bytes!({file:?}) }},"
        )?;
    }
    text.push_str("];\n");
    Ok(text)
}

fn kind(file: &Path) -> Outcome<&'static str> {
    Ok(match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => return Err(format!("{} is of no kind that the page has", file.display()).into()),
    })
}
