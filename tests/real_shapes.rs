//! `salmon import` and `salmon run` on public data formats with a model that nobody made for them: every stage runs,
//! every row is kept or has a reason, and a second run has nothing to do.

use super::real_support::Desk;
use salmon::principle::Library;

/// What of `recipes/smoke.toml` is smaller still.
const SMALL: [&str; 14] = [
    "self_align.max_tokens=24",
    "responses.prompts=8",
    "responses.test_prompts=3",
    "responses.max_tokens=16",
    "sft.batch_size=4",
    "reward_pretraining.max_rows=10",
    "reward_pretraining.trainer.batch_size=5",
    "reward.trainer.batch_size=4",
    "ppo.steps=2",
    "ppo.max_tokens=16",
    "ppo.min_prompt_tokens=8",
    "ppo.trainer.batch_size=6",
    "judge.max_response_tokens=16",
    "reward.max_response_tokens=16",
];

fn run(desk: &Desk, more: &[&str]) -> String {
    let sets = SMALL.iter().chain(more).flat_map(|set| ["--set", set]);
    desk.ok(&[&["run"], sets.collect::<Vec<_>>().as_slice()].concat())
}

/// The value of a stage's metric before its first step.
fn count(desk: &Desk, stage: &str, name: &str) -> i64 {
    desk.number(&format!("select value from metrics where stage = '{stage}' and step = 0 and name = '{name}'"))
}

/// Kept rows have no reason, the others have one.
fn reasons_hold(desk: &Desk) {
    for table in ["demonstrations", "responses", "pairs", "preferences"] {
        let bad = format!("select count(*) from {table} where kept <> (drop_reason is null)");
        assert_eq!(desk.number(&bad), 0, "{table}");
    }
}

/// From responses to the rows that the reward model saw.
fn labels_add_up(desk: &Desk, prompts: i64, test: i64) {
    assert_eq!(desk.number("select count(distinct prompt_id) from responses"), prompts);
    assert_eq!(desk.number("select count(*) from responses"), 2 * prompts);
    assert_eq!(desk.number("select count(*) from pairs"), prompts);
    assert_eq!(desk.number("select count(distinct prompt_id) from pairs where split = 'test'"), test);
    let pairs = desk.number("select count(*) from pairs where kept");
    assert_eq!(desk.number("select count(*) from judgments"), 11 * pairs);
    assert_eq!(desk.number("select count(*) from preferences"), 2 * pairs);
    let kept = desk.number("select count(*) from preferences where kept and split = 'train'");
    assert_eq!(count(desk, "reward", "rows/used") + count(desk, "reward", "rows/too_long"), kept);
}

#[test]
fn every_stage_runs_on_trees_and_comparisons_and_every_row_is_accounted_for() {
    let desk = Desk::new(8192);
    run(&desk, &[]);

    let train = desk.number("select count(*) from prompts where split = 'train'");
    let test = desk.number("select count(*) from prompts where split = 'test'");
    assert_eq!(train + test, 17);
    assert!(test > 0);
    reasons_hold(&desk);
    assert_eq!(desk.number("select count(*) from demonstrations"), train);
    let identity = Library::load(&desk.path(""), &["self_align".to_string()]).unwrap().identity.len() as i64;
    let kept = desk.number("select count(*) from demonstrations where kept");
    assert!(kept > 0);
    assert_eq!(count(&desk, "sft", "rows/used") + count(&desk, "sft", "rows/too_long"), kept + identity);
    labels_add_up(&desk, 8 + 3, 3);
    assert!(desk.number("select count(*) from preferences where kept and rule is null and margin > 0") > 0);
    let name = "reward_pretraining";
    assert_eq!(count(&desk, name, "rows/used") + count(&desk, name, "rows/too_long"), 10);
    for policy in ["policy:helpful", "policy:harmless"] {
        assert_eq!(count(&desk, policy, "prompts/used") + count(&desk, policy, "prompts/left_out"), train, "{policy}");
        assert!(count(&desk, policy, "prompts/left_out") > 0, "{policy}");
        let figures = desk.rows(&format!("select metric, n from evaluations where what = '{policy}' order by metric"));
        assert_eq!(figures.len(), 5, "{policy}");
        assert!(figures.iter().all(|figure| figure["n"].as_i64() == Some(test)), "{figures:?}");
    }
    let rollouts = "select count(*) from rollouts where cardinality(response_ids) = cardinality(logprobs)
        and cardinality(response_ids) = cardinality(advantages) and cardinality(query_ids) > 0";
    assert_eq!(desk.number(rollouts), 2 * 2 * 6);

    let made = desk.rows("select * from runs order by started, name");
    let again = run(&desk, &[]);
    assert!(again.contains("nothing to do: all 16 stages are up to date"), "{again}");
    assert_eq!(desk.rows("select * from runs order by started, name"), made);
}

#[test]
fn what_is_beyond_a_small_context_is_dropped_with_a_reason() {
    let desk = Desk::new(640);
    // The margin head besides: it lives in the configuration, not in the model's folder.
    let policies = r#"policies=[{name = "brief", principles = ["To the Point"], draw = 0}]"#;
    let yes_no = ["reward.head=yes_no", r#"reward.answers=["a", "b"]"#, "reward.max_query_tokens=64", policies];
    run(
        &desk,
        &[yes_no.as_slice(), &["responses.prompts=0", "responses.test_prompts=2", "preferences.language_rule=false"]]
            .concat(),
    );
    reasons_hold(&desk);
    labels_add_up(&desk, desk.number("select count(*) from prompts where split = 'train'"), 2);
    let demonstrations = desk.rows("select distinct drop_reason from demonstrations");
    assert_eq!(demonstrations.len(), 1);
    assert_eq!(demonstrations[0]["drop_reason"], "prompt_too_long");
    let reason = "select count(*) from pairs where drop_reason = 'no_response'";
    assert!(desk.number(reason) > 0);
    let unread = "select count(*) from judgments where verdict = 'unread'";
    assert!(desk.number(unread) > 0);
    assert_eq!(desk.number(&format!("{unread} and score_ab is not null and score_ba is not null")), 0);
    assert!(desk.number("select count(*) from preferences where drop_reason = 'unread'") > 0);
}
