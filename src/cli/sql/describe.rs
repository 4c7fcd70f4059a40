//! `\d` and its kind: what there is to ask.
//!
//! In: the catalog. Out: tables of texts on standard output.

use std::io::IsTerminal;

use datafusion::catalog::SchemaProvider;
use datafusion::common::TableReference;
use datafusion::logical_expr::Documentation;

use super::output::{say, texts};
use super::pager;
use super::query::Asker;
use super::settings::Settings;
use crate::catalog::views;
use crate::query::{CATALOG, SCHEMA};
use crate::{Error, Result, table};

/// `\d`: every table and view, or the columns of one.
pub(super) async fn tables(asker: &Asker, settings: &Settings, name: &str) -> Result<()> {
    if !name.is_empty() {
        return columns(asker, settings, name).await;
    }
    let mut rows = Vec::new();
    for (schema, provider) in schemas(asker) {
        for name in provider.table_names() {
            let (kind, doc) = match (table::by_name(&name), views::by_name(&name)) {
                (Some(table), _) => ("table", table.doc.to_string()),
                (None, Some(view)) => ("view", view.doc().to_string()),
                (None, None) => ("added", String::new()),
            };
            rows.push([schema.clone(), name, kind.into(), doc]);
        }
    }
    show(settings, ["schema", "name", "kind", "a row is"], &rows)
}

/// `\dv`: every view, or the columns and the text of one.
pub(super) async fn views(asker: &Asker, settings: &Settings, name: &str) -> Result<()> {
    if name.is_empty() {
        let rows: Vec<_> = views::all().iter().map(|view| [view.name.to_string(), view.doc().to_string()]).collect();
        return show(settings, ["view", "a row is"], &rows);
    }
    columns(asker, settings, name).await?;
    match views::by_name(name) {
        Some(view) => say(&format!("{}\n", view.sql.trim_end())),
        None => Err(Error::query(name, "is no view; \\dv lists them")),
    }
}

async fn columns(asker: &Asker, settings: &Settings, name: &str) -> Result<()> {
    // Planned, so that an unknown name is told as in any statement.
    let text = format!("select * from {name} limit 0");
    let plan = asker.catalog.plan(&asker.session, &text, &settings.params).await?;
    let reference = TableReference::from(name);
    let base = reference.table().split('@').next().unwrap_or_default();
    let declared = table::by_name(base);
    let doc = |column: &str| {
        let found = declared.iter().flat_map(|table| &table.columns).find(|declared| declared.name == column);
        found.map(|column| column.doc.to_string()).unwrap_or_default()
    };
    let rows: Vec<_> = plan
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let null = if field.is_nullable() { "null" } else { "" };
            [field.name().clone(), crate::table::sql_type(field.data_type()), null.into(), doc(field.name())]
        })
        .collect();
    show(settings, ["column", "type", "", "meaning"], &rows)
}

/// `\df`: the functions of salmon, or the documentation of any one.
pub(super) fn functions(asker: &Asker, settings: &Settings, name: &str) -> Result<()> {
    let state = asker.session.state();
    let wanted = name.trim_end_matches("()").to_lowercase();
    if wanted.is_empty() {
        let ours = |doc: &&Documentation| crate::query::functions::is_ours(doc);
        let mut rows: Vec<_> = state
            .scalar_functions()
            .values()
            .filter_map(|f| f.documentation())
            .filter(ours)
            .map(|doc| [doc.syntax_example.clone(), first_sentence(&doc.description)])
            .collect();
        rows.sort();
        return show(settings, ["function", "gives"], &rows);
    }
    let scalar = state.scalar_functions().get(&wanted).map(|f| f.documentation().cloned());
    let aggregate = state.aggregate_functions().get(&wanted).map(|f| f.documentation().cloned());
    let window = state.window_functions().get(&wanted).map(|f| f.documentation().cloned());
    let Some(found) = scalar.or(aggregate).or(window) else {
        let names = state
            .scalar_functions()
            .keys()
            .chain(state.aggregate_functions().keys())
            .chain(state.window_functions().keys());
        let near = crate::catalog::nearest(&wanted, names.map(String::as_str));
        let near = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
        return Err(Error::query(
            format!("function {wanted}"),
            format!("is not there; {near}\\df lists those of salmon"),
        ));
    };
    let Some(doc) = found else { return say(&format!("{wanted}: there is no documentation\n")) };
    let mut text = format!("{}\n\n{}\n", doc.syntax_example, doc.description);
    for (argument, meaning) in doc.arguments.iter().flatten() {
        text += &format!("  {argument}: {meaning}\n");
    }
    if let Some(example) = &doc.sql_example {
        text += &format!("\n{example}\n");
    }
    say(&text)
}

/// `\dm`: the models.
pub(super) async fn models(asker: &Asker, settings: &Settings) -> Result<()> {
    let rows: Vec<_> = asker.catalog.models().await?.into_iter().map(|name| [name]).collect();
    show(settings, ["model"], &rows)
}

/// `\l`: the runs.
pub(super) fn runs(asker: &Asker) -> Result<()> {
    let lines = asker.catalog.runs().map(|(alias, store)| format!("{}  {store}\n", alias.unwrap_or(SCHEMA)));
    say(&lines.collect::<String>())
}

/// The schemas that hold tables; the first run's is there under its alias only, where it has one.
pub(super) fn schemas(asker: &Asker) -> Vec<(String, std::sync::Arc<dyn SchemaProvider>)> {
    let Some(catalog) = asker.session.catalog(CATALOG) else { return Vec::new() };
    let names = catalog.schema_names().into_iter().filter(|name| name != "information_schema");
    names.filter_map(|name| Some((name.clone(), catalog.schema(&name)?))).collect()
}

fn first_sentence(text: &str) -> String {
    text.split_once(". ").map_or(text, |(first, _)| first).to_string()
}

fn show<const N: usize>(settings: &Settings, names: [&str; N], rows: &[[String; N]]) -> Result<()> {
    let text = format!("{}\n", arrow::util::pretty::pretty_format_batches(&[texts(names, rows)?])?);
    if settings.pager && std::io::stdout().is_terminal() { pager::show(text.as_bytes()) } else { say(&text) }
}
