//! PPO: the first ratio, the targets, learning, workers, stopping and going on.

use salmon::draw::key;
use salmon::error::Kind as Failure;
use salmon::model::{Head, LoraConfig, Network};
use salmon::train::config::{AdaptiveKl, PpoConfig};
use salmon::train::ppo::kl::KlEstimator;
use salmon::train::ppo::{PpoTrainer, Row};
use tch::{Kind, Tensor};

use crate::train_fixtures::{VOCAB, bits, files, metric, network, run, tokens};

fn config() -> PpoConfig {
    PpoConfig {
        learning_rate: 3e-3,
        batch_size: 16,
        micro_batch_tokens: 64,
        kl_coef: 0.1,
        lam: 0.9,
        gamma: 0.95,
        reward_scale: 1.0,
        ..PpoConfig::default()
    }
}

fn rows(count: usize, step: u64) -> Vec<Row> {
    (0..count as u64)
        .map(|i| {
            let draws = key(11, &["row"]).with(step).with(i);
            Row {
                query_ids: tokens(draws.with(1), 1 + draws.below(1, 9) as usize),
                response_ids: tokens(draws.with(2), 1 + draws.below(2, 12) as usize),
                reward: draws.normal(3),
            }
        })
        .collect()
}

fn trainer(config: PpoConfig, workers: usize) -> PpoTrainer {
    let value = network(3).with_full_training().unwrap().with_head(Head::Linear, key(3, &["head"])).unwrap();
    PpoTrainer::new(network(1).with_full_training().unwrap(), network(2), value, config, run(10, workers)).unwrap()
}

/// Log-probabilities of a response, one unpadded row at a time.
fn plain_logprobs(network: &Network, row: &Row, temperature: f64) -> Vec<f64> {
    let ids: Vec<i64> = row.query_ids.iter().chain(&row.response_ids).map(|&id| i64::from(id)).collect();
    let logits =
        network.logits(&network.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).unwrap()).unwrap() / temperature;
    let all = logits.to_kind(Kind::Double).log_softmax(-1, Kind::Double);
    (row.query_ids.len()..ids.len()).map(|t| all.double_value(&[0, t as i64 - 1, ids[t]])).collect()
}

#[test]
fn the_first_ratio_is_exactly_one() {
    let rows = rows(23, 0);
    for workers in [1, 2] {
        for mini_batches in [1, 3] {
            // At learning rate 0 every pass is a first pass.
            let config =
                PpoConfig { learning_rate: 0.0, num_ppo_epochs: 1, num_mini_batches: mini_batches, ..config() };
            let metrics = trainer(config, workers).step(&rows).unwrap().metrics;
            assert_eq!(metric(&metrics, "val/ratio"), 1.0);
            assert_eq!(metric(&metrics, "val/ratio_var"), 0.0);
            assert_eq!(metric(&metrics, "policy/approxkl_avg"), 0.0);
            assert_eq!(metric(&metrics, "policy/clipfrac_avg"), 0.0);
            assert_eq!(metric(&metrics, "val/clipfrac_avg"), 0.0);
        }
    }
    // And with LoRA adapters of policy, reference and value model on one base.
    let adapter = LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        target_modules: vec!["q_proj", "down_proj"].into(),
        ..LoraConfig::default()
    };
    let base = network(1);
    let lora = |n: u64| base.with_lora(&adapter, key(n, &["lora"])).unwrap();
    let value = lora(3).with_head(Head::Linear, key(3, &["head"])).unwrap();
    let config = PpoConfig { num_ppo_epochs: 1, num_mini_batches: 1, ..config() };
    let mut trainer = PpoTrainer::new(lora(1), lora(2), value, config, run(10, 2)).unwrap();
    let step = trainer.step(&rows).unwrap();
    assert_eq!(metric(&step.metrics, "val/ratio"), 1.0);
    assert_eq!(metric(&step.metrics, "policy/approxkl_avg"), 0.0);
    // Fresh adapters change nothing, so policy and reference agree; after the step they do not.
    assert_eq!(metric(&step.metrics, "objective/kl"), 0.0);
    assert_ne!(metric(&trainer.step(&rows).unwrap().metrics, "objective/kl"), 0.0);
}

