//! Every format that imports: what becomes the prompt or the pair, its id, kind, language and source.

use std::slice::from_ref;
use std::sync::Arc;

use arrow::array::{Int64Array, StringArray};
use salmon::import::{Options, PromptKind};
use serde_json::json;

use super::import_support::{Bench, Imported, gzip, preferences, texts};

fn lines(rows: &[serde_json::Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Imports rows as JSON lines and says which format they were found to be.
fn detected(name: &str, rows: &[serde_json::Value], options: &Options, format: &str) -> Imported {
    let imported = Bench::new().import_text(name, lines(rows), options);
    assert_eq!(imported.summary.files[0].format, Some(format));
    imported
}

fn tree(id: &str, state: &str, lang: &str, text: &str, deleted: bool) -> serde_json::Value {
    json!({"message_tree_id": id, "tree_state": state, "prompt": {
        "message_id": id, "parent_id": null, "text": text, "role": "prompter", "lang": lang, "deleted": deleted,
        "replies": [{"message_id": "r", "parent_id": id, "text": "An answer.", "role": "assistant", "lang": lang,
            "deleted": false, "replies": []}]}})
}

#[test]
fn oasst_trees_give_their_roots() {
    let rows = [
        tree("t1", "ready_for_export", "pt-BR", "Qual rio passa por Lisboa?", false),
        tree("t2", "growing", "en", "What is a fjord?", false),
        tree("t3", "ready_for_export", "en", "Name a metal.", true),
        tree("t4", "ready_for_export", "zh", "河流从哪里来?", false),
    ];
    let ready = detected("trees.jsonl", &rows, &Options::default(), "oasst");
    assert_eq!(ready.column("prompt_id"), ["t1", "t4"]);
    assert_eq!(ready.column("language"), ["por", "cmn"]);
    assert_eq!(ready.column("source"), ["oasst", "oasst"]);
    assert_eq!(ready.column("kind"), ["general", "general"]);
    assert_eq!(ready.reasons(), [(2, "not_ready"), (3, "deleted")]);
    let all = Options { tree_states: vec!["all".into()], ..Options::default() };
    assert_eq!(detected("trees.jsonl", &rows, &all, "oasst").reasons(), [(3, "deleted")]);
    let growing = Options { tree_states: vec!["growing".into()], ..Options::default() };
    assert_eq!(detected("trees.jsonl", &rows, &growing, "oasst").column("instruction"), ["What is a fjord?"]);
}

#[test]
fn oasst_messages_give_their_roots() {
    let rows = [
        json!({"message_id": "a", "parent_id": null, "text": "Who builds bridges?", "role": "prompter", "lang": "en",
            "deleted": false, "tree_state": "ready_for_export"}),
        json!({"message_id": "b", "parent_id": "a", "text": "Engineers.", "role": "assistant", "lang": "en",
            "deleted": false, "tree_state": "ready_for_export"}),
        json!({"message_id": "c", "parent_id": "b", "text": "And tunnels?", "role": "prompter", "lang": "en",
            "deleted": false, "tree_state": "ready_for_export"}),
    ];
    let imported = detected("messages.jsonl", &rows, &Options::default(), "oasst");
    assert_eq!(imported.column("instruction"), ["Who builds bridges?"]);
    assert_eq!(imported.reasons(), [(2, "not_a_first_turn"), (3, "not_a_first_turn")]);
}

#[test]
fn sharegpt_gives_the_first_human_turn() {
    let say = |from: &str, value: &str| json!({"from": from, "value": value});
    let rows = json!([
        {"id": "x_0", "conversations": [say("human", "Plan a picnic."), say("gpt", "Bring bread.")]},
        {"id": "x_1", "conversations": [say("gpt", "As I said"), say("human", "Go on")]},
        {"id": "x_2", "conversations": [say("system", "Be brief."), say("human", "Find flights."),
            say("function_call", "{}"), say("observation", "[]"), say("gpt", "None.")], "tools": "[]"},
        {"id": "x_3", "conversations": [say("observation", "[]"), say("human", "So?")]},
        {"id": "x_4", "conversations": []},
        {"id": "x_5", "conversations": [say("narrator", "Once"), say("human", "So?")]},
        {"id": "x_6", "conversations": "none"},
    ]);
    let imported = Bench::new().import_text("chat.json", rows.to_string(), &Options::default());
    assert_eq!(imported.summary.files[0].format, Some("sharegpt"));
    assert_eq!(imported.column("instruction"), ["Plan a picnic.", "Find flights."]);
    assert_eq!(imported.column("prompt_id"), ["x_0", "x_2"]);
    let expected = [(2, "not_a_first_turn"), (4, "tool_role"), (5, "empty"), (6, "wrong_type"), (7, "wrong_type")];
    assert_eq!(imported.reasons(), expected);
}

#[test]
fn openai_messages_give_the_first_user_turn() {
    let rows = [
        json!({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi there"}]}),
        json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}},
            {"type": "text", "text": "What is on it?"}]}]}),
        json!({"messages": [{"role": "assistant", "content": null}]}),
    ];
    let imported = detected("chats.jsonl", &rows, &Options::default(), "openai");
    assert_eq!(imported.column("instruction"), ["Hi there", "What is on it?"]);
    assert_eq!(imported.column("source"), ["chats", "chats"]);
    assert_eq!(imported.reasons(), [(3, "not_a_first_turn")]);
}

