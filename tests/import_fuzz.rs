//! Bytes nobody meant: seeded random damage to small sources never panics, and what is read is accounted for.

use salmon::draw::{Key, key};
use salmon::error::Kind;
use salmon::import::Options;

use super::import_support::{Bench, gzip, preferences, texts};

/// Sources in every container, with most formats.
fn sources(bench: &Bench) -> Vec<(&'static str, Vec<u8>)> {
    let chat = r#"{"id": "c", "conversations": [{"from": "human", "value": "Hé \"you\" \u00e9 \ud83d\ude00"}, {"from": "gpt", "value": "x"}]}"#;
    let tree = r#"{"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": {"message_id": "t", "text": "Why?", "role": "prompter", "lang": "en", "deleted": false, "replies": []}}"#;
    let pair = r#"{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}"#;
    let shp = r#"{"history": "h", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_ratio": 3.5}"#;
    let trl = r#"{"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": [{"role": "assistant", "content": "b"}]}"#;
    let csv = "id,instruction,output\r\n1,\"Two\nlines, \"\"quoted\"\"\",x\r\n2,Three,y\r\n";
    let parquet = bench.parquet("fuzz.parquet", vec![("question", texts(&["One?", "Two?", "Three?"]))]);
    vec![
        ("a.json", format!("[{chat}, {chat}]").into_bytes()),
        ("a.jsonl", format!("{tree}\n{tree}\n").into_bytes()),
        ("b.jsonl", format!("{pair}\r\n{pair}\n").into_bytes()),
        ("c.jsonl", format!("{shp}\n{trl}\n").into_bytes()),
        ("a.csv", csv.into()),
        ("a.jsonl.gz", gzip(format!("{chat}\n{tree}\n").as_bytes())),
        ("a.parquet", std::fs::read(parquet).unwrap()),
    ]
}

/// One to four small injuries: a byte changed, bytes cut out, repeated, put in, or the end cut off.
fn damage(bytes: &[u8], key: Key) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    const PIECES: [&[u8]; 10] = [b"\"", b"\\", b"{", b"]", b",", b"\n", b"\xff", b"null", br"\ud800", b"\xef\xbb\xbf"];
    for injury in 0..=key.below(0, 4) {
        let key = key.with(1 + injury);
        let at = key.below(0, bytes.len() as u64 + 1) as usize;
        let end = (at + key.below(1, 9) as usize).min(bytes.len());
        match key.below(2, 5) {
            0 if at < bytes.len() => bytes[at] = key.draw(3) as u8,
            1 => drop(bytes.drain(at..end)),
            2 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
            3 => bytes.splice(at..at, PIECES[key.below(3, 10) as usize].iter().copied()).for_each(drop),
            _ => bytes.truncate(bytes.len() - bytes.len().min(key.below(3, 20) as usize)),
        }
    }
    bytes
}

#[test]
fn damaged_sources_never_panic_and_are_accounted_for() {
    let bench = Bench::new();
    let (mut imported, mut refused) = (0, 0);
    for (name, bytes) in sources(&bench) {
        // The Parquet library panicked on these.
        let found = if name.ends_with("parquet") { &[4689, 13690, 14948][..] } else { &[] };
        for round in (0..50u64).chain(found.iter().copied()) {
            let file = bench.file(name, damage(&bytes, key(1, &[name, &round.to_string()])));
            let options = if round % 2 == 0 { Options::default() } else { preferences() };
            // `try_import` checks read = kept + dropped and that both tables can be read.
            match bench.try_import(&[file], &options) {
                Ok(_) => imported += 1,
                Err(error) => {
                    assert!(matches!(error.kind(), Kind::Data | Kind::Config), "{name} {round}: {error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(imported > 50 && refused > 50, "{imported} imported, {refused} refused");
}

/// The array splitter against the line reader: the same rows, written both ways, give the same tables.
#[test]
fn an_array_reads_like_its_lines() {
    let bench = Bench::new();
    let alphabet = ["a", "\"", "\\", "{", "}", "[", "]", ",", ":", "\n", "é", "\u{1f600}", "\t", " ", "0"];
    for round in 0..40u64 {
        let key = key(2, &["arrays", &round.to_string()]);
        let rows: Vec<String> = (0..20)
            .map(|row| {
                let row = key.with(row);
                let text: String = (0..row.below(0, 30)).map(|i| alphabet[row.below(1 + i, 15) as usize]).collect();
                let nested = serde_json::json!({"instruction": format!("q{text}"), "extra": {&text: [[text], {}]}});
                nested.to_string()
            })
            .collect();
        let lines = bench.import_text("rows.jsonl", rows.join("\n"), &Options::default());
        let mut array = bench.import_text("rows.json", format!("[{}]", rows.join(" ,\n")), &Options::default());
        for row in array.dropped.iter_mut() {
            row["file"] = lines.dropped[0]["file"].clone();
        }
        assert_eq!((array.kept, array.dropped), (lines.kept, lines.dropped), "round {round}");
    }
}

/// CSV with random fields, quoted by the rules of RFC 4180, reads back as it was.
#[test]
fn csv_fields_read_back_as_they_were() {
    let bench = Bench::new();
    let alphabet = ["a", "\"", ",", "\n", "é", ";", " ", "b"];
    for round in 0..40u64 {
        let key = key(3, &["csv", &round.to_string()]);
        let fields: Vec<String> = (0..20)
            .map(|row| {
                let row = key.with(row);
                (0..row.below(0, 12)).map(|i| alphabet[row.below(1 + i, 8) as usize]).collect()
            })
            .enumerate()
            .map(|(index, text): (usize, String)| format!("{index}{text}."))
            .collect();
        let records = fields.iter().map(|field| format!("\"{}\",x\n", field.replace('"', "\"\"")));
        let csv = format!("instruction,output\n{}", records.collect::<String>());
        let imported = bench.import_text("rows.csv", csv, &Options::default());
        assert_eq!(imported.column("instruction"), fields.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
