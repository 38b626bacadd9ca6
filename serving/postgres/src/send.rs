//! Sends what came of a statement.

use std::fmt::Debug;
use std::pin::pin;

use futures::{Sink, SinkExt, Stream, StreamExt};
use pgwire::api::query::send_execution_response;
use pgwire::api::results::{CopyEncoder, FieldInfo, Tag};
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyOutResponse};
use pgwire::messages::data::{NoData, RowDescription};
use pgwire::messages::response::TransactionStatus;
use pgwire::messages::startup::ParameterStatus;

use crate::command::CopyFormat;
use crate::errors::warning;
use crate::rows;
use crate::run::Answer;
use crate::session::Session;

/// Sends messages, without making them leave at once.
pub async fn feed_all<C>(client: &mut C, messages: Vec<PgWireBackendMessage>) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<C::Error>,
{
    for message in messages {
        client.feed(message).await?;
    }
    Ok(())
}

/// Sends an answer that has no rows, and does what it says to the session. Rows are given back.
pub async fn send_answer<C>(client: &mut C, session: &Session, answer: Answer) -> PgWireResult<Option<Answer>>
where
    C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::PortalStore: PortalStore,
    C::Error: Debug,
    PgWireError: From<C::Error>,
{
    match answer {
        Answer::Rows(_) => return Ok(Some(answer)),
        Answer::Done(tag) => send_execution_response(client, tag).await?,
        Answer::Begun(tag) => {
            if client.transaction_status() != TransactionStatus::Idle {
                let warning = warning("there is already a transaction in progress", None);
                client.feed(warning).await?;
            }
            send_execution_response(client, tag).await?;
            if client.transaction_status() == TransactionStatus::Idle {
                session.begin_transaction();
            }
            let status = client.transaction_status().to_in_transaction_state();
            client.set_transaction_status(status);
        }
        Answer::Ended { tag, committed } => {
            send_execution_response(client, tag).await?;
            client.set_transaction_status(TransactionStatus::Idle);
            client.portal_store().clear_portals();
            let changed = session.end_transaction(committed).into_iter();
            let told = changed.map(|(name, value)| ParameterStatus::new(name, value));
            feed_all(client, told.map(PgWireBackendMessage::ParameterStatus).collect()).await?;
        }
        Answer::GoesOn(tag) => {
            send_execution_response(client, tag).await?;
            if client.transaction_status() == TransactionStatus::Error {
                client.set_transaction_status(TransactionStatus::Transaction);
            }
        }
        Answer::Forget(names, tag) => {
            names.iter().for_each(|name| client.portal_store().rm_statement(name));
            send_execution_response(client, tag).await?;
        }
        Answer::Copy { rows, schema, format, header } => {
            let names = header.then(|| rows::copied_names(&schema, format));
            let columns = schema.fields().len();
            let rows = rows::copied(rows, &schema, format)?;
            copy(client, rows, names, columns, format).await?;
        }
    }
    Ok(None)
}

/// A failure on the way is an error, as the protocol has it; pgwire's own would send what only clients may.
async fn copy<C, R>(
    client: &mut C,
    rows: R,
    names: Option<CopyData>,
    columns: usize,
    format: CopyFormat,
) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    R: Stream<Item = PgWireResult<CopyData>> + Send,
    C::Error: Debug,
    PgWireError: From<C::Error>,
{
    let is_binary = format == CopyFormat::Binary;
    let code = u8::from(is_binary);
    let count = i16::try_from(columns).unwrap_or(i16::MAX);
    let response = CopyOutResponse::new(code.cast_signed(), count, vec![i16::from(code); columns]);
    client.feed(PgWireBackendMessage::CopyOutResponse(response)).await?;
    if let Some(names) = names {
        client.feed(PgWireBackendMessage::CopyData(names)).await?;
    }
    let mut rows = pin!(rows);
    let mut sent = 0;
    while let Some(row) = rows.next().await {
        client.feed(PgWireBackendMessage::CopyData(row?)).await?;
        sent += 1;
    }
    if is_binary {
        if sent == 0 {
            client.feed(PgWireBackendMessage::CopyData(rows::copied_nothing())).await?;
        }
        client.feed(PgWireBackendMessage::CopyData(CopyEncoder::finish_copy_binary())).await?;
    }
    client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    send_execution_response(client, Tag::new("COPY").with_rows(sent)).await
}

/// Says which columns there are, or that there are none.
pub async fn send_columns<C>(client: &mut C, fields: &[FieldInfo]) -> PgWireResult<()>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send,
    PgWireError: From<C::Error>,
{
    let message = if fields.is_empty() {
        PgWireBackendMessage::NoData(NoData::new())
    } else {
        PgWireBackendMessage::RowDescription(RowDescription::new(fields.iter().map(Into::into).collect()))
    };
    client.feed(message).await?;
    Ok(())
}
