//! Row accounting: every row of a table follows from rows of the tables it was made from.
//!
//! In: a manifest and those of its lineage. Out: one line for each rule of `sql/audit/<table>.sql` that does not hold.
//! A rule sees the parameters of the lineage as `$name`, the length of a list as `$name_count`, and the names in a list
//! of principles as `$name_names`.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use serde_json::Value;

use crate::principle::{Library, Templates};
use crate::query::{self, Models, Params, SessionOptions};
use crate::store::{self, Kind, Lineage, Manifest, Store, Version};
use crate::{Error, Result, table};

/// The statement that accounts for what a stage made of a table, and the inputs it reads.
fn rules(table: &str, stage: &str) -> Vec<(&'static str, &'static [&'static str])> {
    match table {
        "principles" => vec![(include_str!("../../sql/audit/principles.sql"), &[])],
        "prompts" => vec![(include_str!("../../sql/audit/prompts.sql"), &[])],
        "demonstrations" => vec![(include_str!("../../sql/audit/demonstrations.sql"), &["prompts"])],
        "responses" => vec![(include_str!("../../sql/audit/responses.sql"), &["prompts"])],
        "pairs" => vec![(include_str!("../../sql/audit/pairs.sql"), &["responses"])],
        "judgments" => vec![(include_str!("../../sql/audit/judgments.sql"), &["pairs"])],
        "preferences" => vec![(include_str!("../../sql/audit/preferences.sql"), &["judgments"])],
        "rollouts" => vec![(include_str!("../../sql/audit/rollouts.sql"), &["prompts"])],
        "answers" => vec![(include_str!("../../sql/audit/answers.sql"), &["prompts"])],
        "evaluations" => vec![(include_str!("../../sql/audit/evaluations.sql"), &[])],
        "metrics" => {
            let mut rules: Vec<(&str, &[&str])> = vec![(include_str!("../../sql/audit/metrics.sql"), &[])];
            match stage {
                "sft" => rules.push((include_str!("../../sql/audit/metrics_sft.sql"), &["demonstrations"])),
                "reward" => rules.push((include_str!("../../sql/audit/metrics_reward.sql"), &["preferences"])),
                policy if policy.starts_with("policy:") => {
                    rules.push((include_str!("../../sql/audit/metrics_policy.sql"), &["prompts"]));
                }
                _ => {}
            }
            rules
        }
        _ => vec![],
    }
}

/// What does not add up in a table version whose files are intact. `whole` says whether another version is.
///
/// # Errors
/// A store error when an input's manifest cannot be read; a query error when a rule cannot run.
pub(super) async fn check(store: &Store, manifest: &Manifest, whole: impl Fn(&Version) -> bool) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for (text, inputs) in rules(&manifest.name, &manifest.lineage.stage) {
        let params = params(&manifest.lineage);
        // A lineage of another salmon may lack what a rule asks for.
        let Some(params) = wanted(text, &params) else { continue };
        let options = SessionOptions { read_only: true, ..SessionOptions::default() };
        let templates = Arc::new(Templates::load(None, &Library::default())?);
        let ctx = query::session(Arc::new(Models::new()), templates, &options)?;
        let declared =
            |name: &str| table::by_name(name).ok_or_else(|| Error::internal("audit", format!("no table {name}")));
        store::bind(&ctx, store, &declared(&manifest.name)?, std::slice::from_ref(manifest))?;
        let mut known = true;
        for input in inputs {
            let versions = manifest.lineage.named().into_iter().map(|(_, version)| version);
            let versions = versions.filter(|v| v.artifact().kind == Kind::Table && v.artifact().name == *input);
            let mut manifests = Vec::new();
            for version in versions {
                match whole(&version) {
                    true => manifests.extend(Manifest::read(store, &version).await.ok().flatten()),
                    false => known = false,
                }
            }
            known &= !manifests.is_empty();
            if known {
                store::bind(&ctx, store, &declared(input)?, &manifests)?;
            }
        }
        if known {
            let rows = query::sql(&ctx, text, &params).await?.collect().await?;
            for batch in &rows {
                problems.extend(broken(batch)?);
            }
        }
    }
    Ok(problems)
}

/// The rules of a result that do not hold.
fn broken(batch: &RecordBatch) -> Result<Vec<String>> {
    let number = |at: usize| -> Result<Vec<i64>> {
        let column = arrow::compute::cast(batch.column(at), &DataType::Int64)?;
        Ok(column.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect())
    };
    let (found, expected) = (number(1)?, number(2)?);
    let rules = batch.column(0).as_string::<i32>();
    let held = |row: &usize| found.get(*row) != expected.get(*row);
    let line = |row: usize| {
        let (found, expected) = (found.get(row).copied().unwrap_or(0), expected.get(row).copied().unwrap_or(0));
        match expected {
            0 => format!("{found} {}", rules.value(row)),
            _ => format!("{found} {}; there must be {expected}", rules.value(row)),
        }
    };
    Ok((0..batch.num_rows()).filter(held).map(line).collect())
}

/// The parameters of a lineage as a statement sees them.
fn params(lineage: &Lineage) -> Vec<(String, datafusion::common::ScalarValue)> {
    use datafusion::common::ScalarValue;
    let mut found = vec![("stage".to_string(), ScalarValue::from(lineage.stage.as_str()))];
    for (name, value) in &lineage.parameters {
        match value {
            Value::Number(number) => found.push((name.clone(), ScalarValue::from(number.as_i64().unwrap_or(0)))),
            Value::Array(items) => {
                found.push((format!("{name}_count"), ScalarValue::from(items.len() as i64)));
                let names = items.iter().filter_map(|item| item.get("name")?.as_str());
                let names: Vec<ScalarValue> = names.map(ScalarValue::from).collect();
                let list = ScalarValue::List(ScalarValue::new_list_nullable(&names, &DataType::Utf8));
                found.push((format!("{name}_names"), list));
            }
            _ => {}
        }
    }
    found
}

/// Those that a statement names; `None` when one is missing.
fn wanted(text: &str, found: &[(String, datafusion::common::ScalarValue)]) -> Option<Params> {
    let mut params = Params::new();
    for name in text.split('$').skip(1) {
        let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let (_, value) = found.iter().find(|(known, _)| *known == name)?;
        params = params.with(name, value.clone());
    }
    Some(params)
}
