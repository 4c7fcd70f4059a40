//! `salmon sql` as people use it: formats, files, parameters, several runs, external tables, commands, and a terminal.

use std::fs;
use std::path::Path;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::json;

use crate::cli_support::{Ran, salmon, salmon_in};
use crate::pipeline_support::whole_run as run;
use crate::s3_process::{KEY, S3, SECRET};
use crate::terminal::Terminal;

fn sql(args: &[&str]) -> Ran {
    salmon(&[&["sql", "--run", run()], args].concat())
}

#[test]
fn every_format_holds_the_same_rows() {
    let statement = "select name, weight, sets, negative_definition is null as bare from principles \
                     where name in ('Concise', 'Humble') order by name";
    let said = |format: &str| sql(&["--format", format, "-c", statement]).ok();
    let row = |name: &str| json!({"name": name, "weight": 1.0, "sets": ["reward", "aggregation", "rl"], "bare": false});
    let lines: Vec<serde_json::Value> =
        said("ndjson").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [row("Concise"), row("Humble")]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&said("json")).unwrap(), json!(lines));
    let list = "\"[\"\"reward\"\",\"\"aggregation\"\",\"\"rl\"\"]\"";
    let values = |by: &str| {
        let lines = [
            ["name", "weight", "sets", "bare"].join(by),
            ["Concise", "1.0", list, "false"].join(by),
            ["Humble", "1.0", list, "false"].join(by),
        ];
        lines.join("\n") + "\n"
    };
    assert_eq!((said("csv"), said("tsv")), (values(","), values("\t")));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.parquet");
    sql(&["--format", "parquet", "-o", file.to_str().unwrap(), "-c", statement]).ok();
    let rows = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&file).unwrap()).unwrap();
    assert_eq!((rows.metadata().file_metadata().num_rows(), rows.schema().field(2).name().as_str()), (2, "sets"));
    let empty = sql(&["--format", "csv", "-c", "select name, sets from principles where false"]).ok();
    assert_eq!(empty, "name,sets\n");
}

#[test]
fn a_file_appears_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.csv");
    let out = ["--format", "csv", "-o", file.to_str().unwrap()];
    let with = |statement: &str| sql(&[&out[..], &["-c", statement]].concat());
    with("select count(*) as n from prompts").ok();
    let before = fs::read_to_string(&file).unwrap();
    // The first rows are written when the division fails.
    with("select 1 / (2000000 - i) from generate_series(1, 2000000) as t(i)").failed(6);
    let told = with("select 1; select 2").failed(2);
    assert!(told.contains("holds the rows of an earlier statement; name another file with \\o FILE"), "{told}");
    assert!(before.starts_with("n\n") && fs::read_to_string(&file).unwrap() == "Int64(1)\n1\n", "{before}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let script = format!("\\o {0}/a.csv\nselect 1 as a;\n\\o {0}/b.csv\nselect 2 as b;\n", folder.path().display());
    salmon_in(folder.path(), &["sql", "--run", run(), "--format", "csv"], &script).ok();
    assert_eq!(fs::read_to_string(folder.path().join("b.csv")).unwrap(), "b\n2\n");
    let told = with("select 1 as x").ok();
    assert_eq!(told, "");
    let told = sql(&["-o", "/nonesuch/x", "-c", "select 1"]).failed(5);
    assert!(told.starts_with("salmon: /nonesuch/x: cannot be written"), "{told}");
}

#[test]
fn parameters_have_types_and_are_no_text() {
    let given = ["-p", "n=2", "-p", "x=0.5", "-p", "yes=true", "-p", "who=it's; drop"];
    let statement = "select $n + 1 as n, $x * 2 as x, not $yes as no, $who as who";
    let rows = sql(&[&given[..], &["--format", "json", "-c", statement]].concat()).rows();
    assert_eq!(rows, [json!({"n": 3, "x": 1.0, "no": false, "who": "it's; drop"})]);
    let told = sql(&["-c", "select $m", "-p", "n=1"]).failed(6);
    assert_eq!(told, "salmon: SQL: parameter $m has no value; given are $n\n");
    let told = sql(&["-c", "select 1", "-p", "n"]).failed(2);
    assert!(told.contains("must be NAME=VALUE"), "{told}");
}

