//! PostgreSQL's catalogue, `pg_catalog`, for the queries that mention it: by it `\d`, JDBC and dashboards find the tables.
//!
//! Its own tables and functions are those of `datafusion-pg-catalog`, made once for all; what it says of our tables is
//! what they were when first described: their columns do not change while a process runs. No file is read for it. What
//! clients look for and it has not is in `amended`.

mod amended;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::SchemaProvider;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion::prelude::SessionContext;
use datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::generate_series_arg_coercion::CoerceIntArgsToBigInt;
use datafusion_pg_catalog::pg_catalog::oid_type_planner::PgOidTypePlanner;
use datafusion_pg_catalog::pg_catalog::{
    self as pg, PgCatalogSchemaProvider, PgCatalogStaticTables, array_bounds_udf, format_type, has_privilege_udf,
    pg_get_expr_udf, quote_ident_udf,
};
use futures::FutureExt as _;
use parking_lot::Mutex;

use self::amended::{Amended, SETTINGS};
use super::types::Types;
use crate::ServingError;

/// The database's name, as clients are told.
pub const DATABASE: &str = "reckon";
/// The schema of our tables.
const SCHEMA: &str = "public";
/// The catalogue's schema.
const PG_CATALOG: &str = "pg_catalog";
/// What clients take for the version of the server.
const VERSION: &str = concat!("PostgreSQL 16.6 (Reckon ", env!("CARGO_PKG_VERSION"), "), DataFusion");
/// A query that holds none of these needs no catalogue. One that holds one by chance loses nothing.
const MENTIONS: [&str; 24] = [
    "pg_",
    "version",
    "current_",
    "session_user",
    "has_table_privilege",
    "has_schema_privilege",
    "has_database_privilege",
    "has_any_column_privilege",
    "format_type",
    "_description",
    "quote_ident",
    "parse_ident",
    "array_upper",
    "array_lower",
    "regclass",
    "regtype",
    "regproc",
    "regnamespace",
    "::oid",
    "information_schema",
    "inet_",
    "txid_",
    "set_config",
    "to_reg",
];

/// Whether a query may need the catalogue.
#[must_use]
pub fn is_mentioned(query: &str) -> bool {
    let query = query.to_lowercase();
    MENTIONS.iter().any(|word| query.contains(word))
}

/// The tables as they were described first, by name.
type Tables = Arc<Mutex<BTreeMap<String, SchemaRef>>>;

/// The catalogue of one serving layer.
#[derive(Debug, Default)]
pub struct Catalogue {
    tables: Tables,
    /// Gives names their numbers, which stay.
    schema: Mutex<Option<Arc<dyn SchemaProvider>>>,
}

impl Catalogue {
    /// Adds `pg_catalog` and its functions to a context whose tables are registered, if the query mentions them.
    ///
    /// # Errors
    /// None that can be caused from outside.
    pub fn install(&self, context: &SessionContext, query: &str) -> std::result::Result<(), ServingError> {
        if !is_mentioned(query) {
            return Ok(());
        }
        let default = context.state().config().options().catalog.default_catalog.clone();
        let catalogue = context.catalog(&default);
        let catalogue = catalogue.ok_or_else(|| ServingError::internal("the context has no catalogue"))?;
        if let Some(public) = catalogue.schema(SCHEMA) {
            for name in public.table_names() {
                // Ours lie in memory: nothing is waited for.
                if let Some(Some(table)) = public.table(&name).now_or_never().transpose()? {
                    self.tables.lock().entry(name).or_insert_with(|| table.schema());
                }
            }
        }
        catalogue.register_schema(PG_CATALOG, self.schema()?)?;
        FUNCTIONS.iter().for_each(|function| context.register_udf(function.clone()));
        let statics = statics()?;
        context.register_udtf("pg_get_keywords", Arc::clone(&statics.pg_get_keywords) as _);
        let state = context.state_ref();
        let before = state.read().clone();
        let types = Types(Some(Arc::new(PgOidTypePlanner)));
        let planning = SessionStateBuilder::new_from_existing(before).with_type_planner(Arc::new(types));
        *state.write() = planning.build();
        CoerceIntArgsToBigInt::widen(context);
        Ok(())
    }

