//! `sql/views/*.sql`: each view against a slow, plain computation over the rows.

use arrow::json::writer::JsonArray;
use salmon::query::Params;
use serde_json::Value;

use crate::sql_support::{Bench, Rows};
use crate::views_plain as plain;
use crate::views_plans::{two_runs, view};
use crate::views_support::World;

fn values(rows: &Rows) -> Vec<Value> {
    let mut writer = arrow::json::WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    writer.write(&rows.0).unwrap();
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap_or_default()
}

/// Equal, but for the rounding of sums in another order.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= 1e-9 * (1.0 + a.abs())
        }
        (Value::Object(a), Value::Object(b)) => {
            a.keys().eq(b.keys()) && a.iter().all(|(name, value)| same(value, &b[name]))
        }
        (a, b) => a == b,
    }
}

fn assert_same(what: &str, found: &[Value], wanted: &[Value]) {
    assert!(wanted.len() > 2, "{what}: {wanted:?}");
    assert_eq!(found.len(), wanted.len(), "{what}: {found:#?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(same(found, wanted), "{what}:\n{found}\n{wanted}");
    }
}

/// That the view gives these rows in this order, on one partition and on several, for several made-up runs.
async fn check(name: &str, plain: fn(&World) -> Vec<Value>) {
    for seed in 1..4 {
        let world = World::new(seed);
        for partitions in [1, 3] {
            let bench = world.bench(partitions);
            let found = values(&bench.run(&view(name), &Params::new()).await);
            assert_same(&format!("{name}, seed {seed}, {partitions} partitions"), &found, &plain(&world));
        }
    }
}

#[tokio::test]
async fn order_flips() {
    check("order_flips", plain::order_flips).await;
}

#[tokio::test]
async fn dominant_principles() {
    check("dominant_principles", plain::dominant_principles).await;
}

#[tokio::test]
async fn principle_agreement() {
    check("principle_agreement", plain::principle_agreement).await;
}

#[tokio::test]
async fn negation_consistency() {
    check("negation_consistency", plain::negation_consistency).await;
}

#[tokio::test]
async fn judge_calibration() {
    check("judge_calibration", plain::judge_calibration).await;
}

#[tokio::test]
async fn margin_calibration() {
    check("margin_calibration", plain::margin_calibration).await;
}

#[tokio::test]
async fn length_bias() {
    check("length_bias", plain::length_bias).await;
}

#[tokio::test]
async fn label_noise() {
    check("label_noise", plain::label_noise).await;
}

#[tokio::test]
async fn splits() {
    check("splits", plain::splits).await;
}

#[tokio::test]
async fn reward_kl() {
    check("reward_kl", plain::reward_kl).await;
}

#[tokio::test]
async fn best_and_worst_rollouts() {
    check("best_and_worst_rollouts", plain::best_and_worst_rollouts).await;
}

#[tokio::test]
async fn drift() {
    let (a, b) = (World::new(1), World::new(2));
    let bench: Bench = two_runs(&a, &b).await;
    assert_same("drift", &values(&bench.run(&view("drift"), &Params::new()).await), &plain::drift(&a, &b));
}