#[test]
fn several_runs_stand_side_by_side() {
    let (a, b) = (format!("a={}", run()), format!("b={}", run()));
    let statement = "select (select count(*) from a.pairs) - (select count(*) from b.pairs) as d, count(*) > 0 as any \
                     from pairs";
    let rows = salmon(&["sql", "--run", &a, "--run", &b, "--format", "json", "-c", statement]).rows();
    assert_eq!(rows, [json!({"d": 0, "any": true})]);
    let told = salmon(&["sql", "--run", run(), "--run", &b, "-c", "select 1"]).failed(2);
    assert!(told.contains("of several runs each needs a name of its own: a=URL"), "{told}");
}

#[test]
fn a_table_shows_its_first_rows_and_says_so() {
    let ran = sql(&["--max-rows", "3", "-c", "select * from generate_series(1, 100000000000) as t(i)"]);
    assert_eq!(ran.err, "the first 3 rows; --max-rows 0 or \\maxrows 0 shows all\n");
    assert_eq!(ran.ok().lines().count(), 7);
    let all = sql(&["--max-rows", "0", "-c", "select * from generate_series(1, 2000) as t(i)"]);
    assert_eq!((all.err.as_str(), all.out.lines().count()), ("", 2004));
}

#[test]
fn files_become_tables_and_secrets_stay_secret() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("x.csv"), "name,n\nConcise,1\nNobody,2\n").unwrap();
    fs::write(at("x.json"), "{\"name\": \"Humble\", \"n\": 3}\n").unwrap();
    sql(&["--format", "parquet", "-o", &at("x.parquet"), "-c", "select name, 4 as n from principles limit 1"]).ok();
    let script = format!(
        "create external table c stored as csv location '{}' options ('format.has_header' 'true');
         create external table j stored as json location '{}';
         create external table p stored as parquet location '{}';
         create view both as select name, n from c union all select name, n from j union all select name, n from p;
         select sum(n) as n, count(weight) as known from both left join principles using (name);",
        at("x.csv"),
        at("x.json"),
        at("x.parquet")
    );
    let ran = salmon_in(folder.path(), &["sql", "--run", run(), "--format", "csv"], &script);
    assert_eq!(ran.ok(), "n,known\n10,3\n");

    let server = S3::start(&[]);
    fs::copy(at("x.parquet"), server.object("x.parquet")).unwrap();
    let s3 = |options: &str, location: &str| {
        let text = format!("create external table s stored as parquet location '{location}'{options}; select n from s");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_salmon"));
        command.args(["sql", "--run", run(), "--format", "csv", "-c", &text]);
        let output = server.reach(command).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains(SECRET) && !text.contains(KEY), "{text}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), text)
    };
    assert_eq!(s3("", "s3://bucket/x.parquet"), ("n\n4\n".into(), String::new()));
    let told = s3(&format!(" options ('aws.secret_access_key' '{SECRET}')"), "s3://bucket/x.parquet").1;
    assert!(told.contains("credentials are taken from the environment"), "{told}");
    let told = s3("", &format!("s3://{KEY}:{SECRET}@bucket/x.parquet")).1;
    assert!(told.contains("holds credentials"), "{told}");
    let told = s3("", "s3://nonesuch/x.parquet").1;
    assert!(told.contains("nonesuch"), "{told}");
}

#[test]
fn commands_stand_between_statements() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("more.sql"),
        "\\set who Concise\nselect weight\n  from principles -- ;\n where name = $who;\n",
    )
    .unwrap();
    let said = |script: &str| salmon_in(folder.path(), &["sql", "--run", run()], script);
    let text =
        said("\\format csv\n\\i more.sql\n\\set\n\\x on\n\\format table\nselect 1 as a, 'x\ny' as b;\n\\q\nselect 2;")
            .ok();
    assert_eq!(text, "weight\n1.0\nwho = Concise\n-[ row 1 ]-\na | 1\nb | x\n  | y\n");
    let tables = said("\\d").ok();
    assert!(tables.contains("| public | judgments ") && tables.contains("| table |"), "{tables}");
    let columns = said("\\d judgments").ok();
    assert!(columns.contains("| score_ab    | double | null | logit(a) - logit(b)"), "{columns}");
    assert!(said("\\df").ok().contains("| judge(model, principle, instruction, response_1, response_2)"));
    assert!(said("\\df count_tokens").ok().starts_with("count_tokens(model, text)\n\nTokens of a text"));
    assert!(said("\\df median").ok().starts_with("median("));
    let models = said("\\dm").ok();
    assert!(
        ["base", "policy:brief", "reward", "sft"].iter().all(|name| models.contains(&format!("| {name}"))),
        "{models}"
    );
    assert_eq!(said("\\l").ok(), format!("public  {}\n", run()));
    for (script, told) in [
        ("\\tming", "salmon: \\tming: is no command; did you mean \\timing? \\? lists them\n"),
        ("\\maxrows x", "salmon: \\maxrows: is written \\maxrows N, a whole number\n"),
        ("\\d judgement", "salmon: table judgement: is not there; did you mean judgments?\n"),
        ("\\df rewards", "salmon: function rewards: is not there; did you mean reward? \\df lists those of salmon\n"),
        ("select 'open", "salmon: SQL: Unterminated string literal at Line: 1, Column: 8\n"),
    ] {
        assert_eq!(said(script).failed(6), told);
    }
    assert!(said("\\timing\nselect 1;").err.starts_with("Time: "));
    fs::write(folder.path().join("rc"), "\\format csv\n").unwrap();
    let ran = salmon_in(folder.path(), &["sql", "--run", run(), "--rc", "rc", "-c", "select 7 as a"], "");
    assert_eq!(ran.ok(), "a\n7\n");
}

