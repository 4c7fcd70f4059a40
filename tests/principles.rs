//! Principle files: what the built-in ones hold, what a user's file changes, and what the check finds.

use std::collections::BTreeMap;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float64Type;
use salmon::principle::{Chosen, Finding, Library};

/// Loads one user file with this text.
fn user_file(text: &str) -> salmon::Result<Library> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.toml"), text).unwrap();
    Library::load(folder.path(), &["mine.toml"])
}

fn built_in(sources: &[&str]) -> Library {
    Library::load(Path::new("."), sources).unwrap().checked().unwrap()
}

fn members(library: &Library, set: &str) -> Vec<String> {
    library.set("test", set).unwrap().iter().map(|principle| principle.name.clone()).collect()
}

/// `line: problem` of each finding, and its help must say something.
fn found(findings: Vec<Finding>) -> Vec<String> {
    findings
        .into_iter()
        .map(|finding| {
            assert!(!finding.help.is_empty());
            let (file, line) = finding.place.rsplit_once(':').unwrap();
            assert!(file.ends_with("mine.toml"), "{}", finding.place);
            format!("{line}: {}", finding.problem.replace(file, "mine.toml"))
        })
        .collect()
}

fn check(text: &str) -> Vec<String> {
    found(user_file(text).unwrap().check())
}

/// `line: problem` of a file that cannot be loaded.
fn load_error(text: &str) -> String {
    let error = user_file(text).unwrap_err();
    assert_eq!(error.kind(), salmon::error::Kind::Config);
    let text = error.to_string();
    text[text.find("mine.toml:").unwrap() + "mine.toml:".len()..].to_string()
}

#[test]
fn built_in_sets_have_the_members_of_the_method() {
    let library = built_in(&["reward", "rl", "interventions", "harmless", "honest", "non_evasive", "self_align"]);
    assert_eq!(
        members(&library, "reward"),
        [
            "Overall Helpful",
            "Concise",
            "Honest and Accurate",
            "Ethical",
            "Natural and Fluent",
            "Specific",
            "Educational and Engaging",
            "Methodical",
            "Multilingual",
            "Creative",
            "Comprehensive",
        ]
    );
    assert_eq!(
        members(&library, "aggregation"),
        [
            "Concise",
            "Honest and Accurate",
            "Ethical",
            "Specific",
            "Educational and Engaging",
            "Methodical",
            "Creative",
            "Comprehensive",
        ]
    );
    let weights: BTreeMap<String, f64> =
        library.set("test", "rl").unwrap().iter().map(|p| (p.name.clone(), p.weight)).collect();
    let expected = [
        ("Analytical Structure", 3.0),
        ("Candor", 4.0),
        ("Comprehensive", 3.0),
        ("Consistent Reasoning", 1.0),
        ("Creative", 1.0),
        ("Educational", 1.0),
        ("Ethical", 2.0),
        ("Honest and Accurate", 3.0),
        ("Multilingual", 1.0),
        ("Natural Language", 3.0),
        ("Numerically Sensitive", 1.0),
        ("Privacy", 1.0),
        ("Stand-Alone", 2.0),
        ("Vivid", 1.0),
    ];
    assert_eq!(weights, expected.map(|(name, weight)| (name.to_string(), weight)).into());
    for (set, count) in [("harmless", 11), ("honest", 8), ("non_evasive", 9), ("interventions", 3)] {
        assert_eq!(members(&library, set).len(), count, "{set}");
    }
    assert!(library.set("test", "interventions").unwrap().iter().all(|principle| principle.weight == 0.0));
    assert!(library.set("test", "reward").unwrap().iter().all(|principle| principle.negative_definition.is_some()));
}

#[test]
fn built_in_rules_and_exemplars_are_those_of_self_align() {
    let library = built_in(&["self_align"]);
    let rules: Vec<&str> = library.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(
        rules,
        [
            "ethical",
            "informative",
            "helpful",
            "question assessment",
            "reasoning",
            "multi-aspect",
            "candor",
            "knowledge recitation",
            "static",
            "clarification",
            "numerical sensitivity",
            "dated knowledge",
            "step-by-step",
            "balanced perspectives",
            "creative",
            "operational",
            "multilingual",
        ]
    );
    assert_eq!(library.exemplars.len(), 6);
    assert!(library.exemplars.iter().all(|exemplar| exemplar.thoughts.is_some() && !exemplar.rules.is_empty()));
    assert_eq!(library.identity.len(), 8);
    assert!(library.principles.is_empty());
}

