//! What every part knows: the functions of the batch queries, and the store.

use std::path::PathBuf;
use std::sync::Arc;

use ballista_core::registry::BallistaFunctionRegistry;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::context::{SessionConfig, SessionState};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::SessionContext;
use object_store::ObjectStore;
use reckon_batch::recompute::{distinct_users, query_functions};
use reckon_tables::provider::STORE_URL;
use url::Url;

/// Adds the functions of the batch queries to a session.
pub fn add_functions(session: &SessionContext) {
    query_functions().into_iter().for_each(|function| session.register_udf(function));
    session.register_udaf(distinct_users());
}

/// The functions for whoever runs parts of a plan.
pub fn registry() -> BallistaFunctionRegistry {
    let mut registry = BallistaFunctionRegistry::default();
    for function in query_functions() {
        registry.scalar_functions.insert(function.name().to_owned(), Arc::<ScalarUDF>::new(function));
    }
    let users = distinct_users();
    registry.aggregate_functions.insert(users.name().to_owned(), Arc::<AggregateUDF>::new(users));
    registry
}

/// A session of the scheduler, which makes plans.
pub fn state(config: SessionConfig, store: &Arc<dyn ObjectStore>) -> Result<SessionState> {
    let env = environment(store, None)?;
    let state = SessionStateBuilder::new().with_default_features().with_config(config).with_runtime_env(env).build();
    let session = SessionContext::new_with_state(state);
    add_functions(&session);
    Ok(session.state())
}

/// Where plans run; what does not fit in memory goes to `spill`.
pub fn environment(store: &Arc<dyn ObjectStore>, spill: Option<PathBuf>) -> Result<Arc<RuntimeEnv>> {
    let builder = RuntimeEnvBuilder::new();
    let builder = match spill {
        Some(spill) => builder.with_temp_file_path(spill),
        None => builder,
    };
    let env = builder.build_arc()?;
    let url = Url::parse(STORE_URL).map_err(|error| DataFusionError::External(Box::new(error)))?;
    env.register_object_store(&url, Arc::clone(store));
    Ok(env)
}
