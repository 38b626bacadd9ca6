//! The dashboard, as the REST routes take it.

use std::sync::Arc;

use reckon_serving::rest::{Asset, Page};

/// The page that lies in this binary.
#[derive(Debug)]
struct Dashboard;

impl Page for Dashboard {
    fn asset(&self, path: &str) -> Option<Asset> {
        let file = reckon_dashboard::file(path)?;
        Some(Asset { body: file.body, kind: file.kind, etag: file.etag, immutable: file.is_immutable() })
    }
}

/// The page, for processes that answer questions.
#[must_use]
pub fn dashboard() -> Option<Arc<dyn Page>> {
    Some(Arc::new(Dashboard))
}
