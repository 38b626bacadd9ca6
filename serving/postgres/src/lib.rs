//! The PostgreSQL protocol over the serving layer.
