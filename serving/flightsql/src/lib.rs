//! Arrow Flight SQL over the serving layer.
