//! The server that is measured.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use reckon_bench::server::Watched;
use reckon_client::{Client, Options};

use super::ServerArgs;

/// The server that is measured; one that was started ends with it.
pub(super) struct Started {
    /// The server.
    pub(super) watched: Watched,
    child: Option<Child>,
    _dir: Option<tempfile::TempDir>,
}

impl Started {
    /// The server that the arguments name, or a new one.
    pub(super) fn of(arguments: &ServerArgs) -> Result<Self> {
        if let Some(url) = &arguments.url {
            return Ok(Self { watched: Watched::new(url, None)?, child: None, _dir: None });
        }
        let temporary = arguments.dir.is_none().then(tempfile::tempdir).transpose()?;
        let dir = arguments.dir.clone().or_else(|| temporary.as_ref().map(|dir| dir.path().to_owned()));
        let mut child = Command::new(std::env::current_exe()?)
            .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.unwrap_or_default())
            .args(&arguments.flags)
            // It is measured how long the asked load takes, and nothing else.
            .env("RECKON_CANARY_EVERY", "0s")
            .stdout(Stdio::piped())
            .spawn()
            .context("the server cannot be started")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the server says nothing")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.split_whitespace().last().filter(|word| word.starts_with("http://"));
        let url = url.context("the server did not say where it listens")?;
        Ok(Self { watched: Watched::new(url, Some(child.id()))?, child: Some(child), _dir: temporary })
    }

    /// Stops it in order: it seals and archives, and exits.
    pub(super) fn stop(mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        Command::new("kill").args(["-TERM", &child.id().to_string()]).status().context("kill cannot be run")?;
        let status = child.wait()?;
        if status.success() { Ok(()) } else { bail!("the server ended with {status}") }
    }

    /// A client of it.
    pub(super) fn client(&self) -> Result<Arc<Client>> {
        Ok(Arc::new(Client::new(&self.watched.client.urls().join(","), Options::default())?))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Gone already is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
