//! Which format a file has, and whether it has the fields that were named, from its first rows.
//!
//! In: the first rows, parsed or not. Out: the format, or one line with the fields that were seen and the known formats.

use super::clean;
use super::format::{self, Format};
use super::read::Record;
use super::row::Row;
use crate::{Error, Result};

/// The format that the first rows look like.
pub(crate) fn format(name: &str, sample: &[Record], preferences: bool) -> Result<&'static dyn Format> {
    let rows = sample.iter().filter_map(|record| record.fields.as_ref().ok()).map(Row);
    if let Some(format) = format::detect(rows) {
        if preferences && !format.has_pairs() {
            let pairs: Vec<_> = format::ALL.iter().filter(|f| f.has_pairs()).map(|f| f.name()).collect();
            return Err(Error::data(
                name,
                format_args!("looks like {}, which has no preference pairs ({} have)", format.name(), pairs.join(", ")),
            ));
        }
        return Ok(format);
    }
    let known: Vec<_> = format::ALL.iter().map(|f| format!("{} ({})", f.name(), f.fields())).collect();
    let seen = match sample.iter().find_map(|record| record.fields.as_ref().ok().map(|fields| (record.row, fields))) {
        Some((row, fields)) => {
            let names: Vec<_> = fields.keys().take(20).map(|key| clean::excerpt(key)).collect();
            format!("row {row} has the fields {}", names.join(", "))
        }
        None => {
            let first = sample.first();
            let why = first.and_then(|record| record.fields.as_ref().err()).map(|refusal| refusal.detail.as_str());
            format!(
                "none of the first {} rows could be read (row {}: {}; it begins with {:?})",
                sample.len(),
                first.map_or(1, |record| record.row),
                why.unwrap_or_default(),
                first.map_or(String::new(), |record| record.excerpt.chars().take(60).collect()),
            )
        }
    };
    let advice = "map its fields with --column instruction=FIELD, or force one with --format";
    Err(Error::data(name, format_args!("unknown format: {seen}; {advice}. Known: {}", known.join("; "))))
}

/// Every field that `--column` names must be in one of the first rows.
pub(crate) fn check_columns(name: &str, sample: &[Record], columns: &[(String, String)]) -> Result<()> {
    let rows: Vec<_> = sample.iter().filter_map(|record| record.fields.as_ref().ok()).collect();
    for (target, field) in columns {
        if !rows.is_empty() && !rows.iter().any(|row| row.contains_key(field)) {
            let fields: Vec<_> = rows[0].keys().map(|key| clean::excerpt(key)).collect();
            return Err(Error::config(
                format_args!("--column {target}={field}"),
                format_args!("{name} has no field of that name; it has {}", fields.join(", ")),
            ));
        }
    }
    Ok(())
}