#[test]
fn the_pocket_world_has_ten_principles_with_unseen_wordings() {
    let library = built_in(&["pocket"]);
    let names = [
        "Concise",
        "Comprehensive",
        "Polite",
        "Honest",
        "Ethical",
        "Specific",
        "Methodical",
        "Creative",
        "Multilingual",
        "Humble",
    ];
    for set in ["reward", "aggregation", "rl"] {
        assert_eq!(members(&library, set), names, "{set}");
    }
    for principle in &library.principles {
        assert_eq!((principle.reworded.len(), principle.negative_reworded.len()), (3, 3), "{}", principle.name);
    }
    assert_eq!(library.rules.len(), 3);
    assert_eq!(library.exemplars.len(), 24);
}

#[test]
fn every_built_in_file_is_sound_by_itself() {
    for name in Library::built_in() {
        assert_eq!(built_in(&[name]).check(), vec![], "{name}");
    }
}

#[test]
fn boosts_lift_the_tagged_principles_of_their_kind_only() {
    let library = built_in(&["rl"]);
    let lifted = |kind: &str| -> Vec<String> {
        let of = |p: &&salmon::principle::Principle| library.weight(p, kind) == p.weight + 128.0;
        library.principles.iter().filter(of).map(|p| p.name.clone()).collect()
    };
    assert_eq!(lifted("reasoning"), ["Consistent Reasoning", "Numerically Sensitive"]);
    assert_eq!(lifted("red_teaming"), ["Ethical", "Privacy"]);
    let plain = library.principles.iter().all(|p| library.weight(p, "general") == p.weight);
    assert!(plain && lifted("general").is_empty());

    let twice = user_file(
        "uses = ['sets']\n[[principle]]\nname = 'A'\ndefinition = 'a'\nweight = 0\ntags = ['x', 'y']\n\
         [[boost]]\nkind = 'reasoning'\ntag = 'x'\nweight = 2\n[[boost]]\nkind = 'reasoning'\ntag = 'y'\nweight = 0.5\n",
    )
    .unwrap();
    assert_eq!(twice.weight(&twice.principles[0], "reasoning"), 2.5);
}

#[test]
fn the_table_has_one_row_per_principle_and_the_declared_schema() {
    let library = built_in(&["rl"]);
    let batch = library.batch().unwrap();
    assert_eq!(batch.schema(), salmon::table::principles().schema());
    assert_eq!(batch.num_rows(), 20);
    let row = library.principles.iter().position(|p| p.name == "Candor").unwrap();
    assert_eq!(batch["name"].as_string::<i32>().value(row), "Candor");
    assert!(batch["negative_definition"].is_null(row));
    assert_eq!(batch["weight"].as_primitive::<Float64Type>().value(row), 4.0);
    let sets = batch["sets"].as_list::<i32>().value(row);
    assert_eq!(sets.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["rl", "honest"]);
    assert_eq!(batch["tags"].as_list::<i32>().value(row).len(), 0);
}

