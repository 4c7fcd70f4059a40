//! Broken sources: each broken row costs itself only and is accounted for; each broken file is one clear line.

use std::slice::from_ref;

use salmon::error::Kind;
use salmon::import::{Options, Reason};

use super::import_support::{Bench, gzip, preferences, table};

const GOOD: &str = r#"{"instruction": "Name a river."}"#;
const OTHER: &str = r#"{"instruction": "Name a lake."}"#;

/// One broken row between two good ones, as JSON lines.
#[test]
fn broken_rows_are_dropped_with_their_reason() {
    let long = format!(r#"{{"instruction": "{}"}}"#, "y".repeat(9 << 20));
    let deep = format!(r#"{{"instruction": {}1{}}}"#, "[".repeat(500), "]".repeat(500));
    let cases: Vec<(&[u8], &str)> = vec![
        (br#"{"instruction": "torn"#, "torn_line"),
        (br#"{"instruction": "torn", "#, "torn_line"),
        (br#"{"instruction": 'single'}"#, "malformed"),
        (br#"{"instruction": NaN}"#, "malformed"),
        (deep.as_bytes(), "malformed"),
        (br#"{"instruction": "a"} {"instruction": "b"}"#, "malformed"),
        (br#"<html>"#, "malformed"),
        (b"{\"instruction\": \"\xff\xfe\"}", "bad_utf8"),
        (br#"{"instruction": "half \ud83d of a pair"}"#, "lone_surrogate"),
        (br#"{"instruction": "half \udc00 of a pair"}"#, "lone_surrogate"),
        (br#"{"instruction": "half \ud83d\u0041"}"#, "lone_surrogate"),
        (long.as_bytes(), "line_too_long"),
        (br#"["a", "b"]"#, "wrong_type"),
        (br#""text""#, "wrong_type"),
        (br#"null"#, "wrong_type"),
        (br#"{"instruction": 7}"#, "wrong_type"),
        (br#"{"instruction": ["a"]}"#, "wrong_type"),
        (br#"{"instruction": null}"#, "missing_field"),
        (br#"{"other": "x"}"#, "missing_field"),
        (br#"{"instruction": " \n\t "}"#, "empty"),
        (br#"{"instruction": "\ufeff"}"#, "empty"),
        (br#"{"instruction": "NAME  a\tRIVER."}"#, "duplicate"),
        (br#"{"instruction": "No"}"#, "too_short"),
        (br#"{"instruction": "Name a river that is far too long to be kept."}"#, "too_long"),
    ];
    let options = Options { min_chars: 3, max_chars: Some(40), ..Options::default() };
    let bench = Bench::new();
    for (row, reason) in cases {
        let content = [GOOD.as_bytes(), b"\r\n\r\n", row, b"\r\n", OTHER.as_bytes()].concat();
        let imported = bench.import_text("rows.jsonl", content, &options);
        let what = String::from_utf8_lossy(&row[..row.len().min(60)]).into_owned();
        assert_eq!(imported.column("instruction"), ["Name a river.", "Name a lake."], "{what}");
        // The blank line counts as a line of the file, not as a row.
        assert_eq!(imported.reasons(), [(3, reason)], "{what}");
        assert_eq!(imported.summary.files[0].read, 3, "{what}");
    }
}

#[test]
fn every_reason_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
}

/// The same broken rows inside a JSON array.
#[test]
fn broken_elements_of_an_array_are_dropped_alone() {
    let long = format!(r#"{{"instruction": "{}"}}"#, "y".repeat(9 << 20));
    let content = [
        b"\xef\xbb\xbf [\r\n".as_slice(),
        GOOD.as_bytes(),
        b", {\"instruction\": \"\xff\"}, 7, {\"instruction\": \"brackets ]}, and \\\" quotes\"},",
        long.as_bytes(),
        b", {\"instruction\": nope},",
        OTHER.as_bytes(),
        b"\n]\n",
    ]
    .concat();
    let imported = Bench::new().import_text("rows.json", content, &Options::default());
    assert_eq!(imported.column("instruction"), ["Name a river.", "brackets ]}, and \" quotes", "Name a lake."]);
    assert_eq!(imported.reasons(), [(2, "bad_utf8"), (3, "wrong_type"), (5, "line_too_long"), (6, "malformed")]);
}

#[test]
fn an_array_that_is_cut_off_says_so() {
    let cases = [
        (format!("[{GOOD}, {OTHER}, {{\"instr"), 3, "torn_line"),
        (format!("[{GOOD}, {OTHER}"), 2, "torn_line"),
        (format!("[{GOOD}, {OTHER},"), 3, "torn_line"),
        (format!("[{GOOD}, {OTHER}] [1]"), 3, "malformed"),
    ];
    for (content, row, reason) in cases {
        let imported = Bench::new().import_text("rows.json", &content, &Options::default());
        assert_eq!(imported.reasons(), [(row, reason)], "{content}");
    }
}

#[test]
fn broken_csv_records_are_dropped_alone() {
    let head = b"instruction,output\nName a river.,Po\n".as_slice();
    let cases = vec![
        (b"only one field\nName a lake.,Como\n".to_vec(), (2, "malformed")),
        (b"a,b,c\nName a lake.,Como\n".to_vec(), (2, "malformed")),
        (b"\xff,b\nName a lake.,Como\n".to_vec(), (2, "bad_utf8")),
        (b"Name a lake.,Como\nName a s".to_vec(), (3, "torn_line")),
        (b"Name a lake.,Como\n\"never closed,x\ny,z\n".to_vec(), (3, "torn_line")),
        ([b"Name a lake.,Como\n\"", vec![b'y'; 9 << 20].as_slice()].concat(), (3, "line_too_long")),
        ([b"Name a lake.,Como\n", vec![b','; 1 << 17].as_slice()].concat(), (3, "line_too_long")),
        (b"Name a lake.,Como\n,Como\n".to_vec(), (3, "empty")),
    ];
    for (rest, expected) in cases {
        let imported = Bench::new().import_text("rows.csv", [head, &rest].concat(), &Options::default());
        assert_eq!(imported.column("instruction"), ["Name a river.", "Name a lake."]);
        assert_eq!(imported.reasons(), [expected]);
    }
}

#[test]
fn files_that_hold_no_rows_are_named_with_what_to_do() {
    let packed = gzip(format!("{GOOD}\n{OTHER}\n").repeat(4000).as_bytes());
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    let mut damaged = packed.clone();
    let checksum = damaged.len() - 8;
    damaged[checksum] ^= 0xff;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("a.jsonl.gz", pointer.into(), "Git LFS pointer"),
        ("a.parquet", pointer.into(), "Git LFS pointer"),
        ("a.jsonl.gz", b"404: Not Found".to_vec(), "is no gzip file, it starts with \"404: Not Found\""),
        ("a.jsonl.gz", packed[..packed.len() / 2].to_vec(), "end in the middle"),
        ("a.jsonl.gz", packed[..packed.len() - 4].to_vec(), "end in the middle"),
        ("a.jsonl.gz", packed[..3].to_vec(), "end in the middle"),
        ("a.jsonl.gz", damaged, "damaged"),
        ("a.parquet", b"PAR1 and then nothing".to_vec(), "cannot be read as Parquet"),
        ("a.parquet", b"not parquet".to_vec(), "is no Parquet file"),
        ("a.txt", b"just words".to_vec(), "neither JSON lines, a JSON array, CSV nor Parquet"),
        ("a.json", b"\xff\xfe[\0{\0".to_vec(), "UTF-16"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd\x00".to_vec(), "zstd"),
        ("a.json", b"{\n  \"rows\": 3\n}".to_vec(), "unknown format: none of the first 3 rows could be read"),
        ("a.jsonl", br#"{"title": "x", "body": "y"}"#.to_vec(), "row 1 has the fields title, body"),
        ("a.csv", b"\xff,b\n1,2\n".to_vec(), "the CSV header is not UTF-8"),
        ("a.jsonl", Vec::new(), "no row was kept of 0 read"),
        ("a.csv", b"instruction,output\n".to_vec(), "no row was kept of 0 read"),
        ("a.json", b"[]".to_vec(), "no row was kept of 0 read"),
        ("a.jsonl", br#"{"instruction": ""}"#.to_vec(), "no row was kept of 1 read (empty 1)"),
    ];
    for (name, content, expected) in cases {
        let bench = Bench::new();
        let file = bench.file(name, content);
        let error = bench.error(&[file], &Options::default());
        let line = error.to_string();
        assert!(line.contains(expected), "{name}: {line}");
        assert!(!line.contains('\n'), "{line}");
        assert_eq!(error.kind(), Kind::Data, "{line}");
        assert!(line.contains(name), "{line}");
        assert!(!bench.path("out.parquet").exists(), "{line}");
    }
}

#[test]
fn the_unknown_format_error_lists_the_formats() {
    let bench = Bench::new();
    let file = bench.file("a.jsonl", r#"{"title": "x"}"#);
    let line = bench.error(&[file], &Options::default()).to_string();
    for format in salmon::import::formats() {
        assert!(line.contains(format), "{format} in {line}");
    }
}

#[test]
fn an_error_leaves_the_old_output_and_no_new_file() {
    let bench = Bench::new();
    let good = bench.file("a.jsonl", GOOD);
    bench.import(from_ref(&good), &Options::default());
    let before = table(&bench.path("out.parquet"));
    let bad = bench.file("b.jsonl.gz", "text");
    bench.error(&[good, bad], &Options::default());
    assert_eq!(table(&bench.path("out.parquet")), before);
    let mut names: Vec<_> =
        std::fs::read_dir(bench.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.jsonl", "b.jsonl.gz", "out.dropped.parquet", "out.parquet"]);
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let bench = Bench::new();
    let file = bench.file("a.jsonl", r#"{"instruction": "x", "output": "y"}"#);
    let column = |target: &str, field: &str| vec![(target.to_owned(), field.to_owned())];
    let base = Options::default();
    let cases = [
        (Options { format: Some("nope".into()), ..base.clone() }, "no format `nope`"),
        (Options { format: Some("dolly".into()), ..preferences() }, "dolly has no preference pairs"),
        (
            Options { columns: column("instruction", "nope"), ..base.clone() },
            "has no field of that name; it has instruction",
        ),
        (Options { columns: column("answer", "output"), ..base.clone() }, "nothing to map to"),
        (Options { test_fraction: 1.5, ..base.clone() }, "not from 0 to 1"),
        (Options { test_fraction: f64::NAN, ..base.clone() }, "not from 0 to 1"),
        (Options { min_chars: 9, max_chars: Some(3), ..base.clone() }, "--max-chars"),
        (Options { limit: Some(0), ..base.clone() }, "--limit"),
    ];
    for (options, expected) in cases {
        let error = bench.error(from_ref(&file), &options);
        assert!(error.to_string().contains(expected), "{error}");
        assert_eq!(error.kind(), Kind::Config, "{error}");
    }
    let error = bench.error(&[file], &preferences());
    assert!(error.to_string().contains("looks like alpaca, which has no preference pairs"), "{error}");
    let error = bench.error(&[bench.path("nowhere.jsonl")], &base);
    assert!(error.to_string().contains("nowhere.jsonl: cannot be opened"), "{error}");
    let out = bench.file("out.parquet", "x");
    assert!(bench.error(&[out], &base).to_string().contains("both an input and the output"));
}

/// The documentation names every reason and every format.
#[test]
fn the_documentation_is_complete() {
    let text = include_str!("../docs/import.md");
    let names = Reason::ALL.iter().map(|reason| reason.name()).chain(salmon::import::formats());
    let missing: Vec<_> = names.filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