    fn schema(&self) -> Result<Arc<dyn SchemaProvider>> {
        let mut schema = self.schema.lock();
        if let Some(schema) = &*schema {
            return Ok(Arc::clone(schema));
        }
        let described = Described(Arc::clone(&self.tables));
        let made = PgCatalogSchemaProvider::try_new(described, statics()?, EmptyContextProvider)?;
        let made: Arc<dyn SchemaProvider> = Arc::new(Amended(Arc::new(made)));
        *schema = Some(Arc::clone(&made));
        Ok(made)
    }
}

/// The tables that are the same everywhere: types, operators, functions.
static STATICS: LazyLock<Result<Arc<PgCatalogStaticTables>>> =
    LazyLock::new(|| PgCatalogStaticTables::try_new().map(Arc::new));

fn statics() -> Result<Arc<PgCatalogStaticTables>> {
    STATICS.as_ref().map(Arc::clone).map_err(|error| DataFusionError::Internal(error.to_string()))
}

/// Our tables, to whoever describes them.
#[derive(Debug, Clone)]
struct Described(Tables);

#[async_trait]
impl CatalogInfo for Described {
    async fn catalog_names(&self) -> Result<Vec<String>> {
        Ok(vec![DATABASE.to_owned()])
    }

    async fn schema_names(&self, catalog: &str) -> Result<Option<Vec<String>>> {
        Ok((catalog == DATABASE)
            .then(|| vec![SCHEMA.to_owned(), PG_CATALOG.to_owned(), "information_schema".to_owned()]))
    }

    async fn table_names(&self, _: &str, schema: &str) -> Result<Option<Vec<String>>> {
        Ok((schema == SCHEMA).then(|| self.0.lock().keys().cloned().collect()))
    }

    async fn table_schema(&self, _: &str, schema: &str, table: &str) -> Result<Option<SchemaRef>> {
        Ok(if schema == SCHEMA { self.0.lock().get(table).cloned() } else { None })
    }

    async fn table_type(&self, _: &str, schema: &str, _: &str) -> Result<Option<TableType>> {
        Ok((schema == SCHEMA).then_some(TableType::Base))
    }
}

/// The catalogue's functions.
static FUNCTIONS: LazyLock<Vec<ScalarUDF>> = LazyLock::new(|| {
    let privileges = [
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_any_column_privilege",
        "has_function_privilege",
        "has_type_privilege",
    ];
    let mut functions = vec![
        pg::create_current_database_udf(DATABASE),
        pg::create_current_schema_udf(),
        pg::create_current_schemas_udf(),
        pg::create_pg_get_userbyid_udf(),
        pg::create_pg_table_is_visible(),
        format_type::create_format_type_udf(),
        pg::create_session_user_udf(),
        pg_get_expr_udf::create_pg_get_expr_udf(),
        pg::create_pg_get_partkeydef_udf(),
        pg::create_pg_relation_is_publishable_udf(),
        pg::create_pg_get_statisticsobjdef_columns_udf(),
        pg::create_pg_encoding_to_char_udf(),
        pg::create_pg_backend_pid_udf(),
        pg::create_pg_relation_size_udf(),
        pg::create_pg_total_relation_size_udf(),
        pg::create_pg_stat_get_numscans(),
        pg::create_pg_get_constraintdef(),
        pg::create_pg_get_partition_ancestors_udf(),
        quote_ident_udf::create_quote_ident_udf(),
        quote_ident_udf::create_parse_ident_udf(),
        array_bounds_udf::create_array_upper_udf(),
        array_bounds_udf::create_array_lower_udf(),
        amended::expand_array(),
    ];
    functions.extend(privileges.map(has_privilege_udf::create_has_privilege_udf));
    functions.extend(constants());
    functions
});

