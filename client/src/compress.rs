//! Bodies of events, compressed.

use bytes::Bytes;

/// Bodies of up to so many bytes are sent as they are: they fit into a packet anyway.
const LEAST_BYTES: usize = 1_024;
/// From so many bytes on, it takes longer than the runtime's threads should be kept.
const LONG_BYTES: usize = 64 * 1_024;
/// Events shrink to about a fifth at the fastest level already.
const LEVEL: i32 = 1;

/// The body as one zstd frame; none when that does not save anything.
pub(crate) async fn compressed(body: &Bytes) -> Option<Bytes> {
    if body.len() <= LEAST_BYTES {
        return None;
    }
    if body.len() < LONG_BYTES {
        return zstd_frame(body);
    }
    let body = body.clone();
    tokio::task::spawn_blocking(move || zstd_frame(&body)).await.ok().flatten()
}

fn zstd_frame(body: &[u8]) -> Option<Bytes> {
    // What cannot be compressed is sent as it is.
    let frame = zstd::bulk::compress(body, LEVEL).ok()?;
    (frame.len() < body.len()).then(|| Bytes::from(frame))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn long_bodies_are_compressed_and_come_out_the_same() {
        for lines in [30, 5_000] {
            let body = Bytes::from("{\"entity_id\":\"video-1\",\"event_type\":\"view\"}\n".repeat(lines));
            let frame = compressed(&body).await.unwrap();
            assert!(frame.len() < body.len() / 2, "{lines} lines");
            assert_eq!(zstd::stream::decode_all(&frame[..]).unwrap(), body);
        }
    }

    #[tokio::test]
    async fn what_does_not_get_smaller_is_left_alone() {
        assert_eq!(compressed(&Bytes::from(vec![b'x'; LEAST_BYTES])).await, None, "too short");
        let noise: Vec<u8> = (0..2 * LEAST_BYTES).map(|_| rand::random()).collect();
        assert_eq!(compressed(&Bytes::from(noise)).await, None);
    }
}