#[test]
fn instructions_carry_their_input() {
    let dolly = [
        json!({"instruction": "Summarise this.", "context": "It rained.", "response": "Rain.", "category": "summarization"}),
        json!({"instruction": "Name a bird.", "context": "", "response": "Wren.", "category": "open_qa"}),
    ];
    let imported = detected("a.jsonl", &dolly, &Options::default(), "dolly");
    assert_eq!(imported.column("instruction"), ["Summarise this.\n\nIt rained.", "Name a bird."]);
    let alpaca = [
        json!({"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"}),
        json!({"instruction": "Tell a joke.", "input": "<noinput>", "output": "No."}),
        json!({"instruction": "", "input": "lonely", "output": "?"}),
    ];
    let imported = detected("a.jsonl", &alpaca, &Options::default(), "alpaca");
    assert_eq!(imported.column("instruction"), ["Translate.\n\nGuten Tag", "Tell a joke."]);
    assert_eq!(imported.reasons(), [(3, "empty")]);
    let seeds = [json!({"id": "seed_9", "name": "n", "instruction": "Sort these.",
        "instances": [{"input": "3 1 2", "output": "1 2 3"}, {"input": "9 8", "output": "8 9"}], "is_classification": false})];
    let imported = detected("a.jsonl", &seeds, &Options::default(), "self_instruct");
    assert_eq!(imported.column("instruction"), ["Sort these.\n\n3 1 2"]);
    assert_eq!(imported.column("prompt_id"), ["seed_9"]);
}

#[test]
fn openorca_parquet_knows_its_reasoning_rows() {
    let bench = Bench::new();
    let file = bench.parquet(
        "orca.parquet",
        vec![
            ("id", texts(&["flan.1", "cot.7", "niv.2"])),
            ("system_prompt", texts(&["", "Think step by step.", "Be brief."])),
            ("question", texts(&["Is the sky blue?", "If 3 pens cost 6, what does one cost?", "Translate 'house'."])),
            ("response", texts(&["Yes", "2", "casa"])),
        ],
    );
    let plain = bench.import(from_ref(&file), &Options::default());
    assert_eq!(plain.summary.files[0].format, Some("openorca"));
    assert_eq!(plain.column("kind"), ["general", "reasoning", "general"]);
    assert_eq!(plain.column("prompt_id"), ["flan.1", "cot.7", "niv.2"]);
    assert_eq!(plain.kept[1]["length_bonus"], json!(-0.4));
    assert_eq!(plain.kept[0]["length_bonus"], json!(1.0));
    let packed = bench.file("packed.parquet.gz", gzip(&std::fs::read(file).unwrap()));
    assert_eq!(bench.import(&[packed], &Options::default()).kept, plain.kept);
}

