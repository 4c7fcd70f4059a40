//! `docs/configuration.md` is made of the doc comments of the configuration and of its defaults.

use std::collections::BTreeMap;
use std::fmt::Write;

use salmon::config::{Config, RewardPretraining};
use salmon::model::{LoraConfig, QuantizationConfig};
use toml::{Table, Value};

use crate::docs::page_is;

const HEAD: &str = "\
# Configuration

Every key of `salmon.toml`. This page is made from the program: the meanings are the comments of its source, the defaults
are its own.

A key that is left out has its default, and the defaults are the values of the SALMON paper where it gives one, so a
configuration holds only what is yours. An unknown key, a wrong type or a value out of range is an error that names file
and line. `salmon run --set ppo.trainer.kl_coef=0.05` changes a value for one run. Paths are relative to the file.

```toml
seed = 1

[model]
base = \"models/llama\"

[data]
prompts = [\"prompts.parquet\"]

[principles]
files = [\"self_align\", \"reward\", \"rl\", \"interventions\", \"principles.toml\"]

[[policies]]
name = \"brief\"
principles = [\"interventions\", \"Concise\"]
draw = 0
```

A change runs the stages that depend on the changed key and no others; `salmon run --dry-run` says which, and why.
";

struct Field {
    name: String,
    kind: String,
    doc: String,
}

#[derive(Default)]
struct Type {
    doc: String,
    /// Fields of a struct, or the values of an enum with an empty kind.
    fields: Vec<Field>,
    is_enum: bool,
    lowercase: bool,
}

/// The types that the sources declare, with their doc comments.
#[derive(Default)]
struct Types(BTreeMap<String, Type>);

impl Types {
    /// Reads a source line by line; rustfmt keeps a field, an attribute or a comment on a line of its own.
    fn read(&mut self, source: &str) {
        let (mut doc, mut open, mut lowercase) = (Vec::new(), None::<String>, false);
        for line in source.lines() {
            let line = line.trim();
            if let Some(text) = line.strip_prefix("///") {
                doc.push(text.trim());
                continue;
            }
            if line.starts_with("#[") {
                lowercase |= line.contains("rename_all = \"lowercase\"");
                continue;
            }
            let taken = std::mem::take(&mut doc).join(" ");
            let declared = ["pub struct ", "pub enum "].iter().find_map(|head| line.strip_prefix(head));
            if let Some(name) = declared.and_then(|rest| rest.strip_suffix(" {")) {
                let is_enum = line.starts_with("pub enum");
                self.0.insert(name.into(), Type { doc: taken, is_enum, lowercase, ..Type::default() });
                (open, lowercase) = (Some(name.into()), false);
            } else if line == "}" || line.starts_with("$( $(#[$field_doc") {
                open = None;
            } else if let Some(owner) = open.as_ref().and_then(|name| self.0.get_mut(name)) {
                let line = line.trim_end_matches(',');
                let field = match line.strip_prefix("pub ").and_then(|field| field.split_once(": ")) {
                    Some((name, kind)) => Field { name: name.into(), kind: kind.into(), doc: taken },
                    // A variant with a value has no spelling of its own.
                    None if owner.is_enum && !line.is_empty() && !line.contains('(') => {
                        Field { name: spelled(line, owner.lowercase), kind: String::new(), doc: taken }
                    }
                    None => continue,
                };
                owner.fields.push(field);
            }
        }
    }