#[test]
fn the_targets_are_those_of_plain_code() {
    let rows = rows(9, 1);
    for estimator in [KlEstimator::K1, KlEstimator::K1Clamped, KlEstimator::K3] {
        for whiten_rewards in [false, true] {
            let config = PpoConfig { kl_estimator: estimator, whiten_rewards, reward_scale: 3.0, ..config() };
            let mut trainer = trainer(config, 2);
            let evaluated = trainer.evaluate(&rows).unwrap();
            let step = trainer.step(&rows).unwrap();
            let (policy, reference, value) = (network(1), network(2), {
                network(3).with_full_training().unwrap().with_head(Head::Linear, key(3, &["head"])).unwrap()
            });
            let mut rewards: Vec<Vec<f64>> = Vec::new();
            for ((row, update), evaluated) in rows.iter().zip(&step.rows).zip(&evaluated) {
                let (p, q) = (plain_logprobs(&policy, row, 0.7), plain_logprobs(&reference, row, 0.7));
                let ids: Vec<i64> = row.query_ids.iter().chain(&row.response_ids).map(|&id| i64::from(id)).collect();
                let v = value.scores(&value.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).unwrap()).unwrap();
                let n = row.response_ids.len();
                assert_eq!(update.evaluation.logprobs.len(), n);
                for t in 0..n {
                    let v = v.double_value(&[0, (row.query_ids.len() - 1 + t) as i64]);
                    for e in [&update.evaluation, evaluated] {
                        assert!((f64::from(e.logprobs[t]) - p[t]).abs() < 1e-4);
                        assert!((f64::from(e.ref_logprobs[t]) - q[t]).abs() < 1e-4);
                        assert!((f64::from(e.values[t]) - v).abs() < 1e-4);
                    }
                }
                let kl: f64 = p.iter().zip(&q).map(|(p, q)| p - q).sum();
                assert!((update.kl - kl).abs() < 1e-3);
                let mut tokens: Vec<f64> = p
                    .iter()
                    .zip(&q)
                    .map(|(p, q)| match estimator {
                        KlEstimator::K1 => -0.1 * (p - q),
                        KlEstimator::K1Clamped => -0.1 * (p - q).max(0.0),
                        KlEstimator::K3 => -0.1 * ((q - p).exp() - 1.0 - (q - p)),
                    })
                    .collect();
                tokens[n - 1] += row.reward;
                rewards.push(tokens);
            }
            let all = rewards.concat();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let deviation = (all.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (all.len() - 1) as f64).sqrt();
            for (tokens, update) in rewards.iter().zip(&step.rows) {
                let tokens: Vec<f64> = tokens
                    .iter()
                    .map(|r| if whiten_rewards { (r - mean) / deviation + mean } else { 3.0 * r })
                    .collect();
                let v = |t: usize| update.evaluation.values.get(t).map_or(0.0, |&v| f64::from(v));
                for t in 0..tokens.len() {
                    let advantage: f64 = (t..tokens.len())
                        .map(|l| (0.95f64 * 0.9).powi((l - t) as i32) * (tokens[l] + 0.95 * v(l + 1) - v(l)))
                        .sum();
                    assert!((update.advantages[t] - advantage).abs() < 1e-3);
                    assert!((update.returns[t] - advantage - v(t)).abs() < 1e-3);
                }
            }
            let scores = rows.iter().map(|row| row.reward).sum::<f64>() / 9.0;
            assert!((metric(&step.metrics, "objective/scores") - scores).abs() < 1e-12);
            let difference =
                metric(&step.metrics, "objective/rlhf_reward") - metric(&step.metrics, "objective/non_score_reward");
            assert!((difference - scores).abs() < 1e-12);
        }
    }
}

/// At learning rate 0 the losses are functions of the targets: ratio 1 and values as they were.
#[test]
fn the_losses_are_means_over_the_response_tokens() {
    let rows = rows(13, 2);
    let config = PpoConfig { learning_rate: 0.0, ..config() };
    let step = trainer(config, 2).step(&rows).unwrap();
    let count: usize = rows.iter().map(|row| row.response_ids.len()).sum();
    // Mini-batches of 7 and 6 rows: TRL averages their means. Recomputed from the order that the key gives.
    let (mut policy, mut value) = (0.0, 0.0);
    let advantages: Vec<f64> = step.rows.iter().flat_map(|row| row.advantages.clone()).collect();
    let mean = advantages.iter().sum::<f64>() / count as f64;
    let deviation = (advantages.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / (count - 1) as f64).sqrt();
    for epoch in 0..2 {
        let order = run(10, 1).key.with(0).with(epoch).permutation(13);
        for members in order.chunks(7) {
            let (mut p, mut v, mut n) = (0.0, 0.0, 0.0);
            for &row in members {
                let row = &step.rows[row];
                for t in 0..row.advantages.len() {
                    p -= (row.advantages[t] - mean) / deviation;
                    v += 0.5 * (f64::from(row.evaluation.values[t]) - row.returns[t]).powi(2);
                    n += 1.0;
                }
            }
            policy += p / n / 4.0;
            value += v / n / 4.0;
        }
    }
    let near = |name: &str, wanted: f64| {
        let found = metric(&step.metrics, name);
        assert!((found - wanted).abs() < 1e-4 * (1.0 + wanted.abs()), "{name}: {found} is not {wanted}");
    };
    near("loss/policy_avg", policy);
    near("loss/value_avg", value);
}

