//! Where model operators stand in a plan: the rewriting, as it shows in EXPLAIN.

use insta::assert_snapshot;

use crate::query_support::{World, one_partition};

async fn plan(text: &str) -> String {
    World::new(20, &one_partition()).plan(text).await
}

#[tokio::test]
async fn one_node_holds_several_calls() {
    let text = "SELECT id, generate('m', prompt, {temperature: 0.7, stop: ['END'], seed: 42, row: id}) AS g,
        choice_logits('m', prompt, ['a', 'b']) AS c FROM t";
    assert_snapshot!(plan(text).await, @r#"
    Projection: t.id, __model_0 AS g, __model_1 AS c
      Model: __model_0 = generate('m', t.prompt, CAST(t.id AS Utf8); temperature=0.7, top_p=1, top_k=0, max_tokens=256, stop=["END"], seed=42), __model_1 = choice_logits('m', t.prompt; choices=["a", "b"])
        TableScan: t projection=[id, prompt]
    --
    ProjectionExec: expr=[id@0 as id, __model_0@2 as g, __model_1@3 as c]
      ModelExec: __model_0 = generate('m', prompt@1, CAST(id@0 AS Utf8); temperature=0.7, top_p=1, top_k=0, max_tokens=256, stop=["END"], seed=42), __model_1 = choice_logits('m', prompt@1; choices=["a", "b"])
        DataSourceExec: partitions=1, partition_sizes=[1]
    "#);
}

#[tokio::test]
async fn filters_on_inputs_go_below_and_filters_on_results_stay_above() {
    let text = "SELECT id, reward('m', prompt) AS s FROM t WHERE kind = 'odd' AND reward('m', prompt) > 1";
    assert_snapshot!(plan(text).await, @r#"
    Projection: t.id, __model_0 AS s
      Filter: __model_0 > Float64(1)
        Projection: t.id, __model_0
          Model: __model_0 = reward('m', t.prompt)
            Filter: t.kind = Utf8("odd")
              TableScan: t projection=[id, prompt, kind]
    --
    ProjectionExec: expr=[id@0 as id, __model_0@1 as s]
      FilterExec: __model_0@1 > 1
        ProjectionExec: expr=[id@0 as id, __model_0@3 as __model_0]
          ModelExec: __model_0 = reward('m', prompt@1)
            FilterExec: kind@2 = odd
              DataSourceExec: partitions=1, partition_sizes=[1]
    "#);
}

#[tokio::test]
async fn limits_and_sorts_go_below() {
    let text = "WITH a AS (SELECT *, reward('m', prompt) AS s FROM t) SELECT id, s FROM a ORDER BY kind, id LIMIT 3";
    assert_snapshot!(plan(text).await, @r#"
    SubqueryAlias: a
      Projection: t.id, __model_0 AS s
        Limit: skip=0, fetch=3
          Model: __model_0 = reward('m', t.prompt)
            Sort: t.kind ASC NULLS LAST, t.id ASC NULLS LAST, fetch=3
              TableScan: t projection=[id, prompt, kind]
    --
    ProjectionExec: expr=[id@0 as id, __model_0@3 as s]
      ModelExec: __model_0 = reward('m', prompt@1)
        SortExec: TopK(fetch=3), expr=[kind@2 ASC NULLS LAST, id@0 ASC NULLS LAST], preserve_partitioning=[false]
          DataSourceExec: partitions=1, partition_sizes=[1]
    "#);
}

#[tokio::test]
async fn a_sort_on_a_result_stays_above() {
    assert_snapshot!(plan("SELECT id FROM t ORDER BY reward('m', prompt), id LIMIT 3").await, @r#"
    Projection: t.id
      Sort: __model_0 ASC NULLS LAST, t.id ASC NULLS LAST, fetch=3
        Projection: t.id, __model_0
          Model: __model_0 = reward('m', t.prompt)
            TableScan: t projection=[id, prompt]
    --
    ProjectionExec: expr=[id@0 as id]
      SortExec: TopK(fetch=3), expr=[__model_0@1 ASC NULLS LAST, id@0 ASC NULLS LAST], preserve_partitioning=[false]
        ProjectionExec: expr=[id@0 as id, __model_0@2 as __model_0]
          ModelExec: __model_0 = reward('m', prompt@1)
            DataSourceExec: partitions=1, partition_sizes=[1]
    "#);
}

#[tokio::test]
async fn nested_calls_stand_on_each_other() {
    let text = "SELECT reward('n', prompt || generate('m', prompt)['response']) + 1 AS s FROM t";
    assert_snapshot!(plan(text).await, @r#"
    Projection: __model_1 + Float64(1) AS s
      Model: __model_1 = reward('n', t.prompt || get_field(__model_0, Utf8("response")))
        Model: __model_0 = generate('m', t.prompt, t.prompt; temperature=1, top_p=1, top_k=0, max_tokens=256, stop=[], seed=0)
          TableScan: t projection=[prompt]
    --
    ProjectionExec: expr=[__model_1@2 + 1 as s]
      ModelExec: __model_1 = reward('n', prompt@0 || get_field(__model_0@1, response))
        ModelExec: __model_0 = generate('m', prompt@0, prompt@0; temperature=1, top_p=1, top_k=0, max_tokens=256, stop=[], seed=0)
          DataSourceExec: partitions=1, partition_sizes=[1]
    "#);
}

#[tokio::test]
async fn a_sort_passes_filters_on_results_so_that_rows_stream_on() {
    let text = "WITH g AS (SELECT id, prompt, generate('m', prompt) AS g FROM t)
        SELECT id, logprobs('n', prompt, g['ids']) AS l FROM g WHERE g['finish_reason'] <> 'length' ORDER BY id";
    assert_snapshot!(plan(text).await, @r#"
    Projection: g.id, __model_1 AS l
      Model: __model_1 = logprobs('n', g.prompt, get_field(g.g, Utf8("ids")))
        SubqueryAlias: g
          Projection: t.id, t.prompt, __model_0 AS g
            Filter: __datafusion_extracted_1 != Utf8("length")
              Projection: get_field(__model_0, Utf8("finish_reason")) AS __datafusion_extracted_1, t.id, t.prompt, __model_0
                Model: __model_0 = generate('m', t.prompt, t.prompt; temperature=1, top_p=1, top_k=0, max_tokens=256, stop=[], seed=0)
                  Sort: t.id ASC NULLS LAST
                    TableScan: t projection=[id, prompt]
    --
    ProjectionExec: expr=[id@0 as id, __model_1@3 as l]
      ModelExec: __model_1 = logprobs('n', prompt@1, get_field(g@2, ids))
        ProjectionExec: expr=[id@0 as id, prompt@1 as prompt, __model_0@2 as g]
          FilterExec: __datafusion_extracted_2@0 != length, projection=[id@1, prompt@2, __model_0@3]
            ProjectionExec: expr=[get_field(__model_0@2, finish_reason) as __datafusion_extracted_2, id@0 as id, prompt@1 as prompt, __model_0@2 as __model_0]
              ModelExec: __model_0 = generate('m', prompt@1, prompt@1; temperature=1, top_p=1, top_k=0, max_tokens=256, stop=[], seed=0)
                SortExec: expr=[id@0 ASC NULLS LAST], preserve_partitioning=[false]
                  DataSourceExec: partitions=1, partition_sizes=[1]
    "#);
}