    /// Reads the uses of the macro `configuration!`: the shared fields (those of `$name`), then the ones in the use.
    fn read_trainers(&mut self, source: &str) {
        for part in source.split("\nconfiguration! {\n").skip(1) {
            let part = part.split("\n}\n").next().unwrap();
            let (mut doc, mut name) = (Vec::new(), String::new());
            for line in part.lines().map(str::trim) {
                let taken = || doc.join(" ");
                if let Some(text) = line.strip_prefix("///") {
                    doc.push(text.trim());
                    continue;
                } else if name.is_empty() {
                    name = line.into();
                    let shared = self.0["$name"].fields.iter();
                    let fields =
                        shared.map(|f| Field { name: f.name.clone(), kind: f.kind.clone(), doc: f.doc.clone() });
                    let fields = fields.collect();
                    self.0.insert(name.clone(), Type { doc: taken(), fields, ..Type::default() });
                } else if !doc.is_empty() {
                    let (field, rest) = line.split_once(": ").unwrap();
                    let kind = rest.split(" = ").next().unwrap();
                    let field = Field { name: field.into(), kind: kind.into(), doc: taken() };
                    self.0.get_mut(&name).unwrap().fields.push(field);
                }
                doc.clear();
            }
        }
    }
}

/// A variant as serde writes it.
fn spelled(variant: &str, lowercase: bool) -> String {
    if lowercase {
        return variant.to_lowercase();
    }
    let mut text = String::new();
    for (i, c) in variant.chars().enumerate() {
        if c.is_uppercase() && i > 0 {
            text.push('_');
        }
        text.extend(c.to_lowercase());
    }
    text
}

fn types() -> Types {
    let mut types = Types::default();
    for source in [
        include_str!("../src/config/mod.rs"),
        include_str!("../src/config/training.rs"),
        include_str!("../src/model/lora_config.rs"),
        include_str!("../src/model/matrix/mod.rs"),
        include_str!("../src/train/config.rs"),
        include_str!("../src/train/schedule.rs"),
        include_str!("../src/train/ppo/kl.rs"),
    ] {
        types.read(source);
    }
    types.read_trainers(include_str!("../src/train/config.rs"));
    types
}

/// The defaults as TOML, with the sections that are left out by default.
fn defaults() -> Table {
    let mut config = Config::default();
    config.model.lora = Some(LoraConfig::default());
    config.model.quantization_config = Some(QuantizationConfig::default());
    config.reward_pretraining = Some(RewardPretraining::default());
    Table::try_from(config).unwrap()
}

/// The type inside `wrapper<..>`.
fn inside<'a>(kind: &'a str, wrapper: &str) -> Option<&'a str> {
    kind.strip_prefix(wrapper)?.strip_prefix('<')?.strip_suffix('>')
}

fn shown_type(types: &Types, kind: &str) -> String {
    match kind {
        "u64" | "usize" | "i64" => "whole number".into(),
        "f64" => "number".into(),
        "bool" => "true or false".into(),
        "String" => "text".into(),
        "Vec<String>" => "list of texts".into(),
        "Vec<Vec<String>>" => "list of lists of texts".into(),
        "[String; 2]" => "two texts".into(),
        "toml::Table" => "table".into(),
        "Vec<usize>" => "list of whole numbers".into(),
        "Targets" => "list of texts, or text".into(),
        "Patterns<i64>" | "Patterns<f64>" => "table".into(),
        _ => match inside(kind, "Option") {
            Some(kind) => shown_type(types, kind),
            None if types.0.get(kind).is_some_and(|t| t.is_enum) => "text".into(),
            None => panic!("say what the type {kind} is called in the documentation"),
        },
    }
}

