//! Whom a command asks: a running server, or a node of its own on the data folder.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use reckon_batch::lock::DirLock;
use reckon_client::{Client, Options};
use reckon_data::clock::{RandomNames, SystemClock};
use reckon_data::config::Settings;
use serde_json::Value;

use crate::node::Node;

/// The file in a data folder that says where its server listens.
const ADDRESS_FILE: &str = "reckon.url";

/// Where to ask.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The server to ask. Without it: the one that runs on --data-dir, or, when none runs, the folder itself.
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
    /// Finds whom to ask; `role` says in the folder's lock what this command does with it.
    ///
    /// # Errors
    /// When the server does not answer, or the folder cannot be opened.
    pub async fn open(&self, settings: Settings, role: &str) -> Result<Target> {
        if let Some(url) = &self.url {
            return Ok(Target::Remote(Client::new(url, Options::default())?));
        }
        let dir = Path::new(&settings.data_dir);
        if let Some(client) = running(dir).await? {
            return Ok(Target::Remote(client));
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
pub fn remember_address(dir: &str, url: &str) -> Result<()> {
    let path = Path::new(dir).join(ADDRESS_FILE);
    std::fs::write(&path, url).with_context(|| format!("{} cannot be written", path.display()))
}

/// Forgets it.
pub fn forget_address(dir: &str) {
    // Not there is what is wanted.
    let _ = std::fs::remove_file(Path::new(dir).join(ADDRESS_FILE));
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

    /// Posts to a resource of the REST interface.
    ///
    /// # Errors
    /// What the server says.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        match self {
            Self::Remote(client) => Ok(client.post(path, body).await?),
            Self::Local(node) => crate::node::call(node, "POST", path, &[], Some(body)).await,
        }
    }

    /// Closes the node, if it is one of this process.
    pub async fn close(self) {
        if let Self::Local(node) = self {
            node.stop().await;
        }
    }
}
