//! Decompressing a body, never to more than the limit.

use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use reckon_data::ingest::Compression;

/// Largest window of a zstd frame that is accepted, as a power of two: what `zstd` itself makes without `--ultra`.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Why a body could not be decompressed.
#[derive(Debug)]
pub(super) enum InflateError {
    /// It has more bytes than the limit.
    TooLarge,
    /// It is truncated or corrupt.
    Corrupt(io::Error),
}

/// The body, decompressed; at most `limit` bytes.
pub(super) fn inflate(body: Bytes, compression: Compression, limit: usize) -> Result<Bytes, InflateError> {
    match compression {
        Compression::Identity if body.len() > limit => Err(InflateError::TooLarge),
        Compression::Identity => Ok(body),
        Compression::Gzip => read(MultiGzDecoder::new(&body[..]), body.len(), limit),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(&body[..]).map_err(InflateError::Corrupt)?;
            decoder.window_log_max(window_log(limit)).map_err(InflateError::Corrupt)?;
            read(decoder, body.len(), limit)
        }
    }
}

/// A window need not be larger than what may come out of it.
const fn window_log(limit: usize) -> u32 {
    let of_limit = limit.next_power_of_two().trailing_zeros();
    if of_limit > 27 {
        27
    } else if of_limit < ZSTD_WINDOW_LOG {
        ZSTD_WINDOW_LOG
    } else {
        of_limit
    }
}

fn read(source: impl Read, compressed: usize, limit: usize) -> Result<Bytes, InflateError> {
    // JSON shrinks to about a fifth; a body that claims less has its room grown step by step.
    let mut inflated = Vec::with_capacity(compressed.saturating_mul(5).min(limit));
    source.take(limit as u64 + 1).read_to_end(&mut inflated).map_err(InflateError::Corrupt)?;
    if inflated.len() > limit { Err(InflateError::TooLarge) } else { Ok(Bytes::from(inflated)) }
}
