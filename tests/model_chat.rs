//! Tokenizers and chat templates: against transformers' rendering, and streamed against decoded at once.

use std::path::Path;

use salmon::model::{ChatTemplate, Message, TextStream, Tokenizer};
use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::model_fixtures::{copy, fixture};

/// Words split at spaces, no decoder: the pocket world's kind.
fn words() -> Value {
    let special = |id, text| json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": [special(0, "<pad>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": null, "post_processor": null, "decoder": null,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": " +"}, "behavior": "Removed", "invert": false},
        "model": {"type": "WordLevel", "unk_token": "<unk>", "vocab":
            {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "the": 4, "capital": 5, "of": 6, "x": 7, ".": 8, "\n": 9}},
    })
}

/// GPT-2's byte alphabet with a few merges.
fn byte_level() -> Value {
    let mut letters: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    letters.sort();
    letters.extend(["th", "the", "Ġthe", "ðŁ"].map(String::from));
    let vocab: Map<String, Value> = letters.into_iter().enumerate().map(|(id, text)| (text, json!(id))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "post_processor": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": [["t", "h"], ["th", "e"], ["Ġ", "the"], ["ð", "Ł"]]},
    })
}

/// LLaMA 2's kind: spaces as U+2581, bytes for what the vocabulary lacks, the first space stripped.
fn byte_fallback() -> Value {
    let mut vocab = Map::from_iter([
        ("<unk>".to_string(), json!(0)),
        ("<s>".to_string(), json!(1)),
        ("</s>".to_string(), json!(2)),
    ]);
    for byte in 0..256 {
        vocab.insert(format!("<0x{byte:02X}>"), json!(byte + 3));
    }
    for (i, letter) in "▁abcdehilnorst.".chars().enumerate() {
        vocab.insert(letter.to_string(), json!(259 + i));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "post_processor": null, "pre_tokenizer": null,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true},
    })
}

fn tokenizer(value: &Value) -> Tokenizer {
    Tokenizer::from_bytes(value.to_string().as_bytes(), "tokenizer.json").unwrap()
}

#[test]
fn words_without_a_decoder_are_joined_by_spaces() {
    let tokenizer = tokenizer(&words());
    let ids = tokenizer.encode("the capital  of x .", false).unwrap();
    assert_eq!(ids, [4, 5, 6, 7, 8], "truncation in the file must not cut");
    assert_eq!(tokenizer.decode(&[1, 4, 5, 9, 2]).unwrap(), "the capital \n");
    assert_eq!(tokenizer.encode("zebra", false).unwrap(), [3]);
    assert_eq!((tokenizer.token("of"), tokenizer.token("zebra"), tokenizer.vocab_size()), (Some(6), None, 10));
    assert_eq!(tokenizer.token_text(2).as_deref(), Some("</s>"));
}

#[test]
fn streamed_text_is_the_decoded_text() {
    let texts = ["the other thé", "naïve 😀😀 the\n\n the", "\u{FFFD} ends", "日本語 the", " the  a b", ""];
    for (name, value) in [("words", words()), ("byte level", byte_level()), ("byte fallback", byte_fallback())] {
        let tokenizer = tokenizer(&value);
        for text in texts {
            let ids = tokenizer.encode(text, false).unwrap();
            let mut stream = TextStream::new();
            for (n, id) in ids.iter().enumerate() {
                let before = stream.text().to_string();
                stream.push(&tokenizer, *id).unwrap();
                assert!(stream.text().starts_with(&before), "{name}: text was taken back");
                let whole = tokenizer.decode(&ids[..=n]).unwrap();
                // Byte fallback spells a run of bytes out as U+FFFD, whole characters too, until its last one is whole.
                if name == "byte fallback" && whole.ends_with('\u{FFFD}') {
                    continue;
                }
                assert!(whole.starts_with(stream.text()), "{name}: {:?} of {whole:?}", stream.text());
                // No more is held back than characters that lack bytes.
                assert!(whole[stream.text().len()..].chars().all(|c| c == '\u{FFFD}'), "{name}: held back {whole:?}");
            }
            let streamed = stream.text().to_string();
            let whole = stream.finish(&tokenizer).unwrap();
            assert_eq!(whole, tokenizer.decode(&ids).unwrap(), "{name}");
            if name != "words" {
                assert_eq!(whole, text, "{name}");
            }
            if !text.ends_with('\u{FFFD}') {
                assert_eq!(streamed, whole, "{name}");
            }
        }
    }
}

