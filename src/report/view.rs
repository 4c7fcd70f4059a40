//! The page's sections out of the facts: grouping, plots, comparisons.
//!
//! In: [`Facts`] and the configuration. Out: what `page.jinja` reads. Plots are the only text that is not escaped
//! there, because [`plot`](super::plot) escapes what it draws.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::{Value, context};
use serde::Serialize;

use super::facts::{CurveRow, Facts, PolicyRow, SampleRow};
use super::plot::{self, Bar, Series};
use crate::Result;
use crate::config::Config;

/// Figures of one policy by column.
type Figures = BTreeMap<String, (f64, i64)>;

/// What the template reads.
pub(super) fn view(facts: &Facts, url: &str, config: Option<&Config>) -> Result<Value> {
    let config_text = config.map(Config::to_toml).transpose()?;
    Ok(context! {
        url,
        base => config.map(|c| c.model.base.clone()),
        seed => config.map(|c| c.seed),
        config => config_text,
        version => env!("CARGO_PKG_VERSION"),
        stages => stages(facts),
        seconds => seconds(facts),
        accounting => accounting(facts),
        judge => judge(facts),
        reward => reward(facts),
        curves => curves(&facts.curves),
        policies => policies(&facts.policies, config),
        interventions => interventions(&facts.policies, config),
        samples => samples(&facts.samples),
    })
}

fn safe(svg: String) -> Value {
    Value::from_safe_string(svg)
}

/// The stages in the order they ran, each with what it made.
fn stages(facts: &Facts) -> Vec<Value> {
    let mut stages: Vec<(&str, Vec<Value>)> = Vec::new();
    for row in &facts.stages {
        match stages.last_mut() {
            Some((stage, made)) if *stage == row.stage => made.push(Value::from_serialize(row)),
            _ => stages.push((&row.stage, vec![Value::from_serialize(row)])),
        }
    }
    stages.into_iter().map(|(stage, made)| context! { stage, made }).collect()
}

/// Seconds of all stages, each counted once.
fn seconds(facts: &Facts) -> f64 {
    let by_stage: BTreeMap<&str, f64> = facts.stages.iter().map(|row| (row.stage.as_str(), row.seconds)).collect();
    by_stage.values().sum()
}

fn accounting(facts: &Facts) -> Value {
    let mut tables: Vec<(String, Vec<Bar>)> = Vec::new();
    let mut colours: BTreeMap<&str, usize> = BTreeMap::from([("kept", 0)]);
    for row in &facts.accounts {
        let next = colours.len();
        let colour = *colours.entry(&row.reason).or_insert(next);
        let bar = Bar { label: row.reason.clone(), value: row.n as f64, colour };
        match tables.iter_mut().find(|(table, _)| *table == row.table) {
            Some((_, parts)) => parts.push(bar),
            None => tables.push((row.table.clone(), vec![bar])),
        }
    }
    let rows: Vec<Value> = tables
        .iter()
        .map(|(table, parts)| {
            let total: f64 = parts.iter().map(|part| part.value).sum();
            let parts: Vec<Value> = parts
                .iter()
                .map(|p| context! { reason => p.label, n => p.value as i64, share => 100.0 * p.value / total, colour => p.colour % 8 })
                .collect();
            context! { table, total => total as i64, parts }
        })
        .collect();
    context! { rows, plot => safe(plot::stacked("Rows kept and dropped, by table", &tables)) }
}

fn judge(facts: &Facts) -> Value {
    let bars = |colour: usize, of: fn(&super::facts::JudgeRow) -> Option<f64>| -> Vec<Bar> {
        let bar = |row| of(row).map(|value| Bar { label: row.principle.clone(), value, colour });
        facts.judge.iter().filter_map(bar).collect()
    };
    let agreement = bars(0, |row| row.agreement);
    context! {
        rows => facts.judge,
        ties => safe(plot::bars("Tie rate of the judge, by principle", &bars(1, |row| row.flip_rate), Some(1.0))),
        agreement => safe(plot::bars("Agreement of the judge, by principle", &agreement, Some(1.0))),
        agrees => !agreement.is_empty(),
    }
}

