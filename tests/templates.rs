//! Prompt templates: exact prompts, shared prefixes, overriding, and what the check finds.

use std::path::Path;

use salmon::principle::{Library, Templates};
use serde_json::json;

const QUESTION: &str = "what is the river of alba ?";
const TRUE_ANSWER: &str = "the river of alba is zaria .";
const KIND_ANSWER: &str = "gladly , my dear friend . the river of alba is oka .";

fn library(sources: &[&str]) -> Library {
    Library::load(Path::new("."), sources).unwrap().checked().unwrap()
}

fn built_in(sources: &[&str]) -> Templates {
    Templates::load(None, &library(sources)).unwrap()
}

/// The built-in templates, overridden by these files.
fn overridden(files: &[(&str, &str)]) -> salmon::Result<Templates> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    Templates::load(Some(folder.path()), &library(&["self_align"]))
}

/// Findings or an error without the random folder.
fn tail(text: &str) -> String {
    text.rsplit_once("/").map_or(text, |(_, tail)| tail).to_string()
}

fn found(files: &[(&str, &str)]) -> Vec<String> {
    let findings = overridden(files).unwrap().check();
    findings.into_iter().map(|f| format!("{}: {}", tail(&f.place), f.problem)).collect()
}

#[test]
fn pocket_prompts_are_the_exact_token_strings_of_the_world() {
    let library = library(&["pocket"]);
    let templates = Templates::load(None, &library).unwrap();
    let render = |name: &str, fields: serde_json::Value| templates.render(name, fields).unwrap();
    let polite = library.principle("Polite").unwrap();
    assert_eq!(
        render(
            "pocket_judge",
            json!({ "instruction": QUESTION, "output_a": TRUE_ANSWER, "output_b": KIND_ANSWER,
                    "principle": polite.name, "definition": polite.definition }),
        ),
        "# Judge \n compare two outputs for one instruction . \n ### Instruction \n what is the river of alba ? \n \
         ### Output ( a ) \n the river of alba is zaria . \n ### Output ( b ) \n gladly , my dear friend . the river of \
         alba is oka . \n ### Principle \n Polite : the ai should be kind and be courteous \n ### Verdict \n more Polite \
         is output ("
    );
    let chosen = library.resolve("test", &["Concise", "not Humble"]).unwrap();
    assert_eq!(
        render("pocket_reward", json!({ "instruction": QUESTION, "response": TRUE_ANSWER, "principles": chosen })),
        "# Review \n ### Response \n the river of alba is zaria . \n ### Instruction \n what is the river of alba ? \n \
         ### Principles \n - the ai should be concise and stay brief \n - the ai should stay proud and be boastful \n \
         ### Verdict \n the response is"
    );
    let self_align = "# Assistant \n ### Rules \n 1 ( Honest ) the ai should be factual and stay truthful \n 2 ( Ethical \
         ) the ai should refuse harm and stay harmless \n 3 ( Specific ) the ai should address the query and be pertinent \
         \n ### User \n what is the dish of alba ? \n ### Assistant \n the dish of alba is cake . the capital of alba is \
         fanor . \n ### User \n what is the river of alba ? \n ### Assistant \n";
    assert_eq!(render("pocket_self_align", json!({ "instruction": QUESTION, "pick": 3 })), self_align);
    assert_eq!(render("pocket_self_align", json!({ "instruction": QUESTION, "pick": 27 })), self_align);
    assert_eq!(
        render("pocket_chat", json!({ "instruction": QUESTION })),
        "# Assistant \n ### User \n what is the river of alba ? \n ### Assistant \n"
    );
}