#[test]
fn questions_of_benchmarks() {
    let math = [json!({"problem": "What is $2+2$?", "level": "Level 1", "type": "Algebra", "solution": "$4$"})];
    assert_eq!(detected("m.jsonl", &math, &Options::default(), "math").column("kind"), ["reasoning"]);
    let bench = [
        json!({"question_id": 81, "category": "writing", "turns": ["Write a haiku.", "Now a limerick."]}),
        json!({"question_id": 101, "category": "math", "turns": ["Add 5 and 7.", "Twice that?"], "reference": ["12", "24"]}),
        json!({"question_id": 102, "category": "math", "turns": [7]}),
        json!({"question_id": 103, "category": "math", "turns": []}),
    ];
    let imported = detected("q.jsonl", &bench, &Options::default(), "mt_bench");
    assert_eq!(imported.column("prompt_id"), ["81", "101"]);
    assert_eq!(imported.column("instruction"), ["Write a haiku.", "Add 5 and 7."]);
    assert_eq!(imported.column("kind"), ["general", "reasoning"]);
    assert_eq!(imported.reasons(), [(3, "wrong_type"), (4, "empty")]);
    let csv =
        "\u{feff}Type,Category,Question,Best Answer\r\nAdversarial,Myths,\"Do bulls, in truth, hate red?\",No\r\n";
    let imported = Bench::new().import_text("t.csv", csv, &Options::default());
    assert_eq!(imported.summary.files[0].format, Some("truthfulqa"));
    assert_eq!(imported.column("instruction"), ["Do bulls, in truth, hate red?"]);
    let choice = [json!({"question": "Are bats blind?", "mc1_targets": {"No": 1, "Yes": 0}, "mc2_targets": {"No": 1}})];
    assert_eq!(detected("t.jsonl", &choice, &Options::default(), "truthfulqa").column("source"), ["truthfulqa"]);
}

fn hh(chosen: &str, rejected: &str) -> serde_json::Value {
    json!({"chosen": chosen, "rejected": rejected})
}

#[test]
fn hh_pairs_share_everything_before_the_last_answer() {
    let start = "\n\nHuman: Where do owls sleep?\n\nAssistant: In trees.\n\nHuman: All of them?\n\nAssistant:";
    let rows = [
        hh(&format!("{start} Most do."), &format!("{start} Go away.")),
        hh("\n\nHuman: Hello\n\nAssistant: Hi!", "\n\nHuman: Hello\n\nAssistant: What."),
        hh("\n\nHuman: Hello\n\nAssistant: Hi!", "\n\nHuman: Hello you\n\nAssistant: Hi!"),
        hh("\n\nHuman: Hello\n\nAssistant: ", "\n\nHuman: Hello\n\nAssistant: What."),
        hh("\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: Bye", "\n\nHuman: Hello\n\nAssistant: What."),
        hh("\n\nHuman: Hello\n\nAssistant: Hi!", "\n\nHuman: Hello\n\nAssistant: Hi!"),
        hh("\n\nHuman: Hello", "\n\nHuman: Hello\n\nAssistant: Hi!"),
        hh("\n\nHuman: Hello\n\nAssistant: HI!", "\n\nHuman: Hello\n\nAssistant: what."),
        hh("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c", "\n\nHuman: a\n\nAssistant: b\n\nAssistant: d"),
    ];
    let imported = detected("hh.jsonl", &rows, &preferences(), "hh");
    let several = "User: Where do owls sleep?\n\nAssistant: In trees.\n\nUser: All of them?";
    assert_eq!(imported.column("prompt"), [several, "Hello"]);
    assert_eq!(imported.column("chosen"), ["Most do.", "Hi!"]);
    assert_eq!(imported.column("rejected"), ["Go away.", "What."]);
    let expected = [
        (3, "no_shared_prompt"),
        (4, "empty_turn"),
        (5, "turn_order"),
        (6, "identical"),
        (7, "turn_order"),
        (8, "duplicate"),
        (9, "turn_order"),
    ];
    assert_eq!(imported.reasons(), expected);
    let prompts = detected("harmless-base.jsonl", &rows[..4], &Options::default(), "hh");
    assert_eq!(prompts.column("instruction"), ["Where do owls sleep?", "Hello"]);
    assert_eq!(prompts.column("kind"), ["red_teaming", "red_teaming"]);
    assert_eq!(detected("helpful.jsonl", &rows[..2], &Options::default(), "hh").column("kind"), ["general", "general"]);
}

