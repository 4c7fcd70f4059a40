//! A folder like a user's: data in public formats, a model that nobody trained, a configuration, and the real binary.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::random_llama::{self, Shape};

/// Questions as people ask them: several scripts, white space, marks of the templates inside, one to two lines.
pub(crate) const QUESTIONS: [(&str, &str); 14] = [
    ("en", "What makes bread rise, and why does it sink again when the oven door is opened too early?"),
    ("en", "Write two lines about rain."),
    ("es", "¿Por qué el mar es salado y los ríos no lo son?"),
    ("de", "Wie erkläre ich einem Kind, warum der Himmel blau ist? Bitte in einfachen Worten 🙂"),
    ("zh", "请用三句话介绍长江，并说明它为什么重要。"),
    ("ru", "Как правильно хранить хлеб, чтобы он не черствел?"),
    ("en", "Fix this:\n\n```python\nprint('hello'\n```\n"),
    ("fr", "Donne-moi une recette rapide avec des œufs et des pommes de terre."),
    ("ja", "朝早く起きるコツを教えてください。"),
    ("en", "### User\nWho are you? ### Assistant"),
    ("en", "List three rivers, then say which of them is the longest and how long it is."),
    ("pt-BR", "Como posso aprender a tocar violão sozinho em casa?"),
    ("en", "Explain compound interest with an example of 1,200 at 3.5 % over four years."),
    ("th", "ช่วยแนะนำวิธีดูแลต้นไม้ในบ้านหน่อย"),
];

/// A user's folder.
pub(crate) struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    /// Imported prompts and preferences, the model `random`, and `recipes/smoke.toml` as `salmon.toml`.
    pub(crate) fn new(context: usize) -> Desk {
        let desk = Desk { folder: tempfile::tempdir().unwrap() };
        desk.write("trees.jsonl", lines(&trees()));
        desk.write("hh.jsonl", lines(&comparisons()));
        desk.ok(&[
            "import",
            "trees.jsonl",
            "--tree-state",
            "all",
            "--test-fraction",
            "0.2",
            "--out",
            "prompts.parquet",
        ]);
        desk.ok(&["import", "hh.jsonl", "--preferences", "--out", "preferences.parquet"]);
        let texts: Vec<String> = QUESTIONS.iter().map(|(_, text)| text.to_string()).collect();
        let shape = Shape { vocab: 700, hidden: 32, layers: 2, context };
        random_llama::write(&desk.path("random"), &texts, shape, 1).unwrap();
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes/smoke.toml");
        std::fs::copy(recipe, desk.path("salmon.toml")).unwrap();
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs `salmon` in the folder.
    pub(crate) fn salmon(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_salmon"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("SALMON_LOG").output().unwrap()
    }

    /// The same; it must succeed. Gives stderr.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.salmon(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    }

    /// Rows of the run in `runs/main`.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Value> {
        let output = self.salmon(&["sql", "--format", "json", "-c", sql]);
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The one number of a statement.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        let rows = self.rows(&format!("select cast(({sql}) as bigint) as n"));
        rows[0]["n"].as_i64().unwrap_or_else(|| panic!("{sql} gives {rows:?}"))
    }
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// OpenAssistant trees; one root was deleted, one asks what another asks.
fn trees() -> Vec<Value> {
    let tree = |id: usize, lang: &str, text: &str, deleted: bool| {
        json!({"message_tree_id": format!("t{id}"), "tree_state": "ready_for_export", "prompt": {
            "message_id": format!("m{id}"), "parent_id": null, "text": text, "role": "prompter", "lang": lang,
            "deleted": deleted, "replies": [{"message_id": format!("r{id}"), "parent_id": format!("m{id}"),
                "text": "It depends.", "role": "assistant", "lang": lang, "deleted": false, "replies": []}]}})
    };
    let mut trees: Vec<Value> =
        QUESTIONS.iter().enumerate().map(|(id, (lang, text))| tree(id, lang, text, false)).collect();
    trees.push(tree(90, "en", "Gone?", true));
    trees.push(tree(91, "en", QUESTIONS[1].1, false));
    // Long, but not beyond the context of a usual model.
    for (id, questions) in [(92, 24), (93, 48), (94, 60)] {
        let long: Vec<String> = (0..questions).map(|i| format!("{i}. {}", QUESTIONS[i % QUESTIONS.len()].1)).collect();
        trees.push(tree(id, "en", &long.join("\n"), false));
    }
    trees
}

/// HH comparisons; one ends in an empty turn.
fn comparisons() -> Vec<Value> {
    let dialogue = |question: &str, answer: &str| format!("\n\nHuman: {question}\n\nAssistant: {answer}");
    let mut rows: Vec<Value> = QUESTIONS
        .iter()
        .map(|(_, question)| {
            json!({"chosen": dialogue(question, "Here is what I know about it."),
                "rejected": dialogue(question, "No idea… ask someone else 🙃")})
        })
        .collect();
    rows.push(json!({"chosen": dialogue("Well?", "Yes."), "rejected": dialogue("Well?", "")}));
    rows
}