/// What the line editor sends when it waits for keys.
const READY: &str = "\x1b[?2004h";

/// The shell on a terminal with a home of its own.
fn shell(home: &Path) -> Terminal {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_salmon"));
    command.args(["sql", "--run", run()]).env("HOME", home).env("PAGER", "sed 's/^/paged: /'");
    command.env_remove("XDG_STATE_HOME").env_remove("XDG_CONFIG_HOME").env_remove("SALMON_LOG");
    let mut shell = Terminal::start(command);
    shell.expect(READY);
    shell
}

/// Types a line, sees these texts, and waits for the next one.
#[track_caller]
fn typed(shell: &mut Terminal, line: &str, seen: &[&str]) {
    shell.press(line);
    seen.iter().for_each(|text| drop(shell.expect(text)));
    shell.expect(READY);
}

#[test]
fn the_shell_edits_completes_pages_and_remembers() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join(".config/salmon");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("sqlrc"), "\\timing on\n").unwrap();
    let mut first = shell(home.path());
    typed(&mut first, "select 40 +\r", &[]);
    typed(&mut first, "2 as answer; select\r", &["salmon-> ", "| 42     |", "(1 row)", "Time: "]);
    // Ctrl-c drops what was typed.
    typed(&mut first, "\x03", &["salmon-> "]);
    typed(&mut first, "select count(*) as judged from judgm\t;\r", &["salmon=> ", "judgments", "| 500    |"]);
    typed(&mut first, "\\dm\r", &["| sft "]);
    typed(&mut first, "select count_tokens('rewa\t, 'the river') as tokens;\r", &["| tokens |", "| 2      |"]);
    typed(&mut first, "\\tim\t\r", &["\\timing"]);
    typed(&mut first, "select * from generate_series(1, 60) as t(i);\r", &["paged: | 60 |", "(60 rows)"]);
    typed(&mut first, "select nonesuch;\r", &["salmon: ", "nonesuch"]);
    first.press("\\q\r");
    assert_eq!(first.ended(), 0);
    let mut second = shell(home.path());
    // Up: the command to leave, what failed, and the statement before it.
    second.press("\x1b[A\x1b[A\x1b[A");
    second.expect("generate_series(1, 60)");
    typed(&mut second, "\r", &["paged: | 60 |"]);
    second.press("\x04");
    assert_eq!(second.ended(), 0);
}

#[test]
fn ctrl_c_stops_the_query_and_the_model_and_not_the_shell() {
    let home = tempfile::tempdir().unwrap();
    let mut shell = shell(home.path());
    shell.press("select count(*) from generate_series(1, 1000000000000) as t(i) where i % 7 = 3;\r");
    shell.expect("(ctrl-c stops it)");
    typed(&mut shell, "\x03", &["salmon: query: stopped"]);
    typed(&mut shell, "\\modelrows 5\r", &[]);
    let long = "select count(g['response']) from (select generate('sft', p.instruction, {max_tokens: 200, row: p.prompt_id \
                || q.prompt_id}) as g from prompts p cross join prompts q) t;\r";
    shell.press(long);
    shell.expect("generate('sft') for 75,625 rows, about");
    shell.expect("Go on? [y/N] ");
    typed(&mut shell, "n\r", &["salmon: query: not run"]);
    shell.press(long);
    shell.expect("Go on? [y/N] ");
    shell.press("y\r");
    shell.expect("rows answered");
    typed(&mut shell, "\x03", &["salmon: query: stopped"]);
    typed(&mut shell, "select 41 + 1 as answer;\r", &["| 42     |"]);
    shell.press("\x04");
    assert_eq!(shell.ended(), 0);
}
