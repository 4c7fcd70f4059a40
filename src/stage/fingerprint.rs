//! Fingerprints, and why a stage is not cached.
//!
//! In: [`Lineage`]s. Out: the hash that names a version, and one line that says what changed against another.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::store::{Lineage, canonical, short};
use crate::{Error, Result};

/// The fingerprint of what `lineage` makes: the first 128 bits of blake3 over its canonical JSON, in hex.
///
/// # Errors
/// An internal error when a parameter has no JSON form.
pub fn fingerprint(lineage: &Lineage) -> Result<String> {
    let value = serde_json::to_value(lineage)
        .map_err(|e| Error::internal(format!("stage {}", lineage.stage), "its lineage is not JSON").because(e))?;
    Ok(blake3::hash(canonical(&value).as_bytes()).to_hex()[..32].to_string())
}

/// What differs between the version a stage would make and the one it made before: `sql changed`,
/// `parameter judge.temperature 0.7 -> 1.0`, `input prompts changed (3f2a11bc -> 90de77a1)`.
pub fn difference(wanted: &Lineage, before: &Lineage) -> String {
    let mut changes = Vec::new();
    if wanted.sql != before.sql {
        changes.push("sql changed".to_string());
    }
    compare(&mut changes, "parameter", &leaves(wanted), &leaves(before), |a, b| format!("{a} -> {b}"), false);
    if wanted.seed != before.seed {
        let show = |seed: Option<u64>| seed.map_or("none".to_string(), |seed| seed.to_string());
        changes.push(format!("seed {} -> {}", show(before.seed), show(wanted.seed)));
    }
    let prints = |a: &String, b: &String| format!("changed ({} -> {})", short(a), short(b));
    compare(&mut changes, "input", &wanted.inputs, &before.inputs, prints, true);
    compare(&mut changes, "model", &wanted.models, &before.models, prints, true);
    compare(&mut changes, "template", &wanted.templates, &before.templates, |_, _| "changed".to_string(), true);
    if wanted.version != before.version {
        changes.push(format!("the stage's code changed (version {} -> {})", before.version, wanted.version));
    }
    if !changes.is_empty() {
        return changes.join(", ");
    }
    let order =
        canonical(&Value::Object(wanted.parameters.clone())) != canonical(&Value::Object(before.parameters.clone()));
    if order { "the order of a list in its parameters changed".into() } else { "its name or format changed".into() }
}

fn compare(
    changes: &mut Vec<String>,
    what: &str,
    wanted: &BTreeMap<String, String>,
    before: &BTreeMap<String, String>,
    show: impl Fn(&String, &String) -> String,
    bare: bool,
) {
    for (name, new) in wanted {
        match before.get(name) {
            Some(old) if old == new => {}
            Some(old) => changes.push(format!("{what} {name} {}", show(old, new))),
            None if bare => changes.push(format!("{what} {name} is new")),
            None => changes.push(format!("{what} {name} is new ({new})")),
        }
    }
    for name in before.keys().filter(|name| !wanted.contains_key(*name)) {
        changes.push(format!("{what} {name} is gone"));
    }
}

/// Parameters by dotted path, as text; what a list holds goes by its names where all of it has some, so that one
/// principle among many is named. They go through JSON text once, as those of a manifest have.
fn leaves(lineage: &Lineage) -> BTreeMap<String, String> {
    fn walk(path: String, value: &Value, into: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    walk(if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, into);
                }
            }
            Value::Array(items) => match named(items) {
                Some(named) => named.into_iter().for_each(|(name, rest)| walk(format!("{path}.{name}"), &rest, into)),
                None => drop(into.insert(path, shorten(&canonical(value)))),
            },
            leaf => {
                into.insert(path, shorten(&canonical(leaf)));
            }
        }
    }
    let mut found = BTreeMap::new();
    let text = canonical(&Value::Object(lineage.parameters.clone()));
    if let Ok(Value::Object(map)) = serde_json::from_str(&text) {
        for (key, value) in &map {
            walk(key.clone(), value, &mut found);
        }
    }
    found
}

/// The items of a list of objects with a `name`, or of lists that begin with one, by that name: what is left of each.
fn named(items: &[Value]) -> Option<BTreeMap<String, Value>> {
    let part = |item: &Value| match item {
        Value::Object(fields) => {
            let mut fields = fields.clone();
            let name = fields.remove("name")?;
            Some((name.as_str()?.to_string(), Value::Object(fields)))
        }
        Value::Array(values) => {
            let (name, rest) = values.split_first()?;
            (!rest.is_empty()).then_some(())?;
            Some((name.as_str()?.to_string(), Value::Array(rest.to_vec())))
        }
        _ => None,
    };
    let named: BTreeMap<String, Value> = items.iter().map(part).collect::<Option<_>>()?;
    (named.len() == items.len() && !named.is_empty()).then_some(named)
}

/// A long value as its beginning and a hash, so that two long values still compare unequal.
fn shorten(text: &str) -> String {
    if text.len() <= 60 {
        return text.to_string();
    }
    let start: String = text.chars().take(24).collect();
    format!("{start}...#{}", short(&blake3::hash(text.as_bytes()).to_hex()))
}
