//! What each fuzz target does with its bytes: the public call that reads such bytes from a user's files.
//!
//! In: bytes. Out: nothing; the process aborts when a panic escapes, when an error is not one line, or when bad input
//! is called a bug of salmon (an internal error).

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Once};

use futures::executor::block_on;
use indicatif::ProgressBar;
use salmon::error::Kind;
use salmon::model::{ChatTemplate, Message, ModelConfig, Network, Tokenizer, inspect};
use salmon::principle::{Library, Templates};
use salmon::query::{Models, Params, SessionOptions};
use salmon::store::{Artifact, Manifest, Store, Version};
use salmon::{Result, config, import, query};
use serde_json::{Map, json};
use tch::{Device, Kind as Type};

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs one input. Panics are judged where they arrive: one that salmon catches at a boundary and reports is fine.
fn judge<T>(what: impl FnOnce() -> Result<T>) {
    static HOOK: Once = Once::new();
    // libFuzzer's own hook aborts at every panic.
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|info| LAST.with(|last| *last.borrow_mut() = info.to_string())));
    });
    let error = match catch_unwind(AssertUnwindSafe(what)) {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error,
        Err(payload) => {
            fail(&format!("panic: {} ({})", LAST.with(|last| last.borrow().clone()), text(payload.as_ref())))
        }
    };
    let line = error.to_string();
    if line.contains('\n') || line.is_empty() {
        fail(&format!("not one line: {line:?}"));
    }
    if error.kind() == Kind::Internal {
        fail(&format!("bad input is no bug: {line} ({})", LAST.with(|last| last.borrow().clone())));
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied()).unwrap_or_default()
}

fn fail(line: &str) -> ! {
    eprintln!("FOUND: {line}");
    std::process::abort()
}

/// The files of a fixture in a folder of this process; `scripts/fuzz.sh` removes it.
fn folder(fixture: Option<&str>) -> PathBuf {
    let folder = tempfile::tempdir().expect("a folder").keep();
    if let Some(fixture) = fixture {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/llama").join(fixture);
        for entry in std::fs::read_dir(from).expect("the fixture") {
            let path = entry.expect("an entry").path();
            std::fs::copy(&path, folder.join(path.file_name().expect("a name"))).expect("a copy");
        }
    }
    folder
}

fn write(path: PathBuf, bytes: &[u8]) -> PathBuf {
    std::fs::write(&path, bytes).expect("the folder can be written");
    path
}

macro_rules! in_folder {
    ($fixture:expr) => {{
        static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| folder($fixture));
        FOLDER.as_path()
    }};
}

/// A weight file: header, sizes, values.
pub fn safetensors(bytes: &[u8]) {
    let folder = in_folder!(Some("untied"));
    write(folder.join("model.safetensors"), bytes);
    judge(|| inspect(folder));
    judge(|| Network::open(folder, Type::Float, Device::Cpu));
}

/// The index of a checkpoint in several files.
pub fn safetensors_index(bytes: &[u8]) {
    let folder = in_folder!(Some("tied"));
    write(folder.join("model.safetensors.index.json"), bytes);
    judge(|| inspect(folder));
}

/// `config.json` and `generation_config.json`, a NUL between them. A configuration that is accepted must also load or
/// be refused with the fixture's weights.
pub fn model_config(bytes: &[u8]) {
    let folder = in_folder!(Some("untied"));
    let (config, generation) = match bytes.iter().position(|byte| *byte == 0) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b"{}"[..]),
    };
    write(folder.join("config.json"), config);
    write(folder.join("generation_config.json"), generation);
    judge(|| ModelConfig::open(folder).map(|config| config.projections()));
    judge(|| inspect(folder));
}

/// `tokenizer.json`, and texts through it.
pub fn tokenizer(bytes: &[u8]) {
    judge(|| {
        let tokenizer = Tokenizer::from_bytes(bytes, "tokenizer.json")?;
        for text in ["", "the capital of  x . \n\u{fffd}é日本😀</s><s>", "\0\u{200b}aaaaaaaaaaaaaaaa"] {
            let ids = tokenizer.encode(text, true)?;
            tokenizer.decode(&ids)?;
        }
        tokenizer.decode(&[0, 1, 2, u32::MAX])
    });
}

/// `tokenizer_config.json` of a folder: special tokens and templates.
pub fn tokenizer_config(bytes: &[u8]) {
    let folder = in_folder!(Some("untied"));
    write(folder.join("tokenizer.json"), WORDS.as_bytes());
    write(folder.join("tokenizer_config.json"), bytes);
    judge(|| {
        let tokenizer = Tokenizer::open(folder)?;
        ChatTemplate::open(folder, &tokenizer)?.render(&talk(), &Map::new(), true)
    });
}