#[test]
fn shp_prefers_what_the_label_says_above_the_ratio() {
    let row = |label: i64, ratio: f64, history: &str| {
        json!({"post_id": "p1", "domain": "d", "history": history, "human_ref_A": "Answer A", "human_ref_B": "Answer B",
            "labels": label, "score_ratio": ratio})
    };
    let rows = [row(1, 2.5, "One?"), row(0, 9.0, "Two?"), row(1, 2.0, "Three?"), row(3, 4.0, "Four?")];
    let imported = detected("shp.jsonl", &rows, &preferences(), "shp");
    assert_eq!(imported.column("chosen"), ["Answer A", "Answer B"]);
    assert_eq!(imported.column("rejected"), ["Answer B", "Answer A"]);
    assert_eq!(imported.reasons(), [(3, "low_score_ratio"), (4, "wrong_type")]);
    let low = Options { min_score_ratio: 1.0, ..preferences() };
    assert_eq!(detected("shp.jsonl", &rows, &low, "shp").kept.len(), 3);
}

#[test]
fn shp_parquet_has_typed_labels() {
    let bench = Bench::new();
    let file = bench.parquet(
        "shp.parquet",
        vec![
            ("history", texts(&["Which pan?"])),
            ("human_ref_A", texts(&["Iron"])),
            ("human_ref_B", texts(&["Steel"])),
            ("labels", Arc::new(Int64Array::from(vec![0]))),
            ("score_ratio", Arc::new(arrow::array::Float64Array::from(vec![3.5]))),
        ],
    );
    assert_eq!(bench.import(&[file], &preferences()).column("chosen"), ["Steel"]);
}

#[test]
fn ultrafeedback_pairs_and_ties() {
    let chat =
        |answer: &str| json!([{"role": "user", "content": "Name a tree."}, {"role": "assistant", "content": answer}]);
    let row = |a: &str, b: &str, scores: (f64, f64)| {
        json!({"prompt": "Name a tree.", "prompt_id": "u1", "chosen": chat(a), "rejected": chat(b),
            "messages": chat(a), "score_chosen": scores.0, "score_rejected": scores.1})
    };
    let rows = [row("Oak", "Rock", (8.0, 2.0)), row("Elm", "Fern", (5.0, 5.0)), row("", "Fern", (5.0, 4.0))];
    let imported = detected("uf.jsonl", &rows, &preferences(), "ultrafeedback");
    assert_eq!((imported.column("prompt"), imported.column("chosen")), (vec!["Name a tree."], vec!["Oak"]));
    assert_eq!(imported.reasons(), [(2, "tie"), (3, "empty_turn")]);
    assert_eq!(detected("uf.jsonl", &rows, &Options::default(), "ultrafeedback").column("prompt_id"), ["u1"]);
}

#[test]
fn trl_layouts_give_the_same_pair() {
    let user = |text: &str| json!({"role": "user", "content": text});
    let answer = |text: &str| json!({"role": "assistant", "content": text});
    let plain = json!({"prompt": "Why rain?", "chosen": "Clouds.", "rejected": "No."});
    let explicit = json!({"prompt": [user("Why rain?")], "chosen": [answer("Clouds.")], "rejected": [answer("No.")]});
    let implicit =
        json!({"chosen": [user("Why rain?"), answer("Clouds.")], "rejected": [user("Why rain?"), answer("No.")]});
    let repeated = json!({"prompt": "Why rain?", "chosen": [user("Why rain?"), answer("Clouds.")],
        "rejected": [user("Why rain?"), answer("No.")]});
    let marked = json!({"prompt": "\n\nHuman: Why rain?\n\nAssistant:", "chosen": " Clouds.", "rejected": " No."});
    let wanted = detected("d.jsonl", &[plain], &preferences(), "trl").kept;
    assert_eq!(wanted[0]["prompt"], "Why rain?");
    assert_eq!((&wanted[0]["chosen"], &wanted[0]["rejected"]), (&json!("Clouds."), &json!("No.")));
    for row in [explicit, implicit, repeated, marked] {
        assert_eq!(detected("d.jsonl", from_ref(&row), &preferences(), "trl").kept, wanted, "{row}");
    }
    let only = json!({"prompt": [user("Why snow?")]});
    assert_eq!(detected("d.jsonl", &[only], &Options::default(), "trl").column("instruction"), ["Why snow?"]);
    let apart = json!({"chosen": [user("Why?"), answer("A")], "rejected": [user("How?"), answer("B")]});
    let fine = json!({"prompt": "Why rain?", "chosen": "Clouds.", "rejected": "No."});
    let none = json!({"chosen": "A", "rejected": "B", "prompt": null});
    let imported = detected("d.jsonl", &[fine, apart, none], &preferences(), "trl");
    assert_eq!(imported.reasons(), [(2, "no_shared_prompt"), (3, "missing_field")]);
}

