//! What a run says on stderr, line by line.
//!
//! In: lines of `salmon --log-format json run` with `SALMON_LOG=warn,salmon::stage=debug`. Out: which stage began or
//! ended, how far it is, and the error at the end.

use serde_json::Value;

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// A stage begins.
    Starts(String),
    /// A stage is committed.
    Ends(String),
    /// A stage was committed before.
    Cached(String),
    /// So many units of a stage are done.
    Advances { stage: String, done: u64, total: Option<u64> },
    /// The one line of an error, with the exit code that follows.
    Fails { code: i64, text: String },
    /// Anything else.
    Other,
}

impl Said {
    /// Reads a line.
    pub fn read(line: &str) -> Said {
        if line.starts_with('{') {
            return serde_json::from_str(line).map_or(Said::Other, |value| Said::json(&value));
        }
        if let Some((stage, _)) = line.split_once(": runs (") {
            return Said::Starts(stage.to_string());
        }
        if let Some(stage) = line.strip_suffix(": cached") {
            return Said::Cached(stage.to_string());
        }
        match line.rsplit_once(": ") {
            Some((stage, rest)) if rest.contains(" rows, ") => Said::Ends(stage.to_string()),
            _ => Said::Other,
        }
    }

    fn json(value: &Value) -> Said {
        if let Some(code) = value["exit_code"].as_i64() {
            return Said::Fails { code, text: value["message"].as_str().unwrap_or_default().to_string() };
        }
        let fields = &value["fields"];
        match (fields["stage"].as_str(), fields["done"].as_u64()) {
            (Some(stage), Some(done)) => {
                Said::Advances { stage: stage.to_string(), done, total: fields["total"].as_u64() }
            }
            _ => Said::Other,
        }
    }
}
