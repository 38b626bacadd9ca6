//! Whom a command asks: a running server, or a node of its own on the data folder.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use reckon_batch::lock::DirLock;
use reckon_client::{Client, Options};
use reckon_data::clock::{RandomNames, SystemClock};
use reckon_data::config::Settings;
use serde_json::Value;

use crate::node::{Node, is_embedded, local_dir, log_folder};

/// The file in a data folder that says where its server listens.
const ADDRESS_FILE: &str = "reckon.url";

/// Where to ask.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The server to ask, or several, separated by commas: events go to each in turn, everything else to the first that
    /// can be reached. Without it: the one that runs on --data-dir, or, when none runs, the folder itself.
    #[arg(long, env = "RECKON_URL", value_name = "URL")]
    pub url: Option<String>,
    /// Machine-readable output.
    #[arg(long)]
    pub json: bool,
}

/// Whom a command asks.
pub enum Target {
    /// A server.
    Remote(Client),
    /// A node of this process.
    Local(Box<Node>),
}

impl TargetArgs {
    /// Whether there is no server to ask, and the log is one that other processes work on, too.
    ///
    /// # Errors
    /// When no folder of this machine is named.
    pub async fn is_shared(&self, settings: &Settings) -> Result<bool> {
        Ok(self.url.is_none() && !is_embedded(settings) && running(&local_dir(settings)?).await?.is_none())
    }

    /// The server that is asked, if one runs: never a node of this process.
    ///
    /// # Errors
    /// When the address is none, or no folder of this machine is named.
    pub async fn server(&self, settings: &Settings) -> Result<Client> {
        if let Some(url) = &self.url {
            return Ok(Client::new(url, Options::default())?);
        }
        let dir = local_dir(settings)?;
        let running = running(&dir).await?;
        running.with_context(|| format!("no server runs on {}: --url names one that runs elsewhere", dir.display()))
    }

    /// Finds whom to ask; `role` says in the folder's lock what this command does with it.
    ///
    /// # Errors
    /// When the server does not answer, or the folder cannot be opened.
    pub async fn open(&self, settings: Settings, role: &str) -> Result<Target> {
        if let Some(url) = &self.url {
            return Ok(Target::Remote(Client::new(url, Options::default())?));
        }
        let dir = local_dir(&settings)?;
        if let Some(client) = running(&dir).await? {
            return Ok(Target::Remote(client));
        }
        if !is_embedded(&settings) {
            // A node of this process would take the work of those who count and archive that log.
            bail!("the log {} is not this command's alone: --url asks a server that works with it", settings.log.url);
        }
        // An empty folder would answer every question with nothing, and call that complete (R-7).
        if role != "import" && !log_folder(&dir).exists() {
            bail!("there is no data in {}: --url asks a server, --data-dir names a folder", dir.display());
        }
        let node = Node::open(settings, role, Arc::new(SystemClock), Arc::new(RandomNames)).await?;
        node.wait_counted().await?;
        Ok(Target::Local(Box::new(node)))
    }
}

/// The server that holds a folder; none when nobody does.
async fn running(dir: &Path) -> Result<Option<Client>> {
    let Ok(url) = std::fs::read_to_string(dir.join(ADDRESS_FILE)) else { return Ok(None) };
    // A server that was killed leaves its address behind, but not its lock.
    if DirLock::acquire(dir, "look").is_ok() {
        return Ok(None);
    }
    let client = Client::new(url.trim(), Options::default())?;
    Ok(client.is_up().await.then_some(client))
}

/// Writes down where the folder's server listens.
///
/// # Errors
/// When the file cannot be written.
pub fn remember_address(local_dir: &Path, url: &str) -> Result<()> {
    let path = local_dir.join(ADDRESS_FILE);
    std::fs::write(&path, url).with_context(|| format!("{} cannot be written", path.display()))
}

/// Forgets it.
pub fn forget_address(local_dir: &Path) {
    // Not there is what is wanted.
    let _ = std::fs::remove_file(local_dir.join(ADDRESS_FILE));
}

/// Says what the reader of an answer has to know (R-7): whether it holds all that it should.
pub fn warn(answer: &Value) {
    if let Some(lack) = lack(answer) {
        eprintln!("{lack}");
    }
}

/// What an answer lacks; none when it is whole.
#[must_use]
pub fn lack(answer: &Value) -> Option<String> {
    let provenance = &answer["provenance"];
    if provenance["complete"] == false {
        return Some(format!("the answer is not complete, it misses: {}", provenance["missing"]));
    }
    (answer["truncated"] == true)
        .then(|| "there are more rows than are printed: serving.rows_max is the limit".to_owned())
}

impl Target {
    /// Gets a resource of the REST interface, over HTTP or in this process.
    ///
    /// # Errors
    /// What the server says.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value> {
        match self {
            Self::Remote(client) => Ok(client.get(path, query).await?),
            Self::Local(node) => crate::node::call(node, "GET", path, query, None).await,
        }
    }

    /// Posts to a resource of the REST interface, once.
    ///
    /// # Errors
    /// What the server says.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        match self {
            Self::Remote(client) => Ok(client.post_once(path, body).await?),
            Self::Local(node) => crate::node::call(node, "POST", path, &[], Some(body)).await,
        }
    }

    /// Puts a resource of the REST interface, once; with an ETag only if it still has that.
    ///
    /// # Errors
    /// What the server says.
    pub async fn put(&self, path: &str, body: &Value, if_match: Option<&str>) -> Result<Value> {
        match self {
            Self::Remote(client) => Ok(client.put_once(path, body, if_match).await?),
            Self::Local(node) => crate::node::call_matched(node, "PUT", path, Some(body), if_match).await,
        }
    }

    /// Removes a resource of the REST interface, once; with an ETag only if it still has that.
    ///
    /// # Errors
    /// What the server says.
    pub async fn delete(&self, path: &str, if_match: Option<&str>) -> Result<Value> {
        match self {
            Self::Remote(client) => Ok(client.delete_once(path, if_match).await?),
            Self::Local(node) => crate::node::call_matched(node, "DELETE", path, None, if_match).await,
        }
    }

    /// Closes the node, if it is one of this process.
    pub async fn close(self) {
        if let Self::Local(node) = self {
            node.stop().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_answer_lacks_is_said() {
        let missing = json!({"provenance": {"complete": false, "missing": [{"partition": 3}]}});
        assert!(lack(&missing).unwrap().contains(r#"{"partition":3}"#));
        assert!(lack(&json!({"truncated": true, "provenance": {"complete": true}})).unwrap().contains("rows_max"));
        assert_eq!(lack(&json!({"truncated": false, "provenance": {"complete": true, "missing": []}})), None);
    }

    #[tokio::test]
    async fn a_folder_that_is_not_there_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("nothing");
        let settings = Settings { data_dir: there.display().to_string(), ..Settings::default() };
        let target = TargetArgs { url: None, json: false };
        let error = target.open(settings, "sql").await.err().unwrap().to_string();
        assert!(error.starts_with("there is no data in") && error.contains("--url"), "{error}");
        assert!(!there.exists(), "asking makes nothing");
    }

    #[test]
    fn a_file_url_and_its_folder_are_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = format!("file://{}", dir.path().display());
        let local = local_dir(&Settings { data_dir, ..Settings::default() }).unwrap();
        remember_address(&local, "http://here").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join(ADDRESS_FILE)).unwrap(), "http://here");
        forget_address(&local);
        assert!(!dir.path().join(ADDRESS_FILE).exists());
    }
}
