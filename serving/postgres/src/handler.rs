//! Both ways of asking: a text at once, or a statement that is prepared, bound and executed.
//!
//! pgwire's own ways would hold all rows of an answer before the first is sent, and forget that it may be cancelled
//! once it is being sent. Here rows leave as they come, and a cancel or the statement's time ends both.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::{Sink, SinkExt};
use pgwire::api::portal::{Format, Portal};
use pgwire::api::query::{SimpleQueryHandler, send_query_response, send_ready_for_query};
use pgwire::api::results::Response;
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, PgWireConnectionState};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use pgwire::messages::simplequery::Query;
use reckon_serving::sql::QUERY_BYTES_MAX;

use crate::command::{self, Command};
use crate::counters::Counters;
use crate::errors::{error, state};
use crate::extended::Prepared;
use crate::lexer::statements;
use crate::run::{Answer, Source};
use crate::send::{feed_all, send_answer};
use crate::session::Session;

/// Answers questions.
pub struct Handler {
    /// Where answers come from.
    pub source: Source,
    /// What is counted.
    pub counters: Arc<Counters>,
}

/// Runs work until it is done, cancelled, or out of time.
pub async fn bounded<T>(session: &Session, work: impl Future<Output = PgWireResult<T>> + Send) -> PgWireResult<T> {
    let interrupted = session.interrupted();
    let limit = session.with_settings(|settings| settings.timeout());
    let late = async move {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = interrupted => Err(PgWireError::QueryCanceled),
        done = work => done,
        () = late => Err(out_of_time(limit)),
    }
}

fn out_of_time(limit: Option<Duration>) -> PgWireError {
    let limit = limit.unwrap_or_default().as_millis();
    error(state::CANCELLED, format!("canceling statement due to statement timeout: it took longer than {limit} ms"))
}

/// Refuses a text that is too long to be read.
pub fn fits(text: &str) -> PgWireResult<()> {
    if text.len() <= QUERY_BYTES_MAX {
        return Ok(());
    }
    Err(error("54000", format!("the query has {} bytes, the limit is {QUERY_BYTES_MAX}", text.len())))
}

/// After a failure a transaction answers nothing but its end.
pub fn allowed(command: &Command, status: TransactionStatus) -> PgWireResult<()> {
    if status == TransactionStatus::Error && !command.ends_transaction() {
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        return Err(error(state::FAILED_TRANSACTION, message));
    }
    Ok(())
}

impl Handler {
    /// Answers the statements of a text, one after the other.
    async fn answer_all<C>(&self, client: &mut C, session: &Session, text: &str) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        fits(text)?;
        let statements = statements(text);
        if statements.is_empty() {
            client.feed(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())).await?;
        }
        for statement in statements {
            self.counters.queries.fetch_add(1, Ordering::Relaxed);
            let command = command::parse(statement)?;
            let status = client.transaction_status();
            allowed(&command, status)?;
            let reply = self.source.run(session, &command, Vec::new(), &Format::UnifiedText, status).await?;
            feed_all(client, reply.before).await?;
            if let Some(Answer::Rows(rows)) = send_answer(client, session, reply.answer).await? {
                send_query_response(client, rows, true).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl SimpleQueryHandler for Handler {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if !matches!(client.state(), PgWireConnectionState::ReadyForQuery) {
            return Err(PgWireError::NotReadyForQuery);
        }
        client.set_state(PgWireConnectionState::QueryInProgress);
        let session = Session::of(client)?;
        bounded(&session, self.answer_all(client, &session, &query.query)).await?;
        client.set_state(PgWireConnectionState::ReadyForQuery);
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn do_query<C>(&self, _client: &mut C, _query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // `on_query` above answers all of them.
        Err(error("XX000", "a query came where none comes"))
    }
}

/// How many rows an execution takes at most; 0 is all.
pub fn most_of(max_rows: i32) -> usize {
    usize::try_from(max_rows).unwrap_or(0)
}

/// Whether the formats that were bound fit.
///
/// # Errors
/// When there are neither none, nor one, nor as many as there are values.
pub fn fitting(formats: usize, values: usize, what: &str) -> PgWireResult<()> {
    if formats <= 1 || formats == values {
        return Ok(());
    }
    Err(error(state::PROTOCOL, format!("bind message has {formats} {what} formats but there are {values}")))
}

/// A portal of ours.
pub type OurPortal = Portal<Prepared>;