#[test]
fn half_a_character_is_held_back_and_then_given_as_it_is() {
    let tokenizer = tokenizer(&byte_level());
    let ids = tokenizer.encode("a😀", false).unwrap();
    let mut stream = TextStream::new();
    for id in &ids[..ids.len() - 1] {
        stream.push(&tokenizer, *id).unwrap();
    }
    assert_eq!(stream.text(), "a");
    assert_eq!(stream.finish(&tokenizer).unwrap(), "a\u{FFFD}");
}

#[test]
fn special_tokens_between_words_do_not_shift_the_stream() {
    let tokenizer = tokenizer(&words());
    let ids = [1, 4, 2, 5, 0, 0, 6];
    let mut stream = TextStream::new();
    for id in ids {
        stream.push(&tokenizer, id).unwrap();
    }
    assert_eq!(stream.text(), "the capital of");
    assert_eq!(stream.ids(), ids);
}

/// A model folder with this tokenizer and these settings.
fn folder(tokenizer: &Value, settings: Option<Value>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy("untied", folder.path());
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    if let Some(settings) = settings {
        std::fs::write(folder.path().join("tokenizer_config.json"), settings.to_string()).unwrap();
    }
    folder
}

#[test]
fn bos_is_added_once_and_only_where_the_folder_has_one() {
    let encode = |settings, text: &str| {
        let folder = folder(&words(), settings);
        Tokenizer::open(folder.path()).unwrap().encode(text, true).unwrap()
    };
    assert_eq!(encode(None, "the"), [1, 4], "bos_token_id of config.json");
    assert_eq!(encode(None, "<s> the"), [1, 4], "the text has it already");
    assert_eq!(encode(Some(json!({"bos_token": {"content": "</s>"}})), "the"), [2, 4]);
    assert_eq!(encode(Some(json!({"bos_token": "<s>", "add_bos_token": false})), "the"), [4]);
    // Qwen2 has none, SmolLM2 has one and does not put it first; both classes leave it to the post-processor.
    assert_eq!(encode(Some(json!({"bos_token": null, "tokenizer_class": "Qwen2Tokenizer"})), "the"), [4]);
    assert_eq!(encode(Some(json!({"bos_token": "<s>", "tokenizer_class": "GPT2Tokenizer"})), "the"), [4]);
    assert_eq!(encode(Some(json!({"bos_token": "<s>", "tokenizer_class": "LlamaTokenizerFast"})), "the"), [1, 4]);
    assert_eq!(tokenizer(&words()).encode("the", true).unwrap(), [4]);
}

#[test]
fn bad_tokenizers_say_what_is_wrong() {
    let mut large = words();
    large["model"]["vocab"]["one too many"] = json!(64);
    let open = |folder: &Path| Tokenizer::open(folder).unwrap_err().to_string();
    let error = open(folder(&large, None).path());
    assert!(error.contains("tokenizer.json") && error.contains("64") && error.contains("another model"), "{error}");
    let error = open(folder(&json!({"version": "1.0"}), None).path());
    assert!(error.contains("tokenizer.json") && error.contains("not a valid tokenizer"), "{error}");
    let error = open(&fixture("untied"));
    assert!(error.contains("untied/tokenizer.json") && error.contains("cannot read"), "{error}");
    let error = open(folder(&words(), Some(json!({"bos_token": "<bos>"}))).path());
    assert!(error.contains("tokenizer_config.json") && error.contains("<bos>"), "{error}");
    // Found by fuzzing: a break in the decoder makes the tokenizers library panic.
    let broken = words().to_string().replace("\"decoder\":null", "\"decoder\":{\"type\":\"WordPiece\",\"\nrefix\":1}");
    let error = Tokenizer::from_bytes(broken.as_bytes(), "tokenizer.json").unwrap_err();
    assert_eq!(error.kind(), salmon::error::Kind::Model);
    assert!(error.to_string().contains("tokenizer.json: holds what the tokenizers library cannot"), "{error}");
    let mut unknown = words();
    unknown["model"]["unk_token"] = json!("[none]");
    let error = tokenizer(&unknown).encode("zebra", false).unwrap_err().to_string();
    assert!(error.starts_with("tokenizer.json") && !error.contains('\n'), "{error}");
}

