//! The graph from a version back to the files of the user.
//!
//! In: manifests. Out: every version they were made from, once, with what else decided it: principles, templates, data
//! files; as JSON or for Graphviz.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::Result;
use crate::store::{Kind, Lineage, Manifest, Store, Version, short};

/// A version, or something from outside of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Node {
    /// `tables/<name>/<fingerprint>`, or `models/...`.
    pub id: String,
    /// Table or model.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The version; for what is from outside, the hash of its files.
    pub fingerprint: String,
    /// The stage that made it; none for what is from outside of the run.
    pub stage: Option<String>,
    /// Rows of a table.
    pub rows: Option<u64>,
    /// Wall-clock seconds of the stage.
    pub seconds: Option<f64>,
    /// When it began, UTC.
    pub started: Option<String>,
    /// The ids of what it was made from.
    pub inputs: Vec<String>,
    /// The principles in its lineage, `not` before a negated one.
    pub principles: Vec<String>,
    /// The prompt templates in its lineage, by name, with the hash of their text.
    pub templates: BTreeMap<String, String>,
    /// The data files that it read, by their blake3.
    pub files: Vec<String>,
}

impl Node {
    fn of(version: &Version, manifest: Option<&Manifest>) -> Self {
        let (artifact, lineage) = (version.artifact(), manifest.map(|manifest| &manifest.lineage));
        let hash = |text: &String| blake3::hash(text.as_bytes()).to_hex().to_string();
        Node {
            id: version.prefix(),
            kind: artifact.kind,
            name: artifact.name.clone(),
            fingerprint: version.fingerprint().to_string(),
            stage: lineage.map(|lineage| lineage.stage.clone()),
            rows: manifest.filter(|m| m.kind == Kind::Table).map(Manifest::rows),
            seconds: manifest.map(|manifest| manifest.info.seconds),
            started: manifest.map(|manifest| manifest.info.started.clone()),
            inputs: lineage.map(|l| l.versions().iter().map(Version::prefix).collect()).unwrap_or_default(),
            principles: lineage.map(principles).unwrap_or_default(),
            templates: lineage
                .iter()
                .flat_map(|l| &l.templates)
                .map(|(name, text)| (name.clone(), hash(text)))
                .collect(),
            files: lineage.map(files).unwrap_or_default(),
        }
    }
}

/// The hashes of the user's files that a stage read.
pub(crate) fn files(lineage: &Lineage) -> Vec<String> {
    let hashes = lineage.parameters.get("files").and_then(Value::as_array);
    hashes.into_iter().flatten().filter_map(|hash| hash.as_str().map(str::to_string)).collect()
}

/// The names of the principles that a stage saw.
pub(crate) fn principles(lineage: &Lineage) -> Vec<String> {
    let items = lineage.parameters.get("principles").and_then(Value::as_array);
    let name = |item: &Value| {
        let name = item.get("name").or_else(|| item.get(0))?.as_str()?;
        let negated = item.get("negated").and_then(Value::as_bool).unwrap_or(false);
        Some(if negated { format!("not {name}") } else { name.to_string() })
    };
    items.into_iter().flatten().filter_map(name).collect()
}

/// The versions of `roots` and all that they were made from, each once.
///
/// # Errors
/// A store error for a manifest that cannot be read.
pub async fn ancestry(store: &Store, roots: &[Manifest]) -> Result<Vec<Node>> {
    let (mut nodes, mut seen, mut open) = (Vec::new(), BTreeSet::new(), Vec::new());
    for root in roots.iter().rev() {
        open.push(root.version()?);
    }
    while let Some(version) = open.pop() {
        if !seen.insert(version.clone()) {
            continue;
        }
        let manifest = Manifest::read(store, &version).await?;
        nodes.push(Node::of(&version, manifest.as_ref()));
        open.extend(manifest.iter().flat_map(|manifest| manifest.lineage.versions()).rev().collect::<Vec<_>>());
    }
    Ok(nodes)
}

/// The graph in Graphviz' language: what was made from what, with data files, principles and templates as leaves.
pub fn dot(nodes: &[Node]) -> String {
    // Writing to a string cannot fail.
    let mut text = "digraph lineage {\n  rankdir=BT;\n  node [fontname=\"sans-serif\"];\n".to_string();
    let mut leaves = BTreeMap::new();
    for node in nodes {
        let shape = if node.kind == Kind::Model { "component" } else { "box" };
        let mut label = format!("{}\\n{}", escape(&node.name), short(&node.fingerprint));
        match (node.rows, &node.stage) {
            (Some(rows), _) => label += &format!("\\n{rows} rows"),
            (None, None) => label += "\\nfrom outside the run",
            _ => {}
        }
        let _ = writeln!(text, "  \"{}\" [shape={shape}, label=\"{label}\"];", escape(&node.id));
        for input in &node.inputs {
            let _ = writeln!(text, "  \"{}\" -> \"{}\";", escape(&node.id), escape(input));
        }
        let files = node.files.iter().map(|hash| (format!("file {}", short(hash)), "note"));
        let templates = node.templates.iter().map(|(name, hash)| (format!("template {name} {}", short(hash)), "note"));
        let shown = node.principles.join(", ");
        let principles = (!shown.is_empty()).then(|| (format!("principles {shown}"), "note"));
        for (leaf, shape) in files.chain(templates).chain(principles) {
            let _ = writeln!(text, "  \"{}\" -> \"{}\";", escape(&node.id), escape(&leaf));
            leaves.insert(leaf, shape);
        }
    }
    for (leaf, shape) in leaves {
        let _ = writeln!(text, "  \"{}\" [shape={shape}];", escape(&leaf));
    }
    text + "}\n"
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ")
}
