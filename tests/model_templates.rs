//! Chat templates in the shapes of well-known families: what transformers renders, we render; and hostile ones end.

use salmon::model::{ChatTemplate, Message, Tokenizer};
use serde_json::{Map, Value, json};

use crate::model_fixtures::copy;

/// A model folder with these files.
fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy("untied", folder.path());
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, "post_processor": null,
        "decoder": null, "pre_tokenizer": null,
        "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "<s>": 1, "</s>": 2}},
    });
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn open(files: &[(&str, String)]) -> salmon::Result<ChatTemplate> {
    let folder = folder(files);
    ChatTemplate::open(folder.path(), &Tokenizer::open(folder.path())?)
}

fn template(source: &str) -> ChatTemplate {
    open(&[("chat_template.jinja", source.to_string())]).unwrap()
}

fn said(source: &str) -> salmon::Result<String> {
    template(source).render(&[Message::new("user", "Hello")], &Map::new(), true)
}

#[test]
fn families_render_as_in_transformers() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chat/families.json");
    let recorded: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (mut rendered, mut refused) = (0, 0);
    for (name, source) in recorded["templates"].as_object().unwrap() {
        let settings = json!({"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}});
        let files =
            [("chat_template.jinja", source.as_str().unwrap().into()), ("tokenizer_config.json", settings.to_string())];
        let template = open(&files).unwrap().with_time(recorded["now"].as_i64().unwrap());
        for case in recorded["cases"].as_array().unwrap().iter().filter(|case| case["template"] == *name) {
            let (talk, variables) = (case["talk"].as_str().unwrap(), case["variables"].as_str().unwrap());
            let messages: Vec<Message> = serde_json::from_value(recorded["talks"][talk].clone()).unwrap();
            let given = recorded["variables"][variables].as_object().unwrap();
            let ours = template.render(&messages, given, case["add_generation_prompt"].as_bool().unwrap());
            match case["expected"].as_str() {
                Some(expected) => {
                    let ours = ours.unwrap_or_else(|e| panic!("{name}, {talk}, {variables}: {e}"));
                    assert_eq!(ours, expected, "{name}, {talk}, {variables}");
                    rendered += 1;
                }
                None => {
                    let error = ours.unwrap_err().to_string();
                    let theirs = case["expected"]["error"].as_str().unwrap();
                    // Python has its own words for a type that does not fit.
                    assert!(error.contains(theirs) || theirs.contains("can only concatenate"), "{error}");
                    assert!(error.contains("chat_template.jinja:"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert_eq!((rendered, refused), (164, 32));
}

#[test]
fn special_tokens_come_from_every_file_that_names_them() {
    let source =
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ additional_special_tokens | join('') }}";
    let old = json!({"pad_token": "<pad>", "unk_token": {"content": "<old>"}, "additional_special_tokens": ["<a>", {"content": "<b>"}]});
    let new = json!({"unk_token": "<unk>", "add_bos_token": false, "eos_token": null, "chat_template": source});
    let template =
        open(&[("special_tokens_map.json", old.to_string()), ("tokenizer_config.json", new.to_string())]).unwrap();
    let text = template.render(&[], &Map::new(), false).unwrap();
    assert_eq!(text, "<s></s><pad><unk><a><b>", "bos and eos are the ids of config.json");
}

#[test]
fn tools_choose_the_template_for_tools() {
    let named = json!({"chat_template": [{"name": "tool_use", "template": "with {{ tools | length }}"}, {"name": "default", "template": "without"}]});
    let template = open(&[("tokenizer_config.json", named.to_string())]).unwrap();
    let render = |tools: Value| {
        let variables = Map::from_iter([("tools".to_string(), tools)]);
        template.render(&[], &variables, false).unwrap()
    };
    assert_eq!((render(Value::Null).as_str(), render(json!([{}, {}])).as_str()), ("without", "with 2"));
    let files = [
        ("chat_template.jinja", "file".to_string()),
        ("additional_chat_templates/tool_use.jinja", "tools file".to_string()),
        ("tokenizer_config.json", named.to_string()),
    ];
    let template = open(&files).unwrap();
    assert_eq!(template.render(&[], &Map::new(), false).unwrap(), "file", "a file stands above the key");
    let tools = Map::from_iter([("tools".to_string(), json!([{}]))]);
    assert_eq!(template.render(&[], &tools, false).unwrap(), "tools file");
}

#[test]
fn the_clock_is_the_callers() {
    let source = "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}no clock{% endif %}";
    assert_eq!(said(source).unwrap(), "no clock");
    let render = |source: &str| template(source).with_time(86_400 * 59).render(&[], &Map::new(), false);
    assert_eq!(render(source).unwrap(), "01 Mar 1970");
    assert_eq!(render("[{{ strftime_now('') }}]").unwrap(), "[]");
    let error = render("{{ strftime_now('%c' * 9000) }}").unwrap_err().to_string();
    assert!(error.contains("strftime_now"), "{error}");
}

#[test]
fn templates_that_do_not_end_are_stopped() {
    let forever = "{% for a in range(90000) %}{% for b in range(90000) %}{% for c in range(90000) %}{% endfor %}{% endfor %}{% endfor %}";
    let grows = "{% for a in range(90000) %}{{ messages[0].content * 1000 }}{% endfor %}";
    let calls = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}";
    // A native loop that no step counts: the library's `count` never ended on an empty text.
    assert_eq!(said("{{ 'aaa'.count('') }}{{ 'aé-é'.find('-') }}{{ 'aé-é'.rfind('é') }}").unwrap(), "423");
    for (source, says) in [
        (forever, "does not end within"),
        (grows, "writes more than 64 MiB"),
        (calls, "recursion limit"),
        ("{{ 'x' * 10000000000 }}", "too large"),
        ("{{ range(10000000) | list }}", "range"),
        ("{% include 'other' %}", "chat_template.jinja"),
    ] {
        let error = said(source).unwrap_err();
        assert_eq!(error.kind(), salmon::error::Kind::Model, "{error}");
        let error = error.to_string();
        assert!(error.contains("chat_template.jinja") && error.contains(says), "{source}: {error}");
    }
}

#[test]
fn values_nested_without_end_cost_an_error_and_no_crash() {
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}{% endfor %}";
    assert_eq!(said(nested).unwrap(), "");
    for use_it in ["{{ ns.x | tojson }}", "{{ ns.x }}", "{{ ns.x == ns.x }}", "{{ ns.x | string | length }}"] {
        // An error or a long text; what counts is that there is an answer.
        let _ = said(&format!("{nested}{use_it}"));
    }
}
