//! The formulas of training against independent plain code and hand-worked numbers.

use salmon::draw::key;
use salmon::train::Plan;
use salmon::train::batch::{Padded, micro_batches};
use salmon::train::config::{AdaptiveKl, PpoConfig, RewardConfig, SftConfig};
use salmon::train::ppo::gae::{advantages, whiten};
use salmon::train::ppo::kl::{KlEstimator, adapt};
use salmon::train::ppo::loss::{policy_loss, value_loss};
use salmon::train::schedule::{Schedule, Scheduler};
use tch::{Device, Kind, Tensor};

fn close(found: f64, wanted: f64, tolerance: f64) {
    assert!((found - wanted).abs() <= tolerance, "{found} is not {wanted} +- {tolerance}");
}

/// Numbers from the schedules in `transformers.optimization` (4.57), 3 warm-up steps of 10.
#[test]
fn schedules_follow_transformers() {
    let cases: [(Scheduler, [f64; 10]); 5] = [
        (Scheduler::Constant, [1.0; 10]),
        (Scheduler::ConstantWithWarmup, [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (Scheduler::Linear, LINEAR),
        (Scheduler::Cosine, COSINE),
        (Scheduler::CosineWithMinLr, COSINE_WITH_MIN_LR),
    ];
    for (scheduler, wanted) in cases {
        let schedule = Schedule::new(scheduler, 3, 0.9, 0.1, 10);
        for (step, wanted) in wanted.into_iter().enumerate() {
            close(schedule.factor(step), wanted, 1e-12);
        }
    }
    assert_eq!(Schedule::new(Scheduler::Linear, 0, 0.03, 0.0, 101).warmup_steps, 4);
}

const LINEAR: [f64; 10] = [
    0.0,
    0.3333333333333333,
    0.6666666666666666,
    1.0,
    0.8571428571428571,
    0.7142857142857143,
    0.5714285714285714,
    0.42857142857142855,
    0.2857142857142857,
    0.14285714285714285,
];
const COSINE: [f64; 10] = [
    0.0,
    0.3333333333333333,
    0.6666666666666666,
    1.0,
    0.9504844339512095,
    0.8117449009293668,
    0.6112604669781572,
    0.38873953302184283,
    0.18825509907063326,
    0.04951556604879048,
];
const COSINE_WITH_MIN_LR: [f64; 10] = [
    0.0,
    0.3333333333333333,
    0.6666666666666666,
    1.0,
    0.9554359905560885,
    0.8305704108364301,
    0.6501344202803414,
    0.44986557971965857,
    0.26942958916356996,
    0.14456400944391146,
];

#[test]
fn a_plan_is_a_permutation_per_epoch() {
    let plan = Plan { rows: 10, batch_size: 4, epochs: 2, key: key(1, &["plan"]) };
    assert_eq!((plan.steps_per_epoch(), plan.steps()), (3, 6));
    let mut seen = Vec::new();
    for step in 0..plan.steps() {
        let order = plan.order(step / 3);
        let rows = plan.rows_of(&order, step).to_vec();
        assert_eq!(rows.len(), if step % 3 == 2 { 2 } else { 4 });
        seen.push(rows);
    }
    for epoch in [&seen[..3], &seen[3..]] {
        let mut rows = epoch.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..10).collect::<Vec<_>>());
    }
    assert_ne!(seen[..3], seen[3..]);
    assert_eq!(plan.epoch(3), 1.0);
}

#[test]
fn micro_batches_hold_every_row_once_within_the_budget() {
    for case in 0..200u64 {
        let draws = key(3, &["micro"]).with(case);
        let lengths: Vec<usize> = (0..1 + draws.below(0, 40)).map(|i| 1 + draws.below(1 + i, 60) as usize).collect();
        let budget = 30 + draws.below(99, 300) as usize;
        let groups = micro_batches(&lengths, budget);
        let mut rows = groups.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        for group in &groups {
            let width = group.iter().map(|&row| lengths[row]).max().unwrap();
            assert!(group.len() == 1 || group.len() * width <= budget, "{group:?} of {lengths:?} exceeds {budget}");
        }
        let order = groups.concat();
        assert!(
            order.windows(2).all(|w| (lengths[w[1]], w[0]) <= (lengths[w[0]], w[1]) || lengths[w[0]] > lengths[w[1]])
        );
    }
    // Ten rows of 100 tokens need two groups of 1000 / 2 rather than one of nine rows and one of one.
    assert_eq!(micro_batches(&[100; 10], 900).iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);
    assert!(micro_batches(&[], 900).is_empty());
}

#[test]
fn rows_are_padded_on_the_right() {
    let padded = Padded::new([[5u32, 6, 7].as_slice(), &[8]]);
    assert_eq!((padded.batch, padded.time, padded.position(1, 0)), (2, 3, 3));
    let ids = Vec::<i64>::try_from(padded.tensor(Device::Cpu).flatten(0, 1)).unwrap();
    assert_eq!(ids, [5, 6, 7, 8, 0, 0]);
}