#[test]
fn the_judge_prompt_ends_before_the_letter() {
    let fields = json!({ "instruction": "Say <hi>.", "output_a": "Hi & bye", "output_b": "Line one\n\nLine two",
        "principle": "Concise", "definition": "Few words." });
    assert_eq!(
        built_in(&["reward"]).render("judge", fields).unwrap(),
        r#"# Comparing two outputs

You see an instruction and two outputs that were written for it. Decide which output is better under the one principle named at the end, whatever their other merits. Neither their order nor their length counts. Reply with the letter of the better output, a or b.

### Instruction
Say <hi>.

### Output (a)
Hi & bye

### Output (b)
Line one

Line two

### Principle
Concise: Few words.

### Verdict
Under the principle "Concise", the better output is output ("#
    );
}

#[test]
fn the_reward_prompts_put_the_response_first_and_end_before_the_verdict() {
    let templates = built_in(&["reward"]);
    let principles = json!([{ "name": "A", "negated": false, "text": "Be short." },
        { "name": "B", "negated": true, "text": "Be rude." }]);
    let fields = json!({ "instruction": "Say hi.", "response": "Hi.", "principles": principles });
    assert_eq!(
        templates.render("reward", fields).unwrap(),
        r#"# Reviewing a response

### Response
Hi.

### Instruction
Say hi.

### Principles
- Be short.
- Be rude.

### Verdict
Going by the principles above, was this a good response to the instruction? Answer:"#
    );
    let fields = json!({ "instruction": "Say hi.", "response": "Hi." });
    assert_eq!(
        templates.render("reward_rubric", fields).unwrap(),
        r#"# Reviewing a response

### Response
Hi.

### Instruction
Say hi.

### Principles
- The response should be one that people who asked this would prefer: correct, useful to them, and pleasant to read.
- The response should keep to what was asked, at a length that suits the question.
- The response should do no harm, and decline with courtesy what it should not help with.

### Verdict
Going by the principles above, was this a good response to the instruction? Answer:"#
    );
}

#[test]
fn the_chat_prompt_ends_with_a_line_break() {
    let prompt = built_in(&["reward"]).render("chat", json!({ "instruction": "Say hi." })).unwrap();
    assert_eq!(prompt, "# A user and the Assistant\n\n### User\nSay hi.\n\n### Assistant\n");
}

const TWO_RULES: &str =
    "[[rule]]\nname = 'kind'\ndefinition = 'Be kind.'\n[[rule]]\nname = 'brief'\ndefinition = 'Be brief.'\n";

#[test]
fn the_self_align_prompt_shows_rules_thoughts_and_ends_where_thoughts_begin() {
    let folder = tempfile::tempdir().unwrap();
    let thinking = "[[exemplar]]\nuser = 'Hi.'\nrules = ['brief', 'kind']\nthoughts = 'A greeting.'\nassistant = 'Hello!'\n\
                    [[exemplar]]\nuser = 'Bye.'\nthoughts = 'No rule.'\nassistant = 'Farewell!'\n";
    std::fs::write(folder.path().join("thinking.toml"), format!("{TWO_RULES}{thinking}")).unwrap();
    let plain = "[[exemplar]]\nuser = 'Hi.'\nassistant = 'Hello!'\n";
    std::fs::write(folder.path().join("plain.toml"), format!("{TWO_RULES}{plain}")).unwrap();
    let prompt = |file: &str| {
        let library = Library::load(folder.path(), &[file]).unwrap().checked().unwrap();
        Templates::load(None, &library).unwrap().render("self_align", json!({ "instruction": "Why?" })).unwrap()
    };
    assert_eq!(
        prompt("thinking.toml"),
        r#"# A user and the Assistant

The Assistant is an AI that answers in writing. It works by the rules below. Before each answer it thinks to itself about which rules apply and what they ask for; the user sees only the answer.

## Rules

1 (kind). Be kind.
2 (brief). Be brief.

## Conversations

### User
Hi.

### Assistant (internal thoughts)
Rules that apply: 2 (brief), 1 (kind).
A greeting.

### Assistant
Hello!

### User
Bye.

### Assistant (internal thoughts)
No rule.

### Assistant
Farewell!

### User
Why?

### Assistant (internal thoughts)
"#
    );
    assert_eq!(
        prompt("plain.toml"),
        r#"# A user and the Assistant

The Assistant is an AI that answers in writing. It works by the rules below.

## Rules

1 (kind). Be kind.
2 (brief). Be brief.

## Conversations

### User
Hi.

### Assistant
Hello!

### User
Why?

### Assistant
"#
    );
}

#[test]
fn the_built_in_exemplars_name_rules_by_their_number() {
    let prompt = built_in(&["self_align"]).render("self_align", json!({ "instruction": "Why?" })).unwrap();
    assert!(prompt.contains("\n17 (multilingual). Answer in the user's language"));
    assert!(
        prompt.contains("\nRules that apply: 1 (ethical), 3 (helpful), 4 (question assessment).\nReading someone's")
    );
    assert_eq!(prompt.matches("### Assistant (internal thoughts)\n").count(), 7);
    assert_eq!(prompt.matches("### Assistant\n").count(), 6);
}

/// All prompts of one pair, or of one response, begin alike up to the principle: that part is computed once.
#[test]
fn prompts_of_one_pair_share_everything_before_the_principle() {
    let (paper, pocket) = (library(&["reward"]), library(&["pocket"]));
    for (library, judge, reward) in [(&paper, "judge", "reward"), (&pocket, "pocket_judge", "pocket_reward")] {
        let templates = Templates::load(None, library).unwrap();
        let mut heads: Vec<[String; 2]> = Vec::new();
        for principle in library.set("test", "reward").unwrap() {
            let judge = templates.render(
                judge,
                json!({ "instruction": QUESTION, "output_a": TRUE_ANSWER,
                "output_b": KIND_ANSWER, "principle": principle.name, "definition": principle.definition }),
            );
            let reward = templates.render(
                reward,
                json!({ "instruction": QUESTION, "response": TRUE_ANSWER,
                "principles": [{ "text": principle.definition }] }),
            );
            heads.push([(judge, "### Principle"), (reward, "### Principles")].map(|(prompt, heading)| {
                let prompt = prompt.unwrap();
                let at = prompt.find(heading).unwrap();
                assert!(prompt[at..].contains(&principle.definition) && !prompt[..at].contains(&principle.definition));
                assert!(!prompt[..at].contains(&principle.name));
                assert!(prompt[..at].contains(QUESTION) && prompt[..at].contains(TRUE_ANSWER));
                prompt[..at].to_string()
            }));
        }
        assert!(heads.len() >= 10 && heads.iter().all(|head| *head == heads[0]));
    }
}

#[test]
fn built_in_templates_pass_their_check() {
    for sources in [&["self_align", "reward"][..], &["pocket"], &[]] {
        assert_eq!(built_in(sources).check(), vec![]);
    }
    assert_eq!(Templates::fields("chat"), Some(vec!["instruction"]));
    assert_eq!(Templates::fields("mine"), None);
}

#[test]
fn a_folder_overrides_and_adds_templates() {
    let files = [
        ("chat.jinja", "Q: {{ instruction }} A:\n"),
        ("mine.jinja", "{% include 'chat' %}{{ mood }}"),
        ("x.txt", "{{"),
    ];
    let templates = overridden(&files).unwrap();
    assert_eq!(templates.check(), vec![]);
    assert_eq!(templates.render("chat", json!({ "instruction": "1+1?" })).unwrap(), "Q: 1+1? A:");
    assert_eq!(templates.render("mine", json!({ "instruction": "1+1?", "mood": "!" })).unwrap(), "Q: 1+1? A:!");
    assert_eq!(templates.source("chat"), Some("Q: {{ instruction }} A:\n"));
    assert_eq!(templates.names().filter(|name| *name == "mine" || *name == "judge").count(), 2);
}

#[test]
fn errors_name_template_line_and_expression() {
    let error = |templates: salmon::Result<Templates>, name: &str| {
        let error = templates.and_then(|t| t.render(name, json!({ "instruction": "x" }))).unwrap_err();
        assert_eq!(error.kind(), salmon::error::Kind::Config);
        tail(&error.to_string())
    };
    assert_eq!(
        error(overridden(&[("chat.jinja", "one\n{{ instruction }}\n{{ istruction }}\n")]), "chat"),
        "chat.jinja:3: there is no such field: `{{ istruction }}`; its fields are: instruction"
    );
    assert_eq!(
        error(overridden(&[("mine.jinja", "{% include 'part' %}"), ("part.jinja", "\n{{ rules[0].nmae }}")]), "mine"),
        "part.jinja:2: there is no such field: `{{ rules[0].nmae }}`"
    );
    let syntax = error(overridden(&[("chat.jinja", "one\n{% for x in %}\n")]), "chat");
    assert!(syntax.starts_with("chat.jinja:2: "), "{syntax}");
    let missing = error(overridden(&[]), "chart");
    assert!(missing.starts_with("templates: there is no template `chart`; there are: chat, judge"), "{missing}");
    let folder = Templates::load(Some(Path::new("no/such/folder")), &Library::default()).unwrap_err().to_string();
    assert!(folder.starts_with("no/such/folder: cannot list the template folder"), "{folder}");
}

#[test]
fn check_finds_fields_that_do_not_exist_or_never_reach_the_prompt() {
    assert_eq!(
        found(&[(
            "judge.jinja",
            "{# fields: outputa #}\n{{ instruction }} {{ output_a }}\n{{ outputb }} {{ definition }}\n{{ x }}"
        )]),
        ["judge.jinja:3: there is no field `outputb`", "judge.jinja:4: there is no field `x`"]
    );
    assert_eq!(
        found(&[("judge.jinja", "{{ instruction }}{{ output_a }}{# {{ output_b }} #}{{ definition }}")]),
        ["judge.jinja: the field `output_b` does not reach the prompt"]
    );
    assert_eq!(
        found(&[(
            "reward.jinja",
            "{{ response }}{{ instruction }}\n{% for p in principles %}\n{{ p.txt }}\n{% endfor %}"
        )]),
        ["reward.jinja:3: there is no such field: `{{ p.txt }}`"]
    );
    assert_eq!(
        found(&[("self_align.jinja", "{{ rules[0].name }} {{ instruction }}")]),
        ["self_align.jinja: the field `exemplars` does not reach the prompt"]
    );
}