/// Functions that say the same whatever they are asked: there is nothing here that they could say more about.
fn constants() -> impl Iterator<Item = ScalarUDF> {
    let text = |text: &str| ScalarValue::Utf8(Some(text.to_owned()));
    let no_text = ScalarValue::Utf8(None);
    let values = [
        ("version", text(VERSION)),
        ("current_catalog", text(DATABASE)),
        ("pg_is_in_recovery", ScalarValue::Boolean(Some(false))),
        ("pg_function_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_type_is_visible", ScalarValue::Boolean(Some(true))),
        ("pg_is_other_temp_schema", ScalarValue::Boolean(Some(false))),
        ("pg_my_temp_schema", ScalarValue::Int32(Some(0))),
        ("pg_indexes_size", ScalarValue::Int64(Some(0))),
        ("pg_table_size", ScalarValue::Int64(Some(0))),
        ("pg_database_size", ScalarValue::Int64(Some(0))),
        ("obj_description", no_text.clone()),
        ("col_description", no_text.clone()),
        ("shobj_description", no_text.clone()),
        ("pg_get_viewdef", no_text.clone()),
        ("pg_get_indexdef", no_text.clone()),
        ("pg_get_triggerdef", no_text.clone()),
        ("pg_get_function_result", no_text.clone()),
        ("pg_get_function_arguments", no_text.clone()),
        ("pg_get_function_identity_arguments", no_text.clone()),
        ("pg_get_serial_sequence", no_text.clone()),
        ("pg_tablespace_location", no_text.clone()),
        ("pg_size_pretty", no_text.clone()),
        ("inet_server_addr", no_text.clone()),
        ("inet_client_addr", no_text),
        ("inet_server_port", ScalarValue::Int32(None)),
        ("txid_current", ScalarValue::Int64(Some(0))),
    ];
    let settings = ScalarUDF::new_from_impl(CurrentSetting { signature: Signature::variadic_any(Volatility::Stable) });
    values.into_iter().map(|(name, value)| ScalarUDF::new_from_impl(Constant::new(name, value))).chain([settings])
}

/// A function that always says the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl Constant {
    fn new(name: &'static str, value: ScalarValue) -> Self {
        let any = TypeSignature::VariadicAny;
        let none = TypeSignature::Nullary;
        Self { name, value, signature: Signature::one_of(vec![none, any], Volatility::Stable) }
    }
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

/// `current_setting(name)`: what clients look for at their start; null of all others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting {
    signature: Signature,
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &'static str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let name = match arguments.args.first() {
            Some(ColumnarValue::Scalar(name)) => name.try_as_str().flatten().unwrap_or_default().to_lowercase(),
            _ => String::new(),
        };
        let value = SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(value)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::prelude::SessionConfig;

    use super::*;

    async fn ask(catalogue: &Catalogue, query: &str) -> String {
        let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        context.register_batch("stats", RecordBatch::try_from_iter([("count", column)]).unwrap()).unwrap();
        catalogue.install(&context, query).unwrap();
        let batches = context.sql(query).await.unwrap().collect().await.unwrap();
        format!("{:?}", batches.iter().map(RecordBatch::columns).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn tables_are_described_and_their_numbers_stay() {
        let catalogue = Catalogue::default();
        let query = "select oid, relname from pg_catalog.pg_class where relname = 'stats'";
        let first = ask(&catalogue, query).await;
        assert!(first.contains("stats"), "{first}");
        assert_eq!(ask(&catalogue, query).await, first, "in another context");
        let query = "select attname from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid \
                     where c.relname = 'stats'";
        assert!(ask(&catalogue, query).await.contains("count"));
    }

    #[tokio::test]
    async fn functions_that_clients_begin_with_are_there() {
        let query = "select version() as v, current_database() as d, current_schema() as s, \
                     current_setting('server_version_num') as n, obj_description(1, 'pg_class') as o";
        let answer = ask(&Catalogue::default(), query).await;
        for text in ["PostgreSQL 16.6", "reckon", "public", "160006"] {
            assert!(answer.contains(text), "{answer}");
        }
    }

    #[tokio::test]
    async fn what_the_library_lacks_is_there() {
        let catalogue = Catalogue::default();
        let query = "select setting, unit from pg_catalog.pg_settings where name = 'max_index_keys'";
        assert!(ask(&catalogue, query).await.contains("32"));
        let query = "select c.relname, c.relacl from pg_catalog.pg_class c where c.relname = 'stats'";
        let answer = ask(&catalogue, query).await;
        assert!(answer.contains("stats") && answer.contains("null"), "{answer}");
        let keys = "unnest(_pg_expandarray(i.indkey))";
        let query = format!(
            "select max(k.n), max(get_field(k.keys, 'x')) from (select get_field({keys}, 'n') as n, {keys} as keys \
             from pg_catalog.pg_index i where i.indkey = '1 2') k where get_field(k.keys, 'x') = k.n"
        );
        let answer = ask(&catalogue, &query).await;
        assert_eq!(answer.matches("  2,\n").count(), 2, "{answer}");
    }

    #[test]
    fn what_is_counted_needs_no_catalogue() {
        assert!(!is_mentioned("select sum(count) from stats where entity_id = 'a'"));
        assert!(is_mentioned("SELECT Version()"));
    }
}
