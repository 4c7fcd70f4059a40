//! Where model operators stand in a plan: the rewriting, as it shows in EXPLAIN.

use insta::assert_snapshot;

use crate::query_support::{World, one_partition};

async fn plan(text: &str) -> String {
    World::new(20, &one_partition()).plan(text).await
}

#[tokio::test]
async fn one_node_holds_several_calls() {
    let text = "SELECT id, generate('m', prompt, {temperature: 0.7, stop: ['###'], seed: 42, row: id}) AS g,
        choice_logits('m', prompt, ['a', 'b']) AS c FROM t";
    assert_snapshot!(plan(text).await, @"");
}

#[tokio::test]
async fn filters_on_inputs_go_below_and_filters_on_results_stay_above() {
    let text = "SELECT id, reward('m', prompt) AS s FROM t WHERE kind = 'odd' AND reward('m', prompt) > 1";
    assert_snapshot!(plan(text).await, @"");
}

#[tokio::test]
async fn limits_and_sorts_go_below() {
    let text = "WITH a AS (SELECT *, reward('m', prompt) AS s FROM t) SELECT id, s FROM a ORDER BY kind, id LIMIT 3";
    assert_snapshot!(plan(text).await, @"");
}

#[tokio::test]
async fn a_sort_on_a_result_stays_above() {
    assert_snapshot!(plan("SELECT id FROM t ORDER BY reward('m', prompt), id LIMIT 3").await, @"");
}

#[tokio::test]
async fn nested_calls_stand_on_each_other() {
    let text = "SELECT reward('n', prompt || generate('m', prompt)['response']) + 1 AS s FROM t";
    assert_snapshot!(plan(text).await, @"");
}
