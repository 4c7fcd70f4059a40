//! The documentation holds: links lead somewhere, commands parse, SQL plans, TOML is read, generated pages are fresh.
//!
//! A block that is not for this test says why in its fence, e.g. "sql ignore: only to show the shape".
//! `UPDATE_DOCS=1 cargo test docs` writes the generated pages instead of comparing them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use clap::Parser;
use clap::error::ErrorKind;
use datafusion::prelude::SessionContext;
use salmon::cli::{Cli, Command};
use salmon::engine::Inference;
use salmon::principle::Library;
use salmon::query::{Models, Params, SessionOptions, register_batches, session, sql};
use salmon::{config, table};

use crate::query_support::{Fake, judging, templates};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Compares a generated page with the one in the repository.
pub fn page_is(path: &str, wanted: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join(path), wanted).unwrap();
    }
    let page = std::fs::read_to_string(root().join(path)).unwrap_or_default();
    let line = page.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count() + 1;
    assert!(page == wanted, "{path} is not what the program says from line {line} on; UPDATE_DOCS=1 writes it");
}

/// The pages of the repository with their text, by path.
fn pages() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in [root().to_path_buf(), root().join("docs")] {
        let inside = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.extend(inside.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    files.sort();
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// A fenced block: where it is, what its fence says, its text.
struct Block {
    place: String,
    language: String,
    ignored: bool,
    text: String,
}

fn blocks(pages: &[(String, String)]) -> Vec<Block> {
    let mut found = Vec::new();
    for (name, text) in pages {
        let mut open: Option<Block> = None;
        for (number, line) in text.lines().enumerate() {
            match (line.strip_prefix("```"), open.take()) {
                (Some(fence), None) => {
                    let (language, note) = fence.split_once(' ').unwrap_or((fence, ""));
                    let reason = note.strip_prefix("ignore").map(|reason| reason.trim_start_matches(':').trim());
                    assert!(reason != Some(""), "{name}:{}: an ignored block says why", number + 1);
                    open = Some(Block {
                        place: format!("{name}:{}", number + 2),
                        language: language.into(),
                        ignored: reason.is_some(),
                        text: String::new(),
                    });
                }
                (Some(_), Some(block)) => found.push(block),
                (None, Some(mut block)) => {
                    block.text += line;
                    block.text.push('\n');
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{name}: a block is not closed");
    }
    found
}

/// The text without its fenced blocks, so that code is not taken for links and headings.
fn prose(text: &str) -> String {
    let mut code = false;
    let keep = |line: &&str| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    };
    text.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// The anchors that GitHub gives the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose(text).lines().filter_map(|line| line.strip_prefix('#')).map(|h| slug(h.trim_start_matches('#'))).collect()
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let (mut broken, mut followed) = (Vec::new(), 0);
    for (name, text) in &pages {
        for rest in prose(text).split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            followed += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => root().join(name),
                _ => root().join(name).parent().unwrap().join(path),
            };
            let anchored = |page: String| anchors(&page).contains(anchor);
            let fine = file.exists() && (anchor.is_empty() || std::fs::read_to_string(&file).is_ok_and(anchored));
            if !fine {
                broken.push(format!("{name}: {target}"));
            }
        }
    }
    assert!(followed > 10, "only {followed} links were found");
    assert!(broken.is_empty(), "links that lead nowhere: {broken:#?}");
}

#[test]
fn the_index_names_every_page() {
    let index = std::fs::read_to_string(root().join("docs/README.md")).unwrap();
    for (name, _) in pages() {
        if let Some(page) = name.strip_prefix("docs/").filter(|page| *page != "README.md") {
            assert!(index.contains(&format!("]({page})")), "docs/README.md does not name {page}");
        }
    }
}

#[test]
fn the_page_of_tables_is_what_the_program_says() {
    page_is("docs/tables.md", &table::markdown());
}

/// The words of a shell line, without comments; `None` at the first sign that ends the command.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut chars) = (Vec::new(), None::<String>, line.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\'' | '"' => {
                let text = word.get_or_insert_default();
                while let Some(inside) = chars.next_if(|inside| *inside != c) {
                    text.push(inside);
                }
                assert_eq!(chars.next(), Some(c), "a quote is not closed: {line}");
            }
            '#' if word.is_none() => break,
            '|' | '>' | '<' | ';' | '&' => break,
            c if c.is_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The command lines of `sh` blocks, and those after a prompt in `console` blocks.
fn command_lines(blocks: &[Block]) -> Vec<(&str, Vec<String>)> {
    let mut found = Vec::new();
    for block in blocks.iter().filter(|block| !block.ignored) {
        let text = block.text.replace("\\\n", " ");
        for line in text.lines() {
            let line = match block.language.as_str() {
                "sh" => line,
                "console" => line.strip_prefix("$ ").unwrap_or(""),
                _ => continue,
            };
            let words = words(line);
            if !words.is_empty() {
                found.push((block.place.as_str(), words));
            }
        }
    }
    found
}

/// A session with every table of a run, empty, and those that the examples of the functions read.
fn empty_run() -> SessionContext {
    let models = Arc::new(Models::new());
    // Never asked: a plan is made, not run.
    for name in ["base", "sft", "reward"] {
        let load = || Ok(Arc::new(Fake::new()) as Arc<dyn Inference>);
        models.register_with_judging(name, load, move || Ok(Arc::clone(load()?.tokenizer())), judging());
    }
    let ctx = session(models, templates(), &SessionOptions::default()).unwrap();
    for table in table::all() {
        register_batches(&ctx, table.name, table.schema(), vec![]).unwrap();
    }
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    for name in ["judge_prompts", "reward_prompts"] {
        let schema = Arc::new(Schema::new(vec![text("prompt_id"), text("prompt")]));
        register_batches(&ctx, name, schema, vec![]).unwrap();
    }
    ctx
}

async fn plans(ctx: &SessionContext, place: &str, text: &str) -> usize {
    let statements = text.split(";\n").map(|s| s.trim().trim_end_matches(';')).filter(|s| !s.is_empty());
    let mut planned = 0;
    for statement in statements {
        let frame = sql(ctx, statement, &Params::new()).await.unwrap_or_else(|e| panic!("{place}: {e}"));
        frame.create_physical_plan().await.unwrap_or_else(|e| panic!("{place}: {e}"));
        planned += 1;
    }
    planned
}

#[tokio::test]
async fn commands_parse_and_their_sql_plans() {
    let (blocks, ctx) = (blocks(&pages()), empty_run());
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let mut parsed = 0;
    for (place, words) in command_lines(&blocks) {
        if words[0] == "make" {
            for target in &words[1..] {
                assert!(makefile.contains(&format!("\n{target}:")), "{place}: make has no {target}");
            }
        }
        if words[0] != "salmon" {
            continue;
        }
        parsed += 1;
        match Cli::try_parse_from(&words) {
            Ok(cli) => {
                // Several runs, parameters and past versions need a real run: tests/docs_sql.rs.
                if let Command::Sql(args) = &cli.command
                    && let Some(text) = &args.command
                    && !place.starts_with("docs/sql.md")
                {
                    plans(&ctx, place, text).await;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {}
            Err(e) => panic!("{place}: {}: {e}", words.join(" ")),
        }
    }
    assert!(parsed > 8, "only {parsed} commands were found");
}

#[tokio::test]
async fn sql_blocks_plan_over_an_empty_run() {
    let (blocks, ctx) = (blocks(&pages()), empty_run());
    let mut planned = 0;
    // Those of the cookbook ask views and two runs; tests/cookbook.rs runs them.
    let here = |block: &&Block| !block.ignored && !block.place.starts_with("docs/cookbook.md");
    for block in blocks.iter().filter(|block| block.language == "sql").filter(here) {
        planned += plans(&ctx, &block.place, &block.text).await;
    }
    assert!(planned > 10, "only {planned} statements were found");
}

#[test]
fn toml_blocks_are_read() {
    let blocks = blocks(&pages());
    let folder = tempfile::tempdir().unwrap();
    let (mut configurations, mut principles) = (0, 0);
    for block in blocks.iter().filter(|block| block.language == "toml" && !block.ignored) {
        let keys: toml::Table = block.text.parse().unwrap_or_else(|e| panic!("{}: {e}", block.place));
        let of_principles = ["principle", "rule", "exemplar", "identity", "boost", "set", "uses"];
        if of_principles.iter().any(|key| keys.contains_key(*key)) {
            std::fs::write(folder.path().join("mine.toml"), &block.text).unwrap();
            let sources = ["self_align", "rl", "interventions", "harmless", "mine.toml"];
            let library = Library::load(folder.path(), &sources).unwrap_or_else(|e| panic!("{}: {e}", block.place));
            assert_eq!(library.check(), vec![], "{}", block.place);
            principles += 1;
        } else {
            config::parse(&block.place, &block.text, &[]).unwrap_or_else(|e| panic!("{e}"));
            configurations += 1;
        }
    }
    assert!(principles > 2 && configurations > 1, "{principles} principle blocks, {configurations} configurations");
}

#[test]
fn the_readme_names_the_test_command_of_the_gate() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    assert!(read(".ci/run").contains("\nmake test\n"));
    assert!(read("README.md").contains("\nmake test"));
}