/// The source of a chat template, rendered.
pub fn chat_template(bytes: &[u8]) {
    let folder = in_folder!(Some("untied"));
    write(folder.join("tokenizer.json"), WORDS.as_bytes());
    write(folder.join("chat_template.jinja"), bytes);
    judge(|| {
        let template = ChatTemplate::open(folder, &Tokenizer::open(folder)?)?.with_time(1_790_000_000);
        let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]);
        template.render(&talk(), &Map::from_iter([("tools".to_string(), tools)]), true)
    });
}

const WORDS: &str = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "unk_token": "x", "vocab": {"x": 0, "<s>": 1, "</s>": 2}}}"#;

fn talk() -> Vec<Message> {
    let talk = json!([
        {"role": "system", "content": " Be brief. "}, {"role": "user", "content": "¿Qué?\nx|y"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "abcdef123", "function": {"name": "f", "arguments": {"a": 1.5}}}]},
        {"role": "tool", "content": "<think>t</think> {}", "tool_call_id": "abcdef123"}]);
    serde_json::from_value(talk).expect("messages")
}

/// `adapter_config.json` on a base.
pub fn adapter_config(bytes: &[u8]) {
    thread_local! {
        static BASE: Network = Network::open(&folder(Some("untied")), Type::Float, Device::Cpu).expect("the base");
    }
    let folder = in_folder!(Some("adapter"));
    write(folder.join("adapter_config.json"), bytes);
    BASE.with(|base| judge(|| base.with_adapter(folder)));
}

/// A principle file.
pub fn principles(bytes: &[u8]) {
    let folder = in_folder!(None);
    write(folder.join("own.toml"), bytes);
    judge(|| Library::load(folder, &["own.toml", "reward"])?.checked()?.batch());
}

/// `salmon.toml`.
pub fn salmon_toml(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        judge(|| config::parse("salmon.toml", text, &[])?.to_toml());
    }
}

/// A prompt template of a user.
pub fn prompt_template(bytes: &[u8]) {
    let folder = in_folder!(None);
    write(folder.join("judge.jinja"), bytes);
    judge(|| {
        let templates = Templates::load(Some(folder), &Library::default())?;
        templates.check();
        let fields = json!({"instruction": "i", "output_a": "a", "output_b": "b", "name": "n", "definition": "d", "x": [1, "y"]});
        templates.render("judge", fields)
    });
}

fn imported(name: &str, bytes: &[u8]) {
    let folder = in_folder!(None);
    let file = write(folder.join(name), bytes);
    let own = [("instruction".to_string(), "q".to_string())].to_vec();
    let plain = import::Options::default();
    let pairs = import::Options { preferences: true, test_fraction: 0.5, ..plain.clone() };
    let columns = import::Options { columns: own, ..plain.clone() };
    for options in [plain, pairs, columns] {
        let out = folder.join("out.parquet");
        judge(|| import::import(&[file.clone()], &out, &options, &ProgressBar::hidden()));
    }
}

/// JSON lines, or one array, in any of the formats.
pub fn import_json(bytes: &[u8]) {
    imported(if bytes.first() == Some(&b'[') { "a.json" } else { "a.jsonl" }, bytes);
}

/// CSV.
pub fn import_csv(bytes: &[u8]) {
    imported("a.csv", bytes);
}

/// Parquet.
pub fn import_parquet(bytes: &[u8]) {
    imported("a.parquet", bytes);
}

/// Compressed JSON lines.
pub fn import_gzip(bytes: &[u8]) {
    imported("a.jsonl.gz", bytes);
}

/// The manifest of a version, in a run that somebody else wrote.
pub fn manifest(bytes: &[u8]) {
    let version = Version::new(Artifact::table("prompts"), "f".repeat(64)).expect("a version");
    // The checksum is part of the file, with zeros in its place: a run of zeros stands for the right one.
    let zeros = "0".repeat(64);
    let text = String::from_utf8_lossy(bytes);
    let sealed = match text.rfind(&zeros) {
        Some(at) => format!("{}{}{}", &text[..at], blake3::hash(text.as_bytes()).to_hex(), &text[at + zeros.len()..]),
        None => text.to_string(),
    };
    judge(|| {
        let store = Store::open("memory://")?;
        block_on(async {
            store.put(&version.key("manifest.json"), sealed).await?;
            match Manifest::read(&store, &version).await? {
                Some(manifest) => manifest.verify(&store).await,
                None => Ok(()),
            }
        })
    });
}

/// A statement of someone who may only look: parsed, analysed and planned, not run.
pub fn sql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"));
    static TEMPLATES: LazyLock<Arc<Templates>> =
        LazyLock::new(|| Arc::new(Templates::load(None, &Library::default()).expect("the built-in templates")));
    let options = SessionOptions { read_only: true, target_partitions: 2, ..SessionOptions::default() };
    judge(|| {
        let ctx = query::session(Arc::new(Models::new()), Arc::clone(&TEMPLATES), &options)?;
        RUNTIME.block_on(async {
            let frame = query::sql(&ctx, text, &Params::new()).await?;
            frame.create_physical_plan().await?;
            Ok(())
        })
    });
}
