//! What can go wrong with entities' records.

use crate::ServingError;

/// Why a record cannot be read or written; a variant for every status that a caller tells apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntityError {
    /// The record cannot be like that.
    #[error("{field}: {message}")]
    Invalid {
        /// The part of it that is wrong.
        field: String,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// There is no such record.
    #[error("there is no record of entity {entity_id:?}")]
    NotFound {
        /// Of which entity.
        entity_id: String,
    },
    /// The record is not the one that `If-Match` or `If-None-Match` names.
    #[error("the record of entity {entity_id:?} {message}")]
    Changed {
        /// Of which entity.
        entity_id: String,
        /// How it is instead.
        message: String,
    },
    /// Not now, but perhaps soon.
    #[error("no records of entities now: {message}")]
    Unavailable {
        /// What stands in the way.
        message: String,
    },
    /// An object of the data directory is not what was written there.
    #[error(
        "entities: {path} is damaged ({reason}): put it back from a backup; or, to give up what it said, replace its contents by the \
         words `given up`"
    )]
    Damaged {
        /// The object, below `entities/`.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl EntityError {
    pub(crate) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    pub(crate) fn unavailable(message: impl ToString) -> Self {
        Self::Unavailable { message: message.to_string() }
    }
}

impl From<object_store::Error> for EntityError {
    fn from(error: object_store::Error) -> Self {
        Self::unavailable(error)
    }
}

impl From<fjall::Error> for EntityError {
    fn from(error: fjall::Error) -> Self {
        Self::unavailable(format!("the store of this machine has failed: {error}"))
    }
}

impl From<EntityError> for ServingError {
    fn from(error: EntityError) -> Self {
        match error {
            EntityError::Invalid { message, .. } => Self::bad("entity", message),
            EntityError::NotFound { entity_id } => {
                Self::NotFound { what: format!("the record of entity {entity_id:?}") }
            }
            other => Self::unavailable(other),
        }
    }
}