fn chat(settings: Value) -> (tempfile::TempDir, ChatTemplate) {
    let folder = folder(&words(), Some(settings));
    let template = ChatTemplate::open(folder.path(), &Tokenizer::open(folder.path()).unwrap()).unwrap();
    (folder, template)
}

#[test]
fn templates_render_as_in_transformers() {
    let recorded: Value = serde_json::from_slice(&std::fs::read(fixture("chat.json")).unwrap()).unwrap();
    let (mut rendered, mut refused) = (0, 0);
    for (name, source) in recorded["templates"].as_object().unwrap() {
        // As a key of tokenizer_config.json, and as a file of its own.
        let (_, in_settings) = chat(json!({"chat_template": source, "bos_token": "<s>", "eos_token": "</s>"}));
        let folder = folder(&words(), None);
        std::fs::write(folder.path().join("chat_template.jinja"), source.as_str().unwrap()).unwrap();
        let in_file = ChatTemplate::open(folder.path(), &Tokenizer::open(folder.path()).unwrap()).unwrap();
        for case in recorded["cases"].as_array().unwrap().iter().filter(|case| case["template"] == *name) {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).unwrap();
            let prompt = case["add_generation_prompt"].as_bool().unwrap();
            for template in [&in_settings, &in_file] {
                let ours = template.render(&messages, &Map::new(), prompt);
                match case["expected"].as_str() {
                    Some(expected) => {
                        assert_eq!(ours.unwrap(), expected, "{name}, {}", case["talk"]);
                        rendered += 1;
                    }
                    None => {
                        let error = ours.unwrap_err().to_string();
                        assert!(error.contains(case["expected"]["error"].as_str().unwrap()), "{error}");
                        assert!(error.contains("chat_template"), "{error}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert_eq!((rendered, refused), (44, 4));
}

#[test]
fn folders_without_a_template_get_the_plain_layout() {
    let talk = [Message::new("user", "Hello"), Message::new("assistant", "Hi."), Message::new("user", "Bye")];
    for (_, template) in [chat(json!({})), chat(json!({"chat_template": null}))] {
        assert_eq!(template.render(&talk[..1], &Map::new(), true).unwrap(), "### User\nHello\n\n### Assistant\n");
        let all = "### User\nHello\n\n### Assistant\nHi.\n\n### User\nBye\n\n";
        assert_eq!(template.render(&talk, &Map::new(), false).unwrap(), all);
    }
    assert_eq!(ChatTemplate::plain().unwrap().render(&talk[..1], &Map::new(), false).unwrap(), "### User\nHello\n\n");
}

#[test]
fn one_of_several_named_templates_is_the_default() {
    let named =
        json!([{"name": "tool_use", "template": "T"}, {"name": "default", "template": "{{ messages[0].content }}"}]);
    let (_, template) = chat(json!({"chat_template": named}));
    assert_eq!(template.render(&[Message::new("user", "hey")], &Map::new(), false).unwrap(), "hey");
}

#[test]
fn template_errors_name_file_and_line() {
    let talk = [Message::new("user", "Hello")];
    let open = |file: Option<&str>, settings: Value| {
        let folder = folder(&words(), Some(settings));
        if let Some(source) = file {
            std::fs::write(folder.path().join("chat_template.jinja"), source).unwrap();
        }
        let template = ChatTemplate::open(folder.path(), &Tokenizer::open(folder.path()).unwrap());
        template.and_then(|template| template.render(&talk, &Map::new(), true)).unwrap_err().to_string()
    };
    let error = open(Some("one\n{% if %}"), json!({}));
    assert!(error.contains("chat_template.jinja:2: does not parse"), "{error}");
    let error = open(Some("one\ntwo\n{{ messages[0].content.shout() }}"), json!({}));
    assert!(error.contains("chat_template.jinja:3:") && error.contains("shout"), "{error}");
    let error = open(None, json!({"chat_template": "{{ raise_exception('no such role') }}"}));
    assert!(error.contains("tokenizer_config.json chat_template:1") && error.contains("no such role"), "{error}");
    let error = open(None, json!({"chat_template": 3}));
    assert!(error.contains("tokenizer_config.json chat_template"), "{error}");
    let error = open(None, json!({"chat_template": [{"name": "rag", "template": ""}]}));
    assert!(error.contains("\"default\""), "{error}");
}