fn reward(facts: &Facts) -> Value {
    let name = |subset: &Option<String>| subset.clone().unwrap_or_else(|| "all".into());
    let subsets: Vec<String> = Vec::from_iter(BTreeSet::from_iter(facts.reward.iter().map(|row| name(&row.subset))));
    let mut principles: BTreeMap<String, BTreeMap<String, (f64, i64)>> = BTreeMap::new();
    let mut overall = Vec::new();
    for row in &facts.reward {
        let Some(value) = row.value else { continue };
        match &row.principle {
            Some(principle) => {
                principles.entry(principle.clone()).or_default().insert(name(&row.subset), (value, row.n));
            }
            None => overall.push((name(&row.subset), value, row.n)),
        }
    }
    let plots: Vec<Value> = subsets
        .iter()
        .enumerate()
        .filter_map(|(colour, subset)| {
            let bars: Vec<Bar> = principles
                .iter()
                .filter_map(|(label, by)| Some(Bar { label: label.clone(), value: by.get(subset)?.0, colour }))
                .collect();
            let svg = plot::bars(&format!("Reward accuracy on {subset}, by principle"), &bars, Some(1.0));
            (!svg.is_empty()).then(|| context! { subset, plot => safe(svg) })
        })
        .collect();
    let bars: Vec<Bar> = overall
        .iter()
        .map(|(subset, value, _)| Bar {
            label: subset.clone(),
            value: *value,
            colour: subsets.iter().position(|known| known == subset).unwrap_or(0),
        })
        .collect();
    let rows: Vec<Value> = overall.iter().map(|(subset, value, n)| context! { subset, value, n }).collect();
    context! { rows, plot => safe(plot::bars("Reward accuracy, by subset", &bars, Some(1.0))), plots }
}

/// What is drawn of the metrics: a title, the metric, and whether it is that of policies (one line each).
const CURVES: [(&str, &str, &str); 10] = [
    ("Base model: loss", "base", "loss"),
    ("SFT: loss", "sft", "loss"),
    ("SFT: token accuracy", "sft", "mean_token_accuracy"),
    ("Reward pre-training: accuracy", "reward_pretraining", "accuracy"),
    ("Reward model: loss", "reward", "loss"),
    ("Reward model: accuracy in training", "reward", "accuracy"),
    ("PPO: score of the reward model", "policy:", "score"),
    ("PPO: shaped reward less KL penalty", "policy:", "objective/rlhf_reward"),
    ("PPO: KL to the SFT policy, nats per response", "policy:", "objective/kl"),
    ("PPO: tokens per response", "policy:", "tokens"),
];

fn curves(rows: &[CurveRow]) -> Vec<Value> {
    let draw = |(title, stage, metric): &(&str, &str, &str)| {
        let mut series: BTreeMap<&str, Series> = BTreeMap::new();
        let policies = stage.ends_with(':');
        for row in rows.iter().filter(|row| row.name == *metric) {
            let wanted = if policies { row.stage.starts_with(stage) } else { row.stage == *stage };
            if wanted {
                let name = row.stage.strip_prefix("policy:").unwrap_or(&row.stage);
                let one = series.entry(name).or_insert_with(|| Series { name: name.into(), points: vec![] });
                one.points.push((row.step as f64, row.value));
            }
        }
        let series: Vec<Series> = series.into_values().collect();
        let svg = plot::lines(title, "step", &series);
        (!svg.is_empty()).then(|| safe(svg))
    };
    CURVES.iter().filter_map(draw).collect()
}

/// The column of a figure: the principle's name for rates, the metric's for others.
fn column(row: &PolicyRow) -> String {
    match &row.principle {
        Some(principle) if row.metric == "rate" => principle.clone(),
        Some(principle) => format!("{} {principle}", row.metric),
        None => row.metric.clone(),
    }
}