#[test]
fn rewarded_tokens_become_likely_and_the_penalty_holds_the_policy_back() {
    let policy_of = |kl_coef: f64| {
        let config = PpoConfig { kl_coef, temperature: 1.0, gamma: 1.0, lam: 1.0, learning_rate: 5e-3, ..config() };
        let value = network(1).with_full_training().unwrap().with_head(Head::Linear, key(3, &["head"])).unwrap();
        let policy = network(1).with_full_training().unwrap();
        let mut trainer = PpoTrainer::new(policy, network(1), value, config, run(25, 2)).unwrap();
        let mut kl = 0.0;
        for step in 0..25 {
            // Four tokens sampled from the policy after one of three queries; token 3 earns a point each time.
            let rows: Vec<Row> = (0..24u64)
                .map(|i| {
                    let mut ids = vec![(i % 3) as i64];
                    for t in 0..4 {
                        let hidden = trainer.policy().hidden(&Tensor::from_slice(&ids).unsqueeze(0)).unwrap();
                        let logits = trainer.policy().logits(&hidden.select(1, ids.len() as i64 - 1)).unwrap();
                        let p = Vec::<f32>::try_from(logits.softmax(-1, Kind::Float).squeeze_dim(0).detach()).unwrap();
                        let mut left = key(step, &["sample"]).with(i).uniform(t);
                        let token = p.iter().position(|&p| {
                            left -= f64::from(p);
                            left < 0.0
                        });
                        ids.push(token.unwrap_or(0) as i64);
                    }
                    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
                    let reward = ids[1..].iter().filter(|&&id| id == 3).count() as f64;
                    Row { query_ids: ids[..1].to_vec(), response_ids: ids[1..].to_vec(), reward }
                })
                .collect();
            kl = metric(&trainer.step(&rows).unwrap().metrics, "objective/kl");
        }
        let row = Row { query_ids: vec![1], response_ids: vec![3], reward: 0.0 };
        (plain_logprobs(trainer.policy(), &row, 1.0)[0].exp(), kl)
    };
    let row = Row { query_ids: vec![1], response_ids: vec![3], reward: 0.0 };
    let before = plain_logprobs(&network(1), &row, 1.0)[0].exp();
    let (free, far) = policy_of(0.0);
    let (held, near) = policy_of(5.0);
    assert!(before < 0.3 && free > 0.8, "{before} -> {free}");
    assert!(held < free && near < 0.5 * far, "held {held}, free {free}; kl {near} of {far}");
}

#[test]
fn workers_and_restarts_leave_the_bits_alone() {
    let config = PpoConfig { adaptive_kl: Some(AdaptiveKl { target: 1.0, horizon: 50.0 }), ..config() };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut log = Vec::new();
    let mut one = trainer(config.clone(), 1);
    for step in 0..4 {
        let step = one.step(&rows(16, step)).unwrap();
        log.push((step.rows, step.metrics));
    }
    one.save(whole.path()).unwrap();
    assert_ne!(one.kl_coef(), 0.1);

    let mut again = Vec::new();
    for step in 0..4 {
        let mut part = trainer(config.clone(), 1 + step as usize % 3);
        assert_eq!(part.restore(parts.path()).unwrap(), step > 0);
        assert_eq!(part.steps_done(), step as usize);
        let step = part.step(&rows(16, step)).unwrap();
        again.push((step.rows, step.metrics));
        part.save(parts.path()).unwrap();
    }
    assert_eq!(log, again);
    assert_eq!(files(whole.path()), files(parts.path()));
    assert_eq!(metric(&log[3].1, "episode"), 64.0);
}

#[test]
fn bad_rollouts_are_named_and_change_nothing() {
    let mut ppo = trainer(config(), 1);
    let before = (bits(ppo.policy()), bits(ppo.value()));
    let good = rows(3, 0);
    let with = |change: &dyn Fn(&mut Row)| {
        let mut rows = good.clone();
        change(&mut rows[2]);
        rows
    };
    let cases = [
        (with(&|row| row.reward = f64::NAN), "tiny step 1 row 2: the reward is NaN"),
        (with(&|row| row.response_ids.clear()), "tiny step 1 row 2: the query or the response has no token"),
        (with(&|row| row.query_ids.clear()), "tiny step 1 row 2: the query or the response has no token"),
        (with(&|row| row.response_ids[0] = VOCAB), "tiny step 1 row 2: token id 19 is outside of the vocabulary of 19"),
        (
            with(&|row| row.response_ids = vec![1; 60]),
            &format!(
                "tiny step 1 row 2: has {} tokens, more than the model's context of 48; shorten it",
                good[2].query_ids.len() + 60
            ),
        ),
        (Vec::new(), "tiny step 1: there are no rollouts"),
    ];
    for (rows, wanted) in cases {
        let error = ppo.step(&rows).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Failure::Data, wanted));
    }
    // A value model that blows up must not move the policy either.
    let (_, mut head) = ppo.value().trainable().pop().unwrap();
    let saved = head.detach().copy();
    let _ = tch::no_grad(|| head.fill_(f64::INFINITY));
    let error = ppo.step(&good).unwrap_err();
    assert_eq!(error.kind(), Failure::Train);
    assert!(error.to_string().starts_with("tiny step 1: the "), "{error}");
    tch::no_grad(|| head.copy_(&saved));
    assert_eq!(before, (bits(ppo.policy()), bits(ppo.value())));
    assert_eq!(ppo.steps_done(), 0);

    let headless =
        PpoTrainer::new(network(1).with_full_training().unwrap(), network(2), network(3), config(), run(1, 1));
    let Err(error) = headless else { panic!("accepted a value model without a head") };
    assert_eq!(error.to_string(), "tiny: the value model has no head");
}
