//! What tickets and handles of prepared statements hold: all that is needed to answer, so that any serving node can.

use arrow_flight::FlightData;
use prost::Message as _;
use reckon_serving::sql::QUERY_BYTES_MAX;
use tonic::Status;
use uuid::Uuid;

use crate::parameters::PARAMETERS_BYTES_MAX;
use crate::status::invalid;

/// Longest handle, in bytes: a query, its parameters, and what is small.
pub const HANDLE_BYTES_MAX: usize = QUERY_BYTES_MAX + PARAMETERS_BYTES_MAX + 4_096;

/// A question, as it stands in a ticket or a handle. Fields that a newer version adds are skipped by an older one.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Asked {
    /// The query.
    #[prost(string, tag = "1")]
    pub query: String,
    /// As of which version of batch, as somebody wrote it.
    #[prost(string, optional, tag = "2")]
    pub as_of: Option<String>,
    /// The parameters' schema and their one row, as they came; nothing when there are none.
    #[prost(message, repeated, tag = "3")]
    pub parameters: Vec<FlightData>,
    /// What the answer is cancelled by, 16 bytes; nobody else can guess it.
    #[prost(bytes = "vec", tag = "4")]
    pub id: Vec<u8>,
}

impl Asked {
    /// The bytes of a ticket or a handle.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// Reads what a client has sent.
    ///
    /// # Errors
    /// When nobody here has made it.
    pub fn read(bytes: &[u8]) -> Result<Self, Status> {
        if bytes.len() > HANDLE_BYTES_MAX {
            return Err(invalid("ticket", format!("it has {} bytes, the limit is {HANDLE_BYTES_MAX}", bytes.len())));
        }
        let asked = Self::decode(bytes).map_err(|error| invalid("ticket", format!("it cannot be read: {error}")))?;
        if asked.query.is_empty() {
            return Err(invalid("ticket", "it holds no query: ask GetFlightInfo for one"));
        }
        Ok(asked)
    }

    /// What it is cancelled by; none in a handle of a prepared statement that was not executed yet.
    pub fn id(&self) -> Option<Uuid> {
        Uuid::from_slice(&self.id).ok()
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let parameter = FlightData::new().with_data_header(vec![1_u8, 2]).with_data_body(vec![3_u8; 100]);
        let asked = Asked {
            query: "select $1".to_owned(),
            as_of: Some("version:7".to_owned()),
            parameters: vec![parameter],
            id: Uuid::from_u128(5).as_bytes().to_vec(),
        };
        let read = Asked::read(&asked.to_bytes()).unwrap();
        assert_eq!((&read, read.id()), (&asked, Some(Uuid::from_u128(5))));
    }

    #[test]
    fn what_nobody_here_has_made_is_refused() {
        let long = Asked { query: "x".repeat(HANDLE_BYTES_MAX + 1), ..Asked::default() }.to_bytes();
        for bytes in [&b""[..], b"\xff\xff", b"select 1", &long] {
            assert_eq!(Asked::read(bytes).unwrap_err().code(), Code::InvalidArgument);
        }
        assert_eq!(Asked { query: "select 1".to_owned(), ..Asked::default() }.id(), None);
    }
}