#[test]
fn gae_is_the_discounted_sum_of_temporal_differences() {
    // Worked by hand: gamma 0.9, lambda 0.8, gamma * lambda 0.72.
    // delta = [1 + .36 - .5, 0 + .27 - .4, 2 - .3] = [.86, -.13, 1.7]
    let (found, returns) = advantages(&[1.0, 0.0, 2.0], &[0.5, 0.4, 0.3], 0.9, 0.8);
    for (found, wanted) in found.iter().zip([0.86 + 0.72 * (-0.13 + 0.72 * 1.7), -0.13 + 0.72 * 1.7, 1.7]) {
        close(*found, wanted, 1e-12);
    }
    close(returns[2], 2.0, 1e-12);

    for case in 0..50u64 {
        let draws = key(4, &["gae"]).with(case);
        let n = 1 + draws.below(0, 30) as usize;
        let series = |part: u64| (0..n as u64).map(|i| draws.with(part).normal(i)).collect::<Vec<f64>>();
        let (rewards, values) = (series(1), series(2));
        let (gamma, lam) = (draws.uniform(3), draws.uniform(4));
        let (found, returns) = advantages(&rewards, &values, gamma, lam);
        for t in 0..n {
            let mut sum = 0.0;
            for l in t..n {
                let next = if l + 1 < n { values[l + 1] } else { 0.0 };
                sum += (gamma * lam).powi((l - t) as i32) * (rewards[l] + gamma * next - values[l]);
            }
            close(found[t], sum, 1e-10);
            close(returns[t], sum + values[t], 1e-10);
        }
        // With gamma = lambda = 1 the return is what is still to come.
        let (_, returns) = advantages(&rewards, &values, 1.0, 1.0);
        close(returns[n / 2], rewards[n / 2..].iter().sum(), 1e-10);
    }
}

#[test]
fn whitening_is_over_all_tokens_of_all_rows() {
    // Mean 3, unbiased variance (4 + 1 + 0 + 1 + 4) / 4 = 2.5.
    let rows = vec![vec![1.0, 2.0], vec![], vec![3.0, 4.0, 5.0]];
    let scale = 1.0 / (2.5f64 + 1e-8).sqrt();
    let mut white = rows.clone();
    whiten(&mut white, false);
    let mut kept = rows.clone();
    whiten(&mut kept, true);
    for (i, x) in rows.concat().into_iter().enumerate() {
        close(white.concat()[i], (x - 3.0) * scale, 1e-12);
        close(kept.concat()[i], (x - 3.0) * scale + 3.0, 1e-12);
    }
    let mut single = vec![vec![7.0]];
    whiten(&mut single, false);
    assert_eq!(single, [[7.0]]);
    let mut equal = vec![vec![2.0; 4]];
    whiten(&mut equal, false);
    assert_eq!(equal, [[0.0; 4]]);
}

#[test]
fn kl_estimators_by_hand() {
    // p = 0.5, q = 0.25: k1 = ln 2, k3 = 0.5 - 1 + ln 2.
    let (p, q) = (0.5f64.ln(), 0.25f64.ln());
    let ln2 = std::f64::consts::LN_2;
    close(KlEstimator::K1.estimate(p, q), ln2, 1e-15);
    close(KlEstimator::K1.estimate(q, p), -ln2, 1e-15);
    assert_eq!(KlEstimator::K1Clamped.estimate(q, p), 0.0);
    close(KlEstimator::K1Clamped.estimate(p, q), ln2, 1e-15);
    close(KlEstimator::K3.estimate(p, q), ln2 - 0.5, 1e-15);
    close(KlEstimator::K3.estimate(q, p), 1.0 - ln2, 1e-15);
    // Over the whole distribution k1 and k3 both are the divergence.
    let (ps, qs) = ([0.5, 0.3, 0.2], [0.2, 0.2, 0.6]);
    let exact: f64 = ps.iter().zip(qs).map(|(p, q): (&f64, f64)| p * (p / q).ln()).sum();
    for estimator in [KlEstimator::K1, KlEstimator::K3] {
        let mean: f64 = ps.iter().zip(qs).map(|(p, q)| p * estimator.estimate(p.ln(), q.ln())).sum();
        close(mean, exact, 1e-12);
    }
}

#[test]
fn the_kl_coefficient_is_steered_by_at_most_a_fifth_of_the_error() {
    let control = AdaptiveKl { target: 6.0, horizon: 1000.0 };
    close(adapt(0.2, control, 6.6, 64), 0.2 * (1.0 + 0.1 * 64.0 / 1000.0), 1e-15);
    close(adapt(0.2, control, 60.0, 64), 0.2 * (1.0 + 0.2 * 64.0 / 1000.0), 1e-15);
    close(adapt(0.2, control, 0.0, 64), 0.2 * (1.0 - 0.2 * 64.0 / 1000.0), 1e-15);
}

