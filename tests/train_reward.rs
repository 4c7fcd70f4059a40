//! Reward-model training: the loss, both heads, workers, stopping and going on.

use salmon::draw::key;
use salmon::error::Kind as Failure;
use salmon::model::{Head, LoraConfig, Network};
use salmon::train::Plan;
use salmon::train::config::RewardConfig;
use salmon::train::reward::{PairExample, RewardTrainer};
use salmon::train::schedule::Scheduler;
use tch::Tensor;

use crate::train_fixtures::{VOCAB, bits, files, metric, network, run, tokens};

fn config() -> RewardConfig {
    RewardConfig {
        learning_rate: 5e-3,
        lr_scheduler_type: Scheduler::Constant,
        batch_size: 8,
        micro_batch_tokens: 64,
        ..RewardConfig::default()
    }
}

/// The chosen sequence holds token 3 before its last, the rejected one token 4.
fn pairs(count: usize) -> Vec<PairExample> {
    (0..count as u64)
        .map(|i| {
            let draws = key(8, &["pair"]).with(i);
            let side = |n: u64, mark: u32| {
                let mut ids = tokens(draws.with(n), 2 + draws.below(n, 14) as usize);
                ids.extend([mark, 5]);
                ids
            };
            PairExample { chosen: side(1, 3), rejected: side(2, 4) }
        })
        .collect()
}

fn linear() -> Network {
    network(1).with_full_training().unwrap().with_head(Head::Linear, key(3, &["head"])).unwrap()
}

fn score(network: &Network, ids: &[u32]) -> f64 {
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let hidden = network.hidden(&Tensor::from_slice(&ids).unsqueeze(0)).unwrap();
    network.scores(&hidden.select(1, ids.len() as i64 - 1)).unwrap().double_value(&[0])
}

#[test]
fn the_loss_is_bradley_terry_on_single_rows() {
    let pairs = pairs(11);
    let batch: Vec<&PairExample> = pairs.iter().collect();
    let heads = [
        linear(),
        network(1).with_full_training().unwrap().with_head(Head::YesNo { yes: 7, no: 9 }, key(0, &[])).unwrap(),
    ];
    for network in heads {
        let scores: Vec<(f64, f64)> =
            pairs.iter().map(|p| (score(&network, &p.chosen), score(&network, &p.rejected))).collect();
        let mut trainer = RewardTrainer::new(network, config(), run(5, 2)).unwrap();
        let metrics = trainer.step(&batch).unwrap();
        let mean = |f: &dyn Fn(&(f64, f64)) -> f64| scores.iter().map(f).sum::<f64>() / 11.0;
        let near = |name: &str, wanted: f64| {
            let found = metric(&metrics, name);
            assert!((found - wanted).abs() < 1e-4, "{name}: {found} is not {wanted}");
        };
        near("loss", mean(&|(c, r)| (1.0 + (r - c).exp()).ln()));
        near("margin", mean(&|(c, r)| c - r));
        near("accuracy", mean(&|(c, r)| f64::from(c > r)));
        near("mean_reward", mean(&|(c, r)| 0.5 * (c + r)));
        near("min_reward", scores.iter().map(|(c, r)| c.min(*r)).fold(f64::INFINITY, f64::min));
        near("max_reward", scores.iter().map(|(c, r)| c.max(*r)).fold(f64::NEG_INFINITY, f64::max));
    }
}

#[test]
fn it_learns_to_tell_pairs_apart() {
    let pairs = pairs(48);
    let plan = Plan { rows: 48, batch_size: 16, epochs: 12, key: key(2, &["plan"]) };
    let adapter = LoraConfig {
        r: 4,
        lora_alpha: 8.0,
        target_modules: vec!["q_proj", "v_proj", "up_proj"].into(),
        ..LoraConfig::default()
    };
    let lora =
        network(1).with_lora(&adapter, key(1, &["lora"])).unwrap().with_head(Head::Linear, key(3, &["head"])).unwrap();
    let margin =
        network(1).with_full_training().unwrap().with_head(Head::YesNo { yes: 7, no: 9 }, key(0, &[])).unwrap();
    for network in [linear(), lora, margin] {
        let config = RewardConfig { learning_rate: 1e-2, ..config() };
        let mut trainer = RewardTrainer::new(network, config, run(plan.steps(), 2)).unwrap();
        trainer.train(&pairs, &plan, |_, _| Ok(())).unwrap();
        let trained = trainer.into_network();
        // Rows it has not seen.
        let held_out: Vec<PairExample> = self::pairs(120).split_off(60);
        let right = held_out.iter().filter(|p| score(&trained, &p.chosen) > score(&trained, &p.rejected)).count();
        assert!(right >= 54, "{right} of 60 for {trained:?}");
    }
}

#[test]
fn workers_and_restarts_leave_the_bits_alone() {
    let pairs = pairs(30);
    let plan = Plan { rows: 30, batch_size: 8, epochs: 1, key: key(2, &["plan"]) };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fresh = |workers| RewardTrainer::new(linear(), config(), run(plan.steps(), workers)).unwrap();
    let mut log = Vec::new();
    let mut trainer = fresh(1);
    trainer
        .train(&pairs, &plan, |_, metrics| {
            log.push(metrics.clone());
            Ok(())
        })
        .unwrap();
    trainer.save(whole.path()).unwrap();

    let mut again = Vec::new();
    for stop_at in 1..=plan.steps() {
        let mut part = fresh(1 + stop_at % 2);
        part.restore(parts.path()).unwrap();
        let outcome = part.train(&pairs, &plan, |trainer, metrics| {
            again.push(metrics.clone());
            trainer.save(parts.path())?;
            if trainer.steps_done() == stop_at { Err(salmon::Error::interrupted("test")) } else { Ok(()) }
        });
        assert_eq!(outcome.unwrap_err().kind(), Failure::Interrupted);
    }
    assert_eq!(log, again);
    assert_eq!(files(whole.path()), files(parts.path()));
}

#[test]
fn bad_pairs_and_networks_are_refused() {
    let Err(error) = RewardTrainer::new(network(1).with_full_training().unwrap(), config(), run(1, 1)) else {
        panic!("accepted a network without a head")
    };
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Failure::Config, "tiny: the network has no reward head; choose linear or yes_no")
    );

    let mut trainer = RewardTrainer::new(linear(), config(), run(1, 1)).unwrap();
    let before = bits(trainer.network());
    let empty = PairExample { chosen: vec![1], rejected: vec![] };
    assert_eq!(
        trainer.step(&[&empty]).unwrap_err().to_string(),
        "tiny step 1 row 0: one of the two sequences is empty"
    );
    let unknown = PairExample { chosen: vec![VOCAB + 3], rejected: vec![1] };
    assert!(trainer.step(&[&unknown]).unwrap_err().to_string().starts_with("tiny step 1 row 0: token id 22"));
    assert_eq!(trainer.step(&[]).unwrap_err().to_string(), "tiny step 1: the batch has no pair");
    let (_, mut head) = trainer.network().trainable().pop().unwrap();
    let _ = tch::no_grad(|| head.fill_(f64::INFINITY));
    let error = trainer.step(&pairs(3).iter().collect::<Vec<_>>()).unwrap_err();
    assert_eq!(error.kind(), Failure::Train);
    let _ = tch::no_grad(|| head.fill_(0.0));
    let after = bits(trainer.network());
    assert!(before.iter().all(|(name, bits)| name == "score.weight" || after[name] == *bits));
}