#[test]
fn lists_of_names_resolve_with_negation() {
    let library = built_in(&["pocket"]);
    let chosen = library.resolve("salmon.toml: principles", &["Creative", "not Humble"]).unwrap();
    let expected = [
        ("Creative", false, "the ai should be vivid and use imagery"),
        ("Humble", true, "the ai should stay proud and be boastful"),
    ];
    assert_eq!(chosen, expected.map(|(name, negated, text)| Chosen { name: name.into(), negated, text: text.into() }));
    let problem = |names: &[&str]| {
        let findings = library.check_names("salmon.toml: principles", names);
        findings.into_iter().map(|f| format!("{}: {}", f.place, f.problem)).collect::<Vec<_>>()
    };
    assert_eq!(problem(&["Concise"]), Vec::<String>::new());
    assert_eq!(
        problem(&["Humbel", "not Kind"]),
        [
            "salmon.toml: principles: there is no principle `Humbel`",
            "salmon.toml: principles: there is no principle `Kind`",
        ]
    );
    assert_eq!(problem(&["Humble", "not Humble"]), ["salmon.toml: principles: `Humble` is named twice"]);

    let chosen = built_in(&["rl", "interventions"]).resolve("test", &["interventions", "not Creative"]).unwrap();
    let names: Vec<(&str, bool)> = chosen.iter().map(|c| (c.name.as_str(), c.negated)).collect();
    let interventions = ["No Self-Praise", "Carry Out the Instruction", "To the Point"].map(|name| (name, false));
    assert_eq!(names, [&interventions[..], &[("Creative", true)]].concat());
    assert_eq!(problem(&["not reward"]), ["salmon.toml: principles: there is no principle `reward`"]);
    assert_eq!(problem(&["reward", "not Polite"]), ["salmon.toml: principles: `Polite` is named twice"]);

    let error = built_in(&["rl"]).resolve("salmon.toml: principles", &["not Candor"]).unwrap_err().to_string();
    assert!(error.starts_with("salmon.toml: principles: `not Candor` needs a negative definition"), "{error}");
    assert!(error.contains("built-in rl.toml:"), "{error}");
    let error = library.set("salmon.toml: set", "kind").unwrap_err().to_string();
    assert_eq!(
        error,
        "salmon.toml: set: no principle is in the set `kind`; the loaded sets are: aggregation, reward, rl"
    );
}

#[test]
fn a_user_file_adds_and_replaces() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("more")).unwrap();
    let mine = "[[principle]]\nname = 'Brave'\ndefinition = 'The response should be brave.'\nsets = ['rl']\n\
                [[principle]]\nname = 'Vivid'\ndefinition = 'The response should glow.'\nweight = 5\nsets = ['rl']\n";
    std::fs::write(folder.path().join("more/a.toml"), mine).unwrap();
    std::fs::write(folder.path().join("more/b.toml"), "uses = ['a.toml', 'honest']\n").unwrap();
    let before = members(&built_in(&["rl"]), "rl");
    let library = Library::load(folder.path(), &["rl", "more", "more/a.toml"]).unwrap().checked().unwrap();
    let mut expected = before.clone();
    expected.push("Brave".into());
    assert_eq!(members(&library, "rl"), expected);
    let vivid = library.principle("Vivid").unwrap();
    assert_eq!((vivid.definition.as_str(), vivid.weight), ("The response should glow.", 5.0));
    assert_eq!(members(&library, "honest").len(), 8);
    assert_eq!(library.principle("Brave").unwrap().weight, 1.0);
}

#[test]
fn files_that_are_not_there_say_what_could_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let error = Library::load(folder.path(), &["rewards"]).unwrap_err().to_string();
    assert!(
        error.starts_with("principles: there is no principle file ") && error.contains("sets, reward, rl"),
        "{error}"
    );
    assert!(load_error("uses = ['reward',\n  'gone.toml']\n").starts_with("2: there is no principle file"));
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let error = Library::load(folder.path(), &["empty"]).unwrap_err().to_string();
    assert!(error.contains("holds no .toml file"), "{error}");
    std::fs::write(folder.path().join("latin1.toml"), b"uses = ['\xe9']").unwrap();
    let error = Library::load(folder.path(), &["latin1.toml"]).unwrap_err().to_string();
    assert!(error.contains("latin1.toml: cannot read the principle file"), "{error}");
}

#[test]
fn toml_that_does_not_fit_is_an_error_with_its_line() {
    let unknown = load_error("[[principle]]\nname = 'A'\ndefinition = 'a'\nwieght = 2\n");
    assert!(unknown.starts_with("4: unknown field `wieght`, expected one of `name`"), "{unknown}");
    let table = load_error("\n[[princple]]\nname = 'A'\n");
    assert!(table.starts_with("2: unknown field `princple`"), "{table}");
    let missing = load_error("# one\n[[principle]]\nname = 'A'\n");
    assert!(missing.starts_with("2: missing field `definition`"), "{missing}");
    let kind = load_error("[[boost]]\nkind = 'general'\ntag = 't'\nweight = 'much'\n");
    assert!(kind.starts_with("4: invalid type: string"), "{kind}");
    let draw = load_error("[[set]]\nname = 's'\nabout = 'x'\ndraw = -1\n");
    assert!(draw.starts_with("4: invalid value: integer"), "{draw}");
    let syntax = load_error("[[principle]]\nname = 'A\n");
    assert!(syntax.starts_with("2: "), "{syntax}");
}

