//! The steps of a sender, done: requests and files.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use reckon_data::receipt::Receipt;
use uuid::Uuid;

use super::backlog::Sealed;
use super::shared::Shared;
use super::spill::Spill;
use super::state::{Answer, Done, Outcome};
use crate::client::Lines;
use crate::error::ClientError;

/// Sends a batch.
pub(super) async fn send(shared: Arc<Shared>, id: Uuid, sealed: Sealed) -> Done {
    match post(&shared, id, &sealed.body).await {
        Some(outcome) => Done::Sent { id, sealed, outcome },
        None => Done::GivenUp,
    }
}

/// Reads a batch back from the spill and sends it; once it is answered, its file is removed.
pub(super) async fn send_back(shared: Arc<Shared>, spill: Arc<Spill>, id: Uuid) -> Done {
    let body = match blocking(&spill, move |spill| spill.read(id)).await {
        Ok(body) => body,
        Err(error) => return unreadable(&spill, id, &error).await,
    };
    let events = body.iter().filter(|byte| **byte == b'\n').count() as u64;
    let Some(outcome) = post(&shared, id, &body).await else { return Done::GivenUp };
    let mut trouble = None;
    if outcome.is_ok()
        && let Err(error) = blocking(&spill, move |spill| spill.remove(id)).await
    {
        trouble = Some(format!("{id}.batch is acknowledged and cannot be removed: {error}"));
    }
    Done::SentBack { id, events, outcome, trouble }
}

async fn unreadable(spill: &Arc<Spill>, id: Uuid, error: &io::Error) -> Done {
    let mut reason = format!("{id}.batch cannot be read: {error}");
    let is_there = error.kind() != io::ErrorKind::NotFound;
    let mut is_aside = is_there;
    if is_there && let Err(error) = blocking(spill, move |spill| spill.set_aside(id)).await {
        is_aside = false;
        reason = format!("{reason}; it cannot be set aside: {error}");
    }
    Done::Unreadable { id, is_aside, reason }
}

/// Sets a batch down in the spill.
pub(super) async fn set_down(spill: Arc<Spill>, id: Uuid, sealed: Sealed) -> Done {
    let body = sealed.body.clone();
    let written = blocking(&spill, move |spill| spill.write(id, &body)).await;
    let trouble = written.err().map(|error| format!("{id}.batch cannot be written: {error}"));
    Done::Spilled { id, sealed, trouble }
}

/// Sends a body under the batch's name, until it is answered or the client gives up; none when the sender ends first.
async fn post(shared: &Shared, id: Uuid, body: &Bytes) -> Option<Outcome> {
    let key = id.to_string();
    let (source, retried) = (shared.source.as_deref(), Some(&shared.retried));
    let lines = Lines { body: body.clone(), key: &key, source, first_line: None, retried };
    tokio::select! {
        biased;
        () = shared.stopped() => None,
        answer = shared.client.deliver(lines) => Some(outcome(answer)),
    }
}

/// What an answer means for the batch.
fn outcome(answer: Result<Receipt, ClientError>) -> Outcome {
    match answer {
        Ok(receipt) => Ok(Answer::Judged(receipt)),
        Err(error) if error.is_passing() => Err(error.to_string()),
        Err(ClientError::Refused(mut problem)) => Ok(match problem.receipt.take() {
            Some(receipt) => Answer::Judged(receipt),
            None => Answer::Refused(problem.detail),
        }),
        Err(error) => Ok(Answer::Refused(error.to_string())),
    }
}

/// Does what waits for the disk on a thread of its own. It is done to its end, even when nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    spill: &Arc<Spill>,
    work: impl FnOnce(&Spill) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let spill = Arc::clone(spill);
    tokio::task::spawn_blocking(move || work(&spill)).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use reckon_data::problem::Problem;

    use super::*;

    fn refused(status: u16, receipt: Option<Receipt>) -> Result<Receipt, ClientError> {
        let problem = Problem { receipt, ..Problem::new(status, "test", "Refused", "because") };
        Err(ClientError::Refused(Box::new(problem)))
    }

    #[test]
    fn what_may_succeed_later_is_not_an_answer() {
        assert!(outcome(refused(503, None)).is_err());
        let error = ClientError::Unreachable { url: "http://a".to_owned(), reason: "refused".to_owned() };
        assert!(outcome(Err(error)).is_err());
    }

    #[test]
    fn a_refusal_has_verdicts_or_is_one_of_the_whole() {
        let receipt = Receipt { refused: 3, ..Receipt::default() };
        assert!(matches!(outcome(refused(422, Some(receipt))), Ok(Answer::Judged(Receipt { refused: 3, .. }))));
        assert!(matches!(outcome(refused(413, None)), Ok(Answer::Refused(reason)) if reason == "because"));
        assert!(matches!(outcome(Ok(Receipt::default())), Ok(Answer::Judged(_))));
    }
}