fn shown_value(value: &Value) -> String {
    match value {
        Value::Float(number) => format!("{number:?}"),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => format!("[{}]", items.iter().map(shown_value).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The meaning of a key; for a choice, with what each value means.
fn meaning(types: &Types, field: &Field) -> String {
    let kind = inside(&field.kind, "Option").unwrap_or(&field.kind);
    let Some(choice) = types.0.get(kind).filter(|t| t.is_enum) else { return field.doc.clone() };
    let values: Vec<String> = choice.fields.iter().map(|v| format!("`\"{}\"`: {}", v.name, v.doc)).collect();
    format!("{} {}", field.doc, values.join(" "))
}

/// Without "`[name]`: " in front, which the heading says already.
fn without_heading(doc: &str) -> String {
    let Some((_, rest)) = doc.strip_prefix("`[").and_then(|doc| doc.split_once("]`: ")) else { return doc.into() };
    let mut chars = rest.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Writes the keys of one struct, then its sections.
fn section(types: &Types, page: &mut String, path: &str, kind: &str, defaults: &Table) {
    let own = &types.0[kind];
    let is_section = |f: &&Field| {
        let kind = inside(&f.kind, "Option").or(inside(&f.kind, "Vec")).unwrap_or(&f.kind);
        types.0.get(kind).is_some_and(|t| !t.is_enum)
    };
    let (sections, keys): (Vec<&Field>, Vec<&Field>) = own.fields.iter().partition(is_section);
    page.push_str("\n| key | type | default | meaning |\n|---|---|---|---|\n");
    for field in keys {
        let default = match defaults.get(&field.name) {
            Some(value) => format!("`{}`", shown_value(value)),
            // The one table of values that is not written where it is empty.
            None if field.kind == "toml::Table" => "`{}`".into(),
            None => {
                let required = !field.kind.starts_with("Option") && !defaults.is_empty();
                assert!(!required, "{path} {} has no default", field.name);
                if defaults.is_empty() { "required".into() } else { "not set".to_string() }
            }
        };
        let (kind, meaning) = (shown_type(types, &field.kind), meaning(types, field));
        writeln!(page, "| `{}` | {kind} | {default} | {meaning} |", field.name).unwrap();
    }
    for key in defaults.keys() {
        assert!(own.fields.iter().any(|field| field.name == *key), "{path}: {key} is in the defaults only");
    }
    for field in sections {
        let name = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
        let kind = inside(&field.kind, "Option").or(inside(&field.kind, "Vec")).unwrap_or(&field.kind);
        let heading = match field.kind.starts_with("Vec") {
            true => format!("`[[{name}]]`"),
            false => format!("`[{name}]`"),
        };
        let optional = if field.kind.starts_with("Option") { ", optional" } else { "" };
        // A field whose comment says more than the name of the section.
        let more = Some(format!("{} ", field.doc)).filter(|doc| doc.contains(['`', ';'])).unwrap_or_default();
        write!(page, "\n## {heading}{optional}\n\n{more}{}\n", without_heading(&types.0[kind].doc)).unwrap();
        let inner = match defaults.get(&field.name) {
            Some(Value::Table(table)) => table.clone(),
            Some(Value::Array(items)) => items[0].as_table().unwrap().clone(),
            _ => Table::new(),
        };
        section(types, page, &name, kind, &inner);
    }
}

#[test]
fn the_page_of_the_configuration_is_what_the_program_says() {
    let mut page = format!("{HEAD}\n## At the top\n");
    section(&types(), &mut page, "", "Config", &defaults());
    page_is("docs/configuration.md", &page);
    // The page itself, read back: each section holds exactly the keys that the program writes.
    let mut written = BTreeMap::<&str, Vec<&str>>::new();
    let mut at = "";
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            at = heading.split('`').nth(1).unwrap_or("").trim_matches(['[', ']']);
        } else if let Some(key) = line.strip_prefix("| `") {
            written.entry(at).or_default().push(key.split('`').next().unwrap());
        }
    }
    let mut expected = 0;
    let mut open = vec![(String::new(), defaults())];
    while let Some((path, table)) = open.pop() {
        for (key, value) in table {
            let name = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Table(inner) => open.push((name, inner)),
                Value::Array(items) if items.iter().any(Value::is_table) => {
                    open.push((name, items[0].as_table().unwrap().clone()));
                }
                _ => {
                    assert!(written.get(path.as_str()).is_some_and(|keys| keys.contains(&key.as_str())), "{name}");
                    expected += 1;
                }
            }
        }
    }
    assert!(expected > 100, "{expected}");
}
