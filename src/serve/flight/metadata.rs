//! What Flight SQL says about the server and its types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{Nullable, Searchable, SqlInfo, SqlSupportedTransaction, XdbcDataType};

use crate::{Error, Result};

/// What the server can do.
pub(super) fn sql_info() -> Result<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "salmon");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, "1.5");
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::SqlDdlCatalog, false);
    info.append(SqlInfo::SqlDdlSchema, false);
    info.append(SqlInfo::SqlDdlTable, false);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.append(SqlInfo::SqlAllTablesAreSelectable, true);
    info.build().map_err(|e| Error::internal("Flight SQL", "cannot describe itself").because(e))
}

/// The types that columns have, for drivers that ask by the names of ODBC.
pub(super) fn types() -> Result<XdbcTypeInfoData> {
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, kind, size, radix, quote) in [
        ("BOOLEAN", XdbcDataType::XdbcBit, 1, None, None),
        ("INTEGER", XdbcDataType::XdbcInteger, 32, Some(2), None),
        ("BIGINT", XdbcDataType::XdbcBigint, 64, Some(2), None),
        ("REAL", XdbcDataType::XdbcReal, 24, Some(2), None),
        ("DOUBLE", XdbcDataType::XdbcDouble, 53, Some(2), None),
        ("VARCHAR", XdbcDataType::XdbcVarchar, i32::MAX, None, Some("'")),
        ("TIMESTAMP", XdbcDataType::XdbcTimestamp, 32, None, Some("'")),
    ] {
        types.append(XdbcTypeInfo {
            type_name: name.into(),
            data_type: kind,
            column_size: Some(size),
            literal_prefix: quote.map(String::from),
            literal_suffix: quote.map(String::from),
            create_params: None,
            nullable: Nullable::NullabilityNullable,
            case_sensitive: quote.is_some(),
            searchable: Searchable::Full,
            unsigned_attribute: Some(false),
            fixed_prec_scale: false,
            auto_increment: Some(false),
            local_type_name: Some(name.into()),
            minimum_scale: None,
            maximum_scale: None,
            sql_data_type: kind,
            datetime_subcode: None,
            num_prec_radix: radix,
            interval_precision: None,
        });
    }
    types.build().map_err(|e| Error::internal("Flight SQL", "cannot describe its types").because(e))
}

/// The columns of the answer about primary keys.
pub(super) fn primary_keys() -> SchemaRef {
    keys(&[
        ("catalog_name", true),
        ("db_schema_name", true),
        ("table_name", false),
        ("column_name", false),
        ("key_name", true),
    ])
    .with("key_sequence", DataType::Int32)
    .build()
}

/// The columns of the answers about foreign keys.
pub(super) fn foreign_keys() -> SchemaRef {
    keys(&[
        ("pk_catalog_name", true),
        ("pk_db_schema_name", true),
        ("pk_table_name", false),
        ("pk_column_name", false),
        ("fk_catalog_name", true),
        ("fk_db_schema_name", true),
        ("fk_table_name", false),
        ("fk_column_name", false),
    ])
    .with("key_sequence", DataType::Int32)
    .and(keys(&[("fk_key_name", true), ("pk_key_name", true)]))
    .with("update_rule", DataType::UInt8)
    .with("delete_rule", DataType::UInt8)
    .build()
}

struct Columns(Vec<Field>);

fn keys(names: &[(&str, bool)]) -> Columns {
    Columns(names.iter().map(|(name, nullable)| Field::new(*name, DataType::Utf8, *nullable)).collect())
}

impl Columns {
    fn with(mut self, name: &str, kind: DataType) -> Self {
        self.0.push(Field::new(name, kind, false));
        self
    }

    fn and(mut self, other: Columns) -> Self {
        self.0.extend(other.0);
        self
    }

    fn build(self) -> SchemaRef {
        Arc::new(Schema::new(self.0))
    }
}