#[test]
fn check_finds_repetitions() {
    assert_eq!(
        check(
            "[[principle]]\nname = 'A'\ndefinition = 'The same  words.'\nnegative_definition = 'b'\n\
             [[principle]]\nname = 'A'\ndefinition = 'c'\n\
             [[principle]]\nname = 'D'\ndefinition = 'the same words.'\nreworded = [\n'd',\n'B',\n]\n"
        ),
        [
            "6: the principle `A` is there twice, first at mine.toml:2",
            "10: definition has the same words as mine.toml:3",
            "13: reworded has the same words as mine.toml:4",
        ]
    );
    assert_eq!(
        check(
            "[[rule]]\nname = 'r'\ndefinition = 'a'\n[[rule]]\nname = 'r'\ndefinition = 'A'\n\
             [[exemplar]]\nuser = 'Hi'\nassistant = 'x'\n[[exemplar]]\nuser = 'Hi'\nassistant = 'y'\n\
             [[set]]\nname = 's'\nabout = 'x'\n[[set]]\nname = 's'\nabout = 'x'\n\
             [[identity]]\nquestion = 'Who?'\nanswer = 'I.'\n[[identity]]\nquestion = 'Who?'\nanswer = 'Me.'\n"
        ),
        [
            "5: the rule `r` is there twice, first at mine.toml:2",
            "11: the exemplar `Hi` is there twice, first at mine.toml:8",
            "23: the identity question `Who?` is there twice, first at mine.toml:20",
            "17: the set `s` is there twice, first at mine.toml:14",
            "6: definition has the same words as mine.toml:3",
        ]
    );
    assert_eq!(
        check(
            "[[principle]]\nname = 'A'\ndefinition = 'a'\ntags = ['t']\n\
             [[boost]]\nkind = 'general'\ntag = 't'\nweight = 1\n[[boost]]\nkind = 'general'\ntag = 't'\nweight = 2\n"
        ),
        ["10: the boost `general / t` is there twice, first at mine.toml:6"]
    );
}

#[test]
fn check_finds_bad_texts() {
    let long = "x".repeat(601);
    assert_eq!(
        check(&format!(
            "[[principle]]\nname = ''\ndefinition = '  '\n\
             [[principle]]\nname = 'not B'\ndefinition = \"two\\nlines\"\n\
             [[principle]]\nname = 'C'\ndefinition = '{long}'\nnegative_definition = ' spaced'\n\
             [[rule]]\nname = '{}'\ndefinition = ''\n\
             [[exemplar]]\nuser = ''\nassistant = \" \"\n[[identity]]\nquestion = 'q'\nanswer = ''\n",
            "n".repeat(61)
        )),
        [
            "2: name is empty",
            "3: definition is empty",
            "5: the name `not B` would be read as the opposite of `B`",
            "6: definition has a line break or another control character",
            "9: definition is 601 characters long",
            "10: negative_definition has white space around it",
            "12: name is 61 characters long",
            "13: definition is empty",
            "15: user is empty",
            "16: assistant is empty",
            "19: answer is empty",
        ]
    );
    assert_eq!(check(&format!("[[rule]]\nname = 'r'\ndefinition = '{}'\n", "é".repeat(600))), Vec::<String>::new());
}

#[test]
fn check_finds_unknown_names() {
    assert_eq!(
        check(
            "[[set]]\nname = 's'\nabout = 'x'\n\
             [[principle]]\nname = 'A'\ndefinition = 'a'\nsets = [\n  's',\n  'z',\n]\ntags = ['t']\n\
             [[rule]]\nname = 'r'\ndefinition = 'b'\n\
             [[exemplar]]\nuser = 'u'\nrules = ['r', 'q']\nassistant = 'a'\n\
             [[boost]]\nkind = 'redteaming'\ntag = 'tt'\nweight = 1\n"
        ),
        [
            "9: there is no set `z`",
            "17: there is no rule `q`",
            "20: there is no kind of prompt `redteaming`",
            "21: no principle has the tag `tt`",
        ]
    );
}

