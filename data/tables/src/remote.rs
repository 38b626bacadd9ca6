//! Object stores of the cloud, by URL: `s3://bucket/path`, `gs://bucket/path`, `az://container/path` and what else the
//! library reads as one. Who may read and write there, endpoint and region come from the environment
//! (`AWS_…`, `GOOGLE_…`, `AZURE_…`), as for the clouds' own tools.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

/// A request is tried again, with growing pauses and jitter, for so long. Who waits for it tries again after that.
const RETRY_MAX: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_secs(5);
const TRIES_MAX: usize = 10;

/// The store at a URL, rooted at its path.
///
/// # Errors
/// A sentence: the kind of store is not built in, or something is missing in the environment.
pub(crate) fn open(url: &Url) -> Result<Arc<dyn ObjectStore>, String> {
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|error| error.to_string())?;
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: PAUSE_MAX, ..BackoffConfig::default() },
        max_retries: TRIES_MAX,
        retry_timeout: RETRY_MAX,
    };
    let text = url.as_str();
    let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            AmazonS3Builder::from_env().with_url(text).with_retry(retry).build().map(|store| Arc::new(store) as _)
        }
        ObjectStoreScheme::GoogleCloudStorage => GoogleCloudStorageBuilder::from_env()
            .with_url(text)
            .with_retry(retry)
            .build()
            .map(|store| Arc::new(store) as _),
        ObjectStoreScheme::MicrosoftAzure => {
            MicrosoftAzureBuilder::from_env().with_url(text).with_retry(retry).build().map(|store| Arc::new(store) as _)
        }
        _ => return Err(format!("a store of kind {} is not built in", url.scheme())),
    };
    let store = store.map_err(|error| error.to_string())?;
    Ok(if path.as_ref().is_empty() { store } else { Arc::new(PrefixStore::new(store, path)) })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn kinds_that_are_not_built_in_are_refused() {
        for url in ["memory:///x", "http://example.org/x"] {
            assert!(open(&Url::parse(url).unwrap()).unwrap_err().contains("not built in"), "{url}");
        }
        assert!(open(&Url::parse("gopher://x/y").unwrap()).is_err());
    }

    #[test]
    fn a_bucket_is_rooted_at_the_path() {
        let store = open(&Url::parse("s3://bucket/some/where").unwrap()).unwrap();
        assert!(store.to_string().contains("some/where"), "{store}");
    }
}
