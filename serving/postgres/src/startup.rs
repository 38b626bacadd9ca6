//! The start of a connection, and cancels.
//!
//! Whoever reaches the port is let in, as at the REST port: user and password are not looked at.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Sink;
use parking_lot::Mutex;
use pgwire::api::auth::{
    ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::cancel::CancelHandler;
use pgwire::api::{ClientInfo, METADATA_USER, PidSecretKeyGenerator, RandomPidSecretKeyGenerator};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::counters::Counters;
use crate::errors::{fatal, state};
use crate::session::Session;

/// A session by its number and its secret.
type Secrets = Mutex<HashMap<(i32, Bytes), Arc<Session>>>;

/// Lets connections in.
pub struct Entrance {
    room: Arc<Semaphore>,
    connections_max: usize,
    keys: RandomPidSecretKeyGenerator,
    /// No more than there are connections.
    secrets: Arc<Secrets>,
    counters: Arc<Counters>,
}

/// What a connection holds while it is there.
struct Held {
    key: (i32, Bytes),
    secrets: Arc<Secrets>,
    counters: Arc<Counters>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.secrets.lock().remove(&self.key);
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Entrance {
    /// Lets in so many at once.
    pub fn new(connections_max: usize, counters: Arc<Counters>) -> Self {
        Self {
            room: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            keys: RandomPidSecretKeyGenerator::default(),
            secrets: Arc::default(),
            counters,
        }
    }
}

#[async_trait]
impl StartupHandler for Entrance {
    async fn on_startup<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let PgWireFrontendMessage::Startup(startup) = message else {
            return Err(fatal(state::PROTOCOL, "a connection begins with a startup message"));
        };
        protocol_negotiation(client, &startup).await?;
        save_startup_parameters_to_metadata(client, &startup);
        if client.metadata().get("replication").is_some_and(|value| !matches!(value.as_str(), "false" | "off" | "0")) {
            return Err(fatal(state::NOT_SUPPORTED, "there is no replication here"));
        }
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.counters.refused.fetch_add(1, Ordering::Relaxed);
            let message =
                format!("sorry, too many clients already: {}, see serving.postgres_connections", self.connections_max);
            return Err(fatal(state::TOO_MANY_CONNECTIONS, message));
        };
        let session = Session::begin(client).map_err(into_fatal)?;
        let (number, secret) = self.keys.generate(client);
        let key = (number, secret.to_bytes());
        client.set_pid_and_secret_key(number, secret);
        client.session_extensions().insert(session);
        let session = Session::of(client)?;
        self.secrets.lock().insert(key.clone(), session);
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        let (secrets, counters) = (Arc::clone(&self.secrets), Arc::clone(&self.counters));
        client.session_extensions().insert(Held { key, secrets, counters, _room: room });
        finish_authentication(client, &Parameters).await
    }
}

fn into_fatal(error: PgWireError) -> PgWireError {
    let info = ErrorInfo::from(error);
    fatal(&info.code, info.message)
}

/// What a client is told of the server.
struct Parameters;

impl ServerParameterProvider for Parameters {
    fn server_parameters<C: ClientInfo>(&self, client: &C) -> Option<HashMap<String, String>> {
        let session = Session::of(client).ok()?;
        let mut parameters: HashMap<String, String> =
            session.with_settings(|settings| settings.reported()).into_iter().collect();
        if let Some(user) = client.metadata().get(METADATA_USER) {
            parameters.insert("session_authorization".to_owned(), user.clone());
        }
        Some(parameters)
    }
}

#[async_trait]
impl CancelHandler for Entrance {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let session = self.secrets.lock().get(&(request.pid, request.secret_key.to_bytes())).cloned();
        if let Some(session) = session {
            self.counters.cancelled.fetch_add(1, Ordering::Relaxed);
            session.interrupt();
        }
    }
}
