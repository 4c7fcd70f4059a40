//! Rows that earlier versions of a table hold already.
//!
//! In: versions of a table that the same models, templates and settings made, in this run or in one that it may take
//! from (`--reuse`). Out: a table `known_<name>` for the statement that makes the new version, and how many of its rows
//! are in it. A model's answer to a row depends on that row alone, so a known row has the bits that asking again gives,
//! and the version's fingerprint does not say where its rows came from.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::dataframe::DataFrame;
use datafusion::prelude::{SessionContext, lit};
use serde_json::{Value, json};

use super::rows::register;
use super::settings::Settings;
use crate::query::{self, Params};
use crate::stage::{self, Job};
use crate::store::{self, Artifact, Earlier, Lineage, Manifest, Version, canonical};
use crate::table::{self, Table};
use crate::{Error, Result};

/// How a statement finds its known rows.
pub(super) struct Known {
    /// The statement of `known_<name>`.
    pub(super) view: &'static str,
    /// The statement that counts.
    pub(super) count: &'static str,
    /// Parameters that choose rows and do not change them: earlier versions may have others.
    pub(super) free: &'static [&'static str],
    /// Whether rows depend on the seed.
    pub(super) seeded: bool,
}

impl Known {
    /// Whether a version of lineage `other` has rows as one of lineage `mine` has them.
    fn fits(&self, mine: &Lineage, other: &Lineage) -> bool {
        let fixed = |lineage: &Lineage| {
            let mut parameters = lineage.parameters.clone();
            parameters.retain(|name, _| !self.free.contains(&name.as_str()));
            canonical(&Value::Object(parameters))
        };
        (&other.stage, other.version, &other.sql) == (&mine.stage, mine.version, &mine.sql)
            && (&other.models, &other.templates) == (&mine.models, &mine.templates)
            && (!self.seeded || other.seed == mine.seed)
            && fixed(mine) == fixed(other)
    }

    /// Registers `earlier_<name>`, `earlier_prompts`, `earlier_principles` and `known_<name>`; gives how many of the rows
    /// that the stage makes are known, when there is any earlier version.
    pub(super) async fn register(
        &self,
        ctx: &SessionContext,
        job: &Job,
        name: &str,
        settings: &Settings,
    ) -> Result<Option<stage::Known>> {
        let earlier = job.earlier(name, |other| self.fits(job.lineage(), other)).await?;
        union(ctx, &format!("earlier_{name}"), &table::declared(name)?, &earlier)?;
        let mut prompts = Vec::with_capacity(earlier.len());
        for one in &earlier {
            prompts.push(Earlier { manifest: prompts_of(one).await?, store: one.store.clone() });
        }
        union(ctx, "earlier_prompts", &table::prompts(), &prompts)?;
        principles(ctx, &earlier)?;
        let view = query::sql(ctx, self.view, &Params::new()).await?.into_view();
        ctx.register_table(format!("known_{name}"), view)?;
        if earlier.is_empty() {
            return Ok(None);
        }
        let counted = query::sql(ctx, self.count, &settings.params()).await?.collect().await?;
        let number = |column: &str| -> Result<u64> {
            let batch = counted.iter().find(|batch| batch.num_rows() == 1);
            let value = batch.and_then(|batch| batch.column_by_name(column)?.as_primitive_opt::<Int64Type>());
            let value = value.ok_or_else(|| Error::internal(format!("known rows of {name}"), "were not counted"))?;
            Ok(value.value(0).unsigned_abs())
        };
        Ok(Some(stage::Known { known: number("known")?, total: number("total")? }))
    }
}

/// Registers the rows of all versions, each with the number of its version.
fn union(ctx: &SessionContext, name: &str, table: &Table, versions: &[Earlier]) -> Result<()> {
    let mut all: Option<DataFrame> = None;
    for (number, one) in versions.iter().enumerate() {
        let rows = store::provider(ctx, &one.store, table, std::slice::from_ref(&one.manifest))?;
        let rows = ctx.read_table(rows)?.with_column("version", lit(number as i64))?;
        all = Some(match all {
            Some(before) => before.union(rows)?,
            None => rows,
        });
    }
    match all {
        Some(all) => {
            ctx.register_table(name, all.into_view())?;
            Ok(())
        }
        None => {
            let mut fields = table.schema().fields().to_vec();
            fields.push(Arc::new(Field::new("version", DataType::Int64, false)));
            query::register_batches(ctx, name, Arc::new(Schema::new(fields)), vec![])
        }
    }
}

/// The prompts that a version answered; without rows when they are gone, and then nothing of it is known.
async fn prompts_of(one: &Earlier) -> Result<Manifest> {
    let artifact = Artifact::table("prompts");
    let found = match one.manifest.lineage.inputs.get("prompts") {
        Some(print) => Manifest::read(&one.store, &Version::new(artifact.clone(), print)?).await.unwrap_or_default(),
        None => None,
    };
    match found {
        Some(manifest) => Ok(manifest),
        None => {
            let schema = table::prompts().schema();
            let nothing = Version::new(artifact, "none")?;
            Ok(Manifest::new(&nothing, vec![], Some(&schema), Lineage::default(), Default::default()))
        }
    }
}

/// Registers the definitions that each version was made under.
fn principles(ctx: &SessionContext, versions: &[Earlier]) -> Result<()> {
    let mut rows = Vec::new();
    for (number, one) in versions.iter().enumerate() {
        for principle in
            one.manifest.lineage.parameters.get("principles").and_then(Value::as_array).into_iter().flatten()
        {
            rows.push(json!({"version": number, "name": principle["name"], "definition": principle["definition"]}));
        }
    }
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let fields = vec![Field::new("version", DataType::Int64, true), text("name"), text("definition")];
    register(ctx, "earlier_principles", fields, &rows)
}
