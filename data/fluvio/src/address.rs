//! Which topic of which cluster, as it is written in the settings.

use fluvio::FluvioClusterConfig;
use reckon_data::log::LogError;
use url::Url;

/// The scheme of such an address.
pub const SCHEME: &str = "fluvio";

/// A topic of a cluster.
#[derive(Debug, Clone)]
pub struct Address {
    /// The topic's name.
    pub topic: String,
    /// How the cluster is reached.
    pub cluster: FluvioClusterConfig,
}

impl Address {
    /// Reads an address: `fluvio:///events` is a topic of the current profile of Fluvio's configuration,
    /// `fluvio:///events?profile=prod` one of a profile by name, with the TLS that the profile says, and
    /// `fluvio://10.0.0.7:9003/events` one of a cluster without TLS.
    ///
    /// # Errors
    /// [`LogError::Mismatch`], with what is wrong.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let wrong = |why: &str| LogError::Mismatch(format!("the log's address {text:?} cannot be used: {why}"));
        let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
        if url.scheme() != SCHEME {
            return Err(wrong("fluvio://HOST:PORT/TOPIC or fluvio:///TOPIC?profile=NAME is expected"));
        }
        let topic = url.path().trim_matches('/').to_owned();
        if topic.is_empty() || topic.contains('/') {
            return Err(wrong("it names no topic"));
        }
        let mut profile = None;
        for (name, value) in url.query_pairs() {
            match name.as_ref() {
                "profile" => profile = Some(value.into_owned()),
                other => return Err(wrong(&format!("{other:?} is not known; `profile` is"))),
            }
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let cluster = match (host, profile) {
            (Some(_), Some(_)) => return Err(wrong("it names a host, and a profile that names another")),
            (Some(host), None) => FluvioClusterConfig::new(format!("{host}:{}", url.port().unwrap_or(9003))),
            (None, Some(profile)) => FluvioClusterConfig::load_with_profile(&profile)
                .map_err(|error| wrong(&format!("Fluvio's configuration cannot be read: {error}")))?
                .ok_or_else(|| wrong(&format!("Fluvio's configuration has no profile {profile:?}")))?,
            (None, None) => FluvioClusterConfig::load()
                .map_err(|error| wrong(&format!("Fluvio's configuration has no current profile: {error}")))?,
        };
        Ok(Self { topic, cluster })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_host_and_a_topic_are_read() {
        let address = Address::parse("fluvio://127.0.0.1:9103/events").unwrap();
        assert_eq!((address.topic.as_str(), address.cluster.endpoint.as_str()), ("events", "127.0.0.1:9103"));
        assert_eq!(Address::parse("fluvio://broker/events").unwrap().cluster.endpoint, "broker:9003");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (text, why) in [
            ("kafka://h/events", "fluvio://HOST"),
            ("fluvio://h/", "no topic"),
            ("fluvio://h/a/b", "no topic"),
            ("fluvio://h/events?profil=x", "\"profil\" is not known"),
            ("fluvio://h/events?profile=x", "another"),
            ("events", "relative URL"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{text}: {error}");
        }
    }
}