#[test]
fn ppo_losses_are_those_of_plain_code() {
    let draws = key(9, &["loss"]);
    let series =
        |part: u64, scale: f64| (0..64).map(|i| (scale * draws.with(part).normal(i)) as f32).collect::<Vec<f32>>();
    let (new, old, advantage) = (series(0, 0.4), series(1, 0.1), series(2, 1.0));
    let leaf = Tensor::from_slice(&new).set_requires_grad(true);
    let loss = policy_loss(&leaf, &Tensor::from_slice(&old), &Tensor::from_slice(&advantage), 0.2);
    loss.sum.backward();
    let gradient = Vec::<f32>::try_from(leaf.grad()).unwrap();
    let (mut sum, mut clipped, mut kl, mut ratios) = (0.0, 0, 0.0, 0.0);
    for i in 0..64 {
        let (n, o, a) = (f64::from(new[i]), f64::from(old[i]), f64::from(advantage[i]));
        let ratio = (n - o).exp();
        let plain = -a * ratio;
        let bounded = -a * ratio.clamp(0.8, 1.2);
        sum += plain.max(bounded);
        clipped += usize::from(bounded > plain);
        kl += 0.5 * (n - o) * (n - o);
        ratios += ratio;
        close(f64::from(gradient[i]), if bounded > plain { 0.0 } else { plain }, 1e-5);
    }
    assert!(clipped > 5 && clipped < 60);
    assert_eq!(loss.clipped, clipped as f64);
    close(loss.sum.double_value(&[]), sum, 1e-4);
    close(loss.approx_kl, kl, 1e-4);
    close(loss.ratio, ratios, 1e-4);

    let (value, before, wanted) = (series(3, 0.5), series(4, 0.5), series(5, 1.0));
    let loss = value_loss(&Tensor::from_slice(&value), &Tensor::from_slice(&before), &Tensor::from_slice(&wanted), 0.2);
    let (mut sum, mut clipped) = (0.0, 0);
    for i in 0..64 {
        let (v, b, r) = (f64::from(value[i]), f64::from(before[i]), f64::from(wanted[i]));
        let plain = (v - r).powi(2);
        let bounded = (v.clamp(b - 0.2, b + 0.2) - r).powi(2);
        sum += 0.5 * plain.max(bounded);
        clipped += usize::from(bounded > plain + 1e-9);
    }
    assert!(clipped > 5);
    assert_eq!(loss.clipped, clipped as f64);
    close(loss.sum.double_value(&[]), sum, 1e-4);
    assert_eq!(loss.sum.kind(), Kind::Float);
}

#[test]
fn configurations_have_the_papers_values_and_refuse_unknown_keys() {
    let ppo: PpoConfig =
        toml::from_str("kl_estimator = \"k3\"\nadaptive_kl = { target = 6, horizon = 10000 }").unwrap();
    assert_eq!((ppo.kl_estimator, ppo.batch_size, ppo.num_mini_batches, ppo.kl_coef), (KlEstimator::K3, 576, 2, 0.01));
    assert_eq!((ppo.gamma, ppo.lam, ppo.vf_coef, ppo.reward_scale), (1.0, 1.0, 0.1, 10.0));
    let reward = RewardConfig::default();
    assert_eq!((reward.learning_rate, reward.batch_size, reward.warmup_ratio), (3e-5, 64, 0.03));
    assert!(toml::from_str::<SftConfig>("learning_rat = 1e-4").unwrap_err().to_string().contains("learning_rat"));
    assert!(toml::from_str::<PpoConfig>("kl_estimator = \"k2\"").is_err());

    let bad = [
        ("learning_rate = -1.0", "stages.rl.learning_rate: is -1; it must be at least 0"),
        ("adam_beta2 = 1.0", "stages.rl.adam_beta2: is 1; it must be at least 0 and below 1"),
        ("batch_size = 0", "stages.rl.batch_size: is 0; it must be at least 1"),
        ("temperature = 0.0", "stages.rl.temperature: is 0; it must be above 0"),
        ("lam = 1.5", "stages.rl.lam: is 1.5; it must be between 0 and 1"),
        ("num_mini_batches = 600", "stages.rl.num_mini_batches: is 600; it must be at most batch_size"),
        ("adaptive_kl = { target = 0.0, horizon = 1.0 }", "stages.rl.adaptive_kl.target: is 0; it must be above 0"),
        ("kl_coef = nan", "stages.rl.kl_coef: is NaN; it must be at least 0"),
    ];
    for (text, wanted) in bad {
        let error = toml::from_str::<PpoConfig>(text).unwrap().check("stages.rl").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (salmon::error::Kind::Config, wanted));
    }
    PpoConfig::default().check("x").unwrap();
}