/// Figures by policy in the order of the rows, and the columns: metrics first, then principles.
fn table(rows: &[PolicyRow]) -> (Vec<(String, Figures)>, Vec<String>) {
    let mut policies: Vec<(String, Figures)> = Vec::new();
    let (mut metrics, mut principles) = (BTreeSet::new(), BTreeSet::new());
    for row in rows {
        let Some(value) = row.value else { continue };
        let column = column(row);
        if row.principle.is_some() { &mut principles } else { &mut metrics }.insert(column.clone());
        if policies.last().is_none_or(|(name, _)| *name != row.policy) {
            policies.push((row.policy.clone(), Figures::new()));
        }
        if let Some((_, figures)) = policies.last_mut() {
            figures.insert(column, (value, row.n));
        }
    }
    (policies, metrics.into_iter().chain(principles).collect())
}

fn principles_of<'a>(config: Option<&'a Config>, policy: &str) -> &'a [String] {
    let found = config.and_then(|config| config.policies.iter().find(|own| own.name == policy));
    found.map_or(&[], |policy| policy.principles.as_slice())
}

fn policies(rows: &[PolicyRow], config: Option<&Config>) -> Value {
    let (policies, columns) = table(rows);
    let rows: Vec<Value> = policies
        .iter()
        .map(|(policy, figures)| {
            let cells: Vec<Option<String>> =
                columns.iter().map(|column| Some(format!("{:.2}", figures.get(column)?.0))).collect();
            context! { policy, principles => principles_of(config, policy), cells }
        })
        .collect();
    context! { columns, rows }
}

/// Every policy whose principles are those of another one and more, beside that other one.
fn interventions(rows: &[PolicyRow], config: Option<&Config>) -> Vec<Value> {
    let (policies, columns) = table(rows);
    let mut found = Vec::new();
    for (before, old) in &policies {
        for (after, new) in &policies {
            let (few, many) = (principles_of(config, before), principles_of(config, after));
            if few.is_empty() || many.len() <= few.len() || !few.iter().all(|name| many.contains(name)) {
                continue;
            }
            let added: Vec<&String> = many.iter().filter(|name| !few.contains(name)).collect();
            let mut bars = Vec::new();
            let mut cells = Vec::new();
            for column in &columns {
                let (Some((from, _)), Some((to, n))) = (old.get(column), new.get(column)) else { continue };
                let touched = added.iter().any(|name| name.strip_prefix("not ").unwrap_or(name) == column);
                if touched {
                    bars.push(Bar { label: format!("{column}: {before}"), value: *from, colour: 1 });
                    bars.push(Bar { label: format!("{column}: {after}"), value: *to, colour: 0 });
                }
                cells.push(Compared {
                    column: column.clone(),
                    from: format!("{from:.2}"),
                    to: format!("{to:.2}"),
                    change: format!("{:+.2}", to - from),
                    n: *n,
                    touched,
                });
            }
            let plot = safe(plot::bars("Rate of the added principle, before and after", &bars, Some(1.0)));
            found.push(context! { before, after, added, cells, plot });
        }
    }
    found
}

/// One figure of two policies.
#[derive(Serialize)]
struct Compared {
    column: String,
    from: String,
    to: String,
    change: String,
    n: i64,
    /// Whether it is the figure of an added principle.
    touched: bool,
}

fn samples(rows: &[SampleRow]) -> Vec<Value> {
    let mut policies: Vec<(&str, Vec<&SampleRow>)> = Vec::new();
    for row in rows {
        match policies.last_mut() {
            Some((policy, answers)) if *policy == row.policy => answers.push(row),
            _ => policies.push((&row.policy, vec![row])),
        }
    }
    policies.into_iter().map(|(policy, answers)| context! { policy, answers }).collect()
}