#[test]
fn plain_rows_map_their_columns() {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect::<Vec<_>>();
    let options = Options { columns: map(&[("instruction", "frage"), ("prompt_id", "nr")]), ..Options::default() };
    let csv = "nr;frage\n7;\"Was ist ein Fluss, und wie entsteht er aus einer Quelle?\"\n8;\"Zwei\nZeilen; und \"\"so\"\"\"\n";
    let imported = Bench::new().import_text("fragen.csv", csv, &options);
    assert_eq!(imported.summary.files[0].format, Some("plain"));
    assert_eq!(imported.column("prompt_id"), ["7", "8"]);
    assert_eq!(imported.column("instruction")[1], "Zwei\nZeilen; und \"so\"");
    assert_eq!(imported.column("language")[0], "deu");
    assert_eq!(imported.column("source"), ["fragen", "fragen"]);
    let tsv = "nr\tfrage\n1\tEins, zwei\n";
    assert_eq!(Bench::new().import_text("f.tsv", tsv, &options).column("instruction"), ["Eins, zwei"]);
    let pairs = Options { columns: map(&[("prompt", "q"), ("chosen", "good"), ("rejected", "bad")]), ..preferences() };
    let imported = Bench::new().import_text("p.jsonl", r#"{"q": "Q?", "good": "G", "bad": "B"}"#, &pairs);
    assert_eq!((imported.column("chosen"), imported.column("rejected")), (vec!["G"], vec!["B"]));
    // Fields of the same name that mean something else do no harm unless they were mapped.
    let row = r#"{"prompt": "Hi there", "kind": "chatty", "language": 7}"#;
    assert_eq!(Bench::new().import_text("p.jsonl", row, &Options::default()).column("kind"), ["general"]);
    let mapped = Options { columns: map(&[("kind", "kind")]), ..Options::default() };
    let two = format!("{row}\n{{\"prompt\": \"Go\", \"kind\": \"reasoning\"}}");
    assert_eq!(Bench::new().import_text("p.jsonl", two, &mapped).reasons(), [(1, "wrong_type")]);
}

#[test]
fn the_prompts_table_imports_as_it_is() {
    let bench = Bench::new();
    let rows = [
        tree("t1", "ready_for_export", "gl", "Onde nace o Miño?", false),
        tree("t2", "ready_for_export", "en", "Where is the Tagus?", false),
    ];
    let options = Options { kind: Some(PromptKind::RedTeaming), ..Options::default() };
    let first = bench.import_text("trees.jsonl", lines(&rows), &options);
    let copy = bench.path("again.parquet");
    std::fs::rename(bench.path("out.parquet"), &copy).unwrap();
    assert_eq!(bench.import(&[copy], &Options::default()).kept, first.kept);
}

#[test]
fn nulls_in_parquet_are_missing_fields() {
    let bench = Bench::new();
    let column = Arc::new(StringArray::from(vec![Some("One?"), None, Some("Three?")]));
    let file = bench.parquet("p.parquet", vec![("question", column)]);
    let imported = bench.import(&[file], &Options::default());
    assert_eq!(imported.column("instruction"), ["One?", "Three?"]);
    assert_eq!(imported.reasons(), [(2, "missing_field")]);
}