#[test]
fn check_finds_missing_negatives() {
    assert_eq!(
        check(
            "uses = ['sets']\n[[principle]]\nname = 'A'\ndefinition = 'a'\nsets = ['aggregation']\n\
             [[principle]]\nname = 'B'\ndefinition = 'b'\nsets = ['honest']\nnegative_reworded = ['c']\n"
        ),
        [
            "3: `A` has no negative definition, and the set `aggregation` negates",
            "10: `B` rewords a negative definition that it does not have",
        ]
    );
}

#[test]
fn check_finds_weights_that_cannot_be_drawn() {
    let set = "[[set]]\nname = 's'\nabout = 'x'\ndraw = 2\n";
    let principle = |name: &str, weight: &str| {
        format!("[[principle]]\nname = '{name}'\ndefinition = 'd{name}'\nweight = {weight}\nsets = ['s']\n")
    };
    let with = |weights: &[&str]| {
        let entries = weights.iter().enumerate().map(|(i, weight)| principle(&i.to_string(), weight));
        check(&format!("{set}{}", entries.collect::<String>()))
    };
    assert_eq!(with(&["1", "0.5", "0"]), Vec::<String>::new());
    assert_eq!(with(&["1", "2", "-1"]), ["18: the weight -1 cannot be drawn with"]);
    assert_eq!(
        with(&["nan", "2", "inf", "1"]),
        ["8: the weight NaN cannot be drawn with", "18: the weight inf cannot be drawn with",]
    );
    assert_eq!(with(&["0", "0"]), ["4: none of the 2 principles of the set `s` has a weight over 0"]);
    assert_eq!(
        with(&["1", "0", "0"]),
        ["4: 2 principles are to be drawn from the set `s`, and only 1 of its 3 have a weight over 0"]
    );
    assert_eq!(
        check(&format!(
            "{set}{}{}[[principle]]\nname = 'T'\ndefinition = 't'\ntags = ['t']\n[[boost]]\nkind = 'general'\ntag = 't'\nweight = -3\n",
            principle("0", "1"),
            principle("1", "1"),
        )),
        ["22: the weight -3 cannot be drawn with"]
    );
}

#[test]
fn check_finds_exemplars_of_two_sorts() {
    let exemplar = |user: &str, thoughts: &str| format!("[[exemplar]]\nuser = '{user}'\n{thoughts}\nassistant = 'a'\n");
    assert_eq!(
        check(&(exemplar("u", "thoughts = 't'") + &exemplar("v", ""))),
        ["6: some exemplars have thoughts and some have none"]
    );
}

#[test]
fn checked_reports_the_first_finding_and_counts_the_rest() {
    let text = "[[principle]]\nname = 'A'\ndefinition = ''\nweight = -1\nsets = ['z']\n";
    let error = user_file(text).unwrap().checked().unwrap_err();
    assert_eq!(error.kind(), salmon::error::Kind::Config);
    let error = error.to_string();
    assert!(error.contains("mine.toml:3: definition is empty; "), "{error}");
    assert!(error.ends_with("(and 2 more: see `salmon check`)"), "{error}");
}

#[test]
fn the_examples_of_the_docs_are_sound() {
    let docs = include_str!("../docs/principles.md");
    let blocks: Vec<&str> = docs.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4);
    for block in &blocks {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.toml"), block).unwrap();
        let sources = ["rl", "interventions", "harmless", "mine.toml"];
        let library = Library::load(folder.path(), &sources).unwrap();
        assert_eq!(library.check(), vec![], "{block}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.toml"), blocks.last().unwrap()).unwrap();
    let library = Library::load(folder.path(), &["interventions", "mine.toml"]).unwrap();
    assert_eq!((members(&library, "rl").len(), members(&library, "reward").len()), (15, 12));
    assert_eq!(members(&library, "interventions").len(), 4);
    assert_eq!(library.weight(library.principle("Next Step").unwrap(), "general"), 12.0);
    assert!(library.principle("Vivid").unwrap().definition.contains("everyday"));
}
