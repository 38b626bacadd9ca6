//! `reckon top --live`: a list that is asked for again and again, on a screen or, in a pipe, block after block.

use std::future::poll_fn;
use std::io::{IsTerminal as _, Read as _, Write as _, stdin, stdout};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::ranks::{Entry, Ranked, compare, entries, fitted, lines};
use super::target::{Target, lack};

/// The shortest time between two lists.
const EVERY_MIN: Duration = Duration::from_millis(100);
/// Columns and rows where nobody says how many there are.
const COLUMNS: usize = 80;
const ROWS: usize = 24;
/// Columns at the least, however narrow a terminal says that it is.
const COLUMNS_MIN: usize = 20;
/// Lines around the list on a screen: what it is, what is wrong, which keys there are.
const LINES_AROUND: usize = 3;
/// Keys that may wait to be looked at.
const KEYS_MAX: usize = 16;

/// Shows lists until somebody presses q or Ctrl-C, or nobody reads them any more.
///
/// # Errors
/// When the first question is refused.
pub async fn show(target: &Target, query: &[(&str, String)], every: Duration, json: bool) -> Result<()> {
    if every < EVERY_MIN {
        bail!("--interval must be at least 100ms");
    }
    let mut signals = signals()?;
    let screen = (!json && stdout().is_terminal()).then(Screen::enter);
    let mut keys = keys(screen.is_some());
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Vec<Entry>> = None;
    loop {
        let asked = async {
            ticks.tick().await;
            target.get("/v1/top", query).await
        };
        // A server that does not answer keeps nobody who wants to leave.
        let answer = tokio::select! {
            biased;
            () = ended(&mut signals, &mut keys) => return Ok(()),
            answer = asked => answer,
        };
        let answer = match answer {
            Ok(answer) => answer,
            // Whoever watches wants to see it come back; a question that is wrong stays wrong.
            Err(error) if before.is_some() => {
                if !no_answer(screen.as_ref(), json, &error)? {
                    return Ok(());
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        let now = entries(&answer);
        let told = if json {
            vec![answer.to_string()]
        } else {
            block(&answer, &compare(before.as_deref(), &now), screen.as_ref())
        };
        if !print(screen.as_ref(), &told)? {
            return Ok(());
        }
        before = Some(now);
    }
}

/// All that ends a process from outside: whoever does it, the terminal is given back.
fn signals() -> std::io::Result<Vec<Signal>> {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
    kinds.into_iter().map(signal).collect()
}

/// Waits until somebody wants it to end.
async fn ended(signals: &mut [Signal], keys: &mut mpsc::Receiver<u8>) {
    loop {
        let signalled = poll_fn(|context| {
            let any = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if any { Poll::Ready(()) } else { Poll::Pending }
        });
        tokio::select! {
            () = signalled => return,
            // Once no more keys will come, this waits for the others alone.
            Some(key) = keys.recv() => {
                if matches!(key, b'q' | b'Q') {
                    return;
                }
            }
        }
    }
}

/// Says that there is no answer; whether anybody still sees it. What a machine reads are answers alone.
fn no_answer(screen: Option<&Screen>, json: bool, error: &anyhow::Error) -> Result<bool> {
    let told = format!("no answer: {error:#}");
    if json {
        eprintln!("{told}");
        return Ok(true);
    }
    let columns = screen.map_or(usize::MAX, |_| size().0);
    print(screen, &[fitted(&told, columns)])
}

/// The lines of one list.
fn block(answer: &Value, ranked: &[Ranked], screen: Option<&Screen>) -> Vec<String> {
    let (columns, rows) = screen.map_or((COLUMNS, usize::MAX), |_| size());
    let now = chrono::Local::now().format("%H:%M:%S");
    let state = answer["provenance"]["state"].as_str().unwrap_or("state unknown");
    let what = if answer["channels"].is_array() { "channels" } else { "entities" };
    let mut told = vec![fitted(&format!("{now}  {} {what}, {state}", ranked.len()), columns)];
    // What is missing is said first: nobody may have to scroll for it.
    told.extend(lack(answer).map(|lack| fitted(&lack, columns)));
    told.extend(lines(ranked, columns).into_iter().take(rows.saturating_sub(LINES_AROUND)));
    if screen.is_some() {
        told.push(fitted("q ends", columns));
    }
    told
}

/// Shows lines; whether anybody still sees them.
fn print(screen: Option<&Screen>, told: &[String]) -> Result<bool> {
    let mut text = String::new();
    if screen.is_some() {
        // From the top left; each line is cleared behind its end, and all below the last one.
        text.push_str("\x1b[H");
        for (number, line) in told.iter().enumerate() {
            text.push_str(if number == 0 { "" } else { "\r\n" });
            text.push_str(line);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
    } else {
        told.iter().for_each(|line| {
            text.push_str(line);
            text.push('\n');
        });
    }
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    let size = tcgetwinsize(stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    let (columns, rows) = size.map_or((COLUMNS, ROWS), |size| (size.ws_col.into(), size.ws_row.into()));
    (columns.max(COLUMNS_MIN), rows.max(LINES_AROUND + 1))
}

/// What somebody types; nothing where there is nobody.
fn keys(wanted: bool) -> mpsc::Receiver<u8> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    if wanted && stdin().is_terminal() {
        // It waits for a key when the process ends, and ends with it.
        std::thread::spawn(move || {
            for key in stdin().lock().bytes().map_while(|key| key.ok()) {
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// A screen of its own, on which keys come one by one; dropping it gives the terminal back as it was.
struct Screen {
    before: Option<Termios>,
}

impl Screen {
    fn enter() -> Self {
        let before = stdin().is_terminal().then(|| tcgetattr(stdin()).ok()).flatten();
        if let Some(before) = &before {
            let mut raw = before.clone();
            // Ctrl-C stays a signal.
            raw.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            raw.special_codes[SpecialCodeIndex::VMIN] = 1;
            raw.special_codes[SpecialCodeIndex::VTIME] = 0;
            // Where that cannot be had, keys come line by line.
            let _ = tcsetattr(stdin(), OptionalActions::Now, &raw);
        }
        escape("\x1b[?1049h\x1b[?25l");
        Self { before }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        escape("\x1b[?25h\x1b[?1049l");
        if let Some(before) = &self.before {
            // There is nothing else to be done.
            let _ = tcsetattr(stdin(), OptionalActions::Now, before);
        }
    }
}

fn escape(sequence: &str) {
    let mut out = stdout().lock();
    // A terminal that is gone needs nothing.
    let _ = out.write_all(sequence.as_bytes()).and_then(|()| out.flush());
}
