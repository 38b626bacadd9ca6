//! The steps of a sender, done: requests and files.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use reckon_data::receipt::Receipt;
use uuid::Uuid;

use super::backlog::Sealed;
use super::shared::Shared;
use super::spill::{DAMAGED, REFUSED, Spill};
use super::state::{Answer, Done, Outcome, Unread};
use crate::client::Lines;
use crate::error::ClientError;

/// Sends a batch.
pub(super) async fn send(shared: Arc<Shared>, id: Uuid, sealed: Sealed) -> Done {
    match post(&shared, id, &sealed.body, sealed.events).await {
        Some(outcome) => Done::Sent { id, sealed, outcome },
        None => Done::GivenUp,
    }
}

/// Reads a batch back from the spill and sends it; once it is answered, its file is removed, or set aside as refused.
pub(super) async fn send_back(shared: Arc<Shared>, spill: Arc<Spill>, id: Uuid) -> Done {
    let body = match blocking(&spill, move |spill| spill.read(id)).await {
        Ok(body) => body,
        Err(error) => return unread(&spill, id, &error).await,
    };
    let events = body.iter().filter(|byte| **byte == b'\n').count() as u64;
    let Some(outcome) = post(&shared, id, &body, events).await else { return Done::GivenUp };
    let settled = match &outcome {
        Ok(Answer::Judged(_)) => blocking(&spill, move |spill| spill.remove(id)).await,
        Ok(Answer::Refused(_)) => blocking(&spill, move |spill| spill.set_aside(id, REFUSED)).await,
        Err(_) => Ok(()),
    };
    let trouble = settled.err().map(|error| format!("{id}.batch is answered and cannot be put away: {error}"));
    Done::SentBack { id, events, outcome, trouble }
}

async fn unread(spill: &Arc<Spill>, id: Uuid, error: &io::Error) -> Done {
    let mut reason = format!("{id}.batch cannot be read: {error}");
    let file = match error.kind() {
        io::ErrorKind::NotFound => Unread::Missing,
        io::ErrorKind::InvalidData => match blocking(spill, move |spill| spill.set_aside(id, DAMAGED)).await {
            Ok(()) => Unread::Aside,
            Err(error) => {
                reason = format!("{reason}; it cannot be set aside: {error}");
                Unread::There
            }
        },
        // The system has no file handle left, say, or the disk does not answer.
        _ => Unread::There,
    };
    Done::Unread { id, file, reason }
}

/// Sets a batch down in the spill.
pub(super) async fn set_down(spill: Arc<Spill>, id: Uuid, sealed: Sealed) -> Done {
    let body = sealed.body.clone();
    let written = blocking(&spill, move |spill| spill.write(id, &body)).await;
    let trouble = written.err().map(|error| format!("{id}.batch cannot be written: {error}"));
    Done::Spilled { id, sealed, trouble }
}

/// Sends a body under the batch's name, until it is answered or the client gives up; none when the sender ends first.
async fn post(shared: &Shared, id: Uuid, body: &Bytes, events: u64) -> Option<Outcome> {
    let (body, key) = (body.clone(), id.to_string());
    let (source, timeout, retried) = (shared.source.as_deref(), Some(shared.timeout), Some(&shared.retried));
    let lines = Lines { body, key: &key, source, first_line: None, timeout, retried };
    tokio::select! {
        biased;
        () = shared.stopped() => None,
        answer = shared.client.deliver(lines) => Some(outcome(answer, events)),
    }
}

/// What an answer means for a batch of so many events: only a gateway's verdict on it is final.
fn outcome(answer: Result<Receipt, ClientError>, events: u64) -> Outcome {
    let (receipt, is_unreadable) = match answer {
        Ok(receipt) => (receipt, false),
        Err(ClientError::Refused(mut problem)) if ClientError::is_verdict_of(&problem) => {
            let Some(receipt) = problem.receipt.take() else { return Ok(Answer::Refused(problem.detail)) };
            // A body that it cannot read is one thing to it.
            let is_unreadable = problem.status == 400 && receipt.accepted == 0 && receipt.refused <= 1;
            (receipt, is_unreadable)
        }
        Err(error) => return Err(error.to_string()),
    };
    let judged = receipt.accepted.saturating_add(receipt.refused);
    if judged == events || is_unreadable {
        Ok(Answer::Judged(receipt))
    } else {
        Err(format!("the receipt for a batch of {events} events is one for {judged}"))
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
    fn only_a_gateways_verdict_is_an_answer() {
        for status in [302, 400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 502, 503, 504] {
            assert!(outcome(refused(status, None), 3).is_err(), "{status}");
        }
        let receipt = || Some(Receipt { refused: 3, ..Receipt::default() });
        assert!(outcome(refused(500, receipt()), 3).is_err());
        let url = "http://a".to_owned();
        let error = ClientError::Unreachable { url: url.clone(), reason: "refused".to_owned() };
        assert!(outcome(Err(error), 3).is_err());
        assert!(outcome(Err(ClientError::BadAnswer { url, reason: "no receipt".to_owned() }), 3).is_err());
    }

    #[test]
    fn a_refusal_has_verdicts_or_is_one_of_the_whole() {
        let receipt = Receipt { refused: 3, ..Receipt::default() };
        assert!(matches!(outcome(refused(422, Some(receipt)), 3), Ok(Answer::Judged(Receipt { refused: 3, .. }))));
        let problem = Problem::new(413, "too-large", "The body is too large", "because");
        let large = Err(ClientError::Refused(Box::new(problem)));
        assert!(matches!(outcome(large, 3), Ok(Answer::Refused(reason)) if reason == "because"));
    }

    #[test]
    fn a_receipt_is_for_every_event_or_for_none_that_could_be_read() {
        let receipt = |accepted, refused| Receipt { accepted, refused, ..Receipt::default() };
        assert!(matches!(outcome(Ok(receipt(2, 1)), 3), Ok(Answer::Judged(_))));
        for short in [receipt(0, 0), receipt(2, 0), receipt(3, 1), receipt(0, 1)] {
            assert!(outcome(Ok(short), 3).is_err());
        }
        assert!(outcome(refused(422, Some(receipt(0, 1))), 3).is_err());
        assert!(matches!(outcome(refused(400, Some(receipt(0, 1))), 3), Ok(Answer::Judged(_))));
    }

    #[tokio::test]
    async fn only_what_is_damaged_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = |id: Uuid, ending: &str| dir.path().join(format!("{id}.{ending}"));
        let (spill, _) = Spill::open(dir.path()).unwrap();
        let spill = Arc::new(spill);
        let tried = async |id: Uuid| unread(&spill, id, &spill.read(id).unwrap_err()).await;
        let (gone, unreadable, torn, stuck) =
            (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3), Uuid::from_u128(4));
        std::fs::create_dir(path(unreadable, "batch")).unwrap();
        std::fs::write(path(torn, "batch"), "torn").unwrap();
        std::fs::write(path(stuck, "batch"), "torn").unwrap();
        std::fs::create_dir(path(stuck, "damaged")).unwrap();
        assert!(matches!(tried(gone).await, Done::Unread { file: Unread::Missing, .. }));
        assert!(matches!(tried(unreadable).await, Done::Unread { file: Unread::There, .. }));
        assert!(matches!(tried(torn).await, Done::Unread { file: Unread::Aside, .. }));
        assert!(matches!(tried(stuck).await, Done::Unread { file: Unread::There, .. }));
        assert!(path(torn, "damaged").exists() && path(unreadable, "batch").exists() && path(stuck, "batch").exists());
    }
}
