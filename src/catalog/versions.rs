//! Past versions of a table: by the start of their fingerprint, or by a time.
//!
//! In: `5f0c1a` or `2026-11-27T10:00:00Z`. Out: the table as that version holds it. At a time it is what the run's
//! history says had been made by then, the latest of each stage that adds to the table.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use datafusion::catalog::TableProvider;

use crate::store::{self, Artifact, Kind, Manifest, Store, Version, short};
use crate::table::Table;
use crate::{Error, Result};

/// Versions that an error lists at most.
const LISTED: usize = 10;

/// The version of `table` that `wanted` names.
///
/// # Errors
/// A query error that lists the versions when none or several fit; a store error for a damaged one.
pub(super) async fn find(store: &Store, table: &Table, wanted: &str) -> Result<Arc<dyn TableProvider>> {
    let place = || format!("table {}@{wanted}", table.name);
    if table.name == "runs" {
        return Err(Error::query(place(), "the history has no versions; ask table runs itself"));
    }
    let artifact = Artifact::table(table.name);
    let hash = !wanted.is_empty() && wanted.bytes().all(|b| b.is_ascii_hexdigit());
    let prints = if hash {
        let all = store::versions_of(store, &artifact).await?;
        let fitting: Vec<&Version> =
            all.iter().filter(|version| version.fingerprint().starts_with(&wanted.to_lowercase())).collect();
        match fitting.as_slice() {
            [one] => vec![one.fingerprint().to_string()],
            [] => return Err(Error::query(place(), format!("there is no such version; {}", list(store, &all).await?))),
            several => {
                let several: Vec<Version> = several.iter().map(|version| (*version).clone()).collect();
                return Err(Error::query(place(), format!("fits several versions; {}", list(store, &several).await?)));
            }
        }
    } else {
        let until = string_to_timestamp_nanos(wanted).map_err(|_| {
            Error::query(
                place(),
                "a version is the start of a fingerprint (table runs has them) or a time as in 2026-11-27T10:00:00Z",
            )
        })?;
        at(store, table, until).await?
    };
    if prints.is_empty() {
        let all = store::versions_of(store, &artifact).await?;
        return Err(Error::query(place(), format!("nothing had been made by then; {}", list(store, &all).await?)));
    }
    let mut manifests = Vec::with_capacity(prints.len());
    for print in prints {
        let version = Version::new(artifact.clone(), &print)?;
        let gone = || Error::query(place(), format!("version {} was removed by `salmon gc`", short(&print)));
        manifests.push(Manifest::read(store, &version).await?.ok_or_else(gone)?);
    }
    store::versions_table(store, table, &manifests)
}

/// The fingerprints that were the latest of their stages at `until`, nanoseconds since 1970.
async fn at(store: &Store, table: &Table, until: i64) -> Result<Vec<String>> {
    let mut latest: BTreeMap<String, (i64, String)> = BTreeMap::new();
    for record in store::records(store).await? {
        let Ok(started) = string_to_timestamp_nanos(&record.info.started) else { continue };
        let committed = started.saturating_add((record.info.seconds * 1e9) as i64);
        for made in record.made.iter().filter(|made| made.kind == Kind::Table && made.name == table.name) {
            let known = latest.get(&record.stage).map_or(i64::MIN, |(when, _)| *when);
            if committed <= until && committed >= known {
                latest.insert(record.stage.clone(), (committed, made.fingerprint.clone()));
            }
        }
    }
    Ok(latest.into_values().map(|(_, print)| print).collect())
}

/// The newest of these versions, for an error.
async fn list(store: &Store, versions: &[Version]) -> Result<String> {
    let mut found = Vec::with_capacity(versions.len());
    for version in versions {
        if let Some(manifest) = Manifest::read(store, version).await? {
            found.push((manifest.info.started.clone(), manifest.rows(), version.fingerprint().to_string()));
        }
    }
    found.sort();
    let lines: Vec<String> = found
        .iter()
        .rev()
        .take(LISTED)
        .map(|(started, rows, print)| {
            format!("{} ({}, {rows} rows)", print.get(..12).unwrap_or(print), started.get(..19).unwrap_or(started))
        })
        .collect();
    Ok(match (lines.is_empty(), found.len() > LISTED) {
        (true, _) => "there is none yet".into(),
        (false, true) => format!("the newest are {}", lines.join(", ")),
        (false, false) => format!("there are {}", lines.join(", ")),
    })
}
