//! Fine-tuning: the gradient, the split over workers, stopping and going on, bad input.

use salmon::draw::key;
use salmon::error::Kind as Failure;
use salmon::model::{LoraConfig, Network};
use salmon::train::Plan;
use salmon::train::config::SftConfig;
use salmon::train::schedule::Scheduler;
use salmon::train::sft::{Example, SftTrainer};
use tch::{Kind, Tensor};

use crate::train_fixtures::{VOCAB, bits, files, metric, network, run, tokens};

fn config() -> SftConfig {
    SftConfig { learning_rate: 5e-3, batch_size: 8, micro_batch_tokens: 32, weight_decay: 0.01, ..SftConfig::default() }
}

/// Prompts and answers of drawn lengths; some weights are fractions.
fn examples(count: usize) -> Vec<Example> {
    (0..count as u64)
        .map(|i| {
            let draws = key(7, &["example"]).with(i);
            let prompt = tokens(draws.with(1), 1 + draws.below(0, 12) as usize);
            let mut example = Example::answer(&prompt, &tokens(draws.with(2), 1 + draws.below(3, 10) as usize));
            if i % 3 == 0 {
                *example.weights.last_mut().unwrap() = 2.5;
            }
            example
        })
        .collect()
}

/// The weighted loss of a batch, one unpadded row at a time.
fn plain_loss(network: &Network, examples: &[Example]) -> Tensor {
    let mut sum = Tensor::zeros([], (Kind::Double, tch::Device::Cpu));
    let mut total = 0.0;
    for example in examples {
        let ids: Vec<i64> = example.ids.iter().map(|&id| i64::from(id)).collect();
        let logprobs = network.log_probs(&Tensor::from_slice(&ids).unsqueeze(0)).unwrap().squeeze_dim(0);
        let weights = Tensor::from_slice(&example.weights[1..]);
        total += weights.sum(Kind::Double).double_value(&[]);
        sum -= (logprobs * weights).sum(Kind::Double);
    }
    sum / total
}

#[test]
fn the_gradient_is_that_of_one_row_at_a_time_and_of_finite_differences() {
    let examples = examples(9);
    let config = SftConfig { max_grad_norm: 0.0, ..config() };
    let mut trainer = SftTrainer::new(network(1).with_full_training().unwrap(), config, run(10, 1)).unwrap();
    let batch: Vec<&Example> = examples.iter().collect();
    let step = trainer.step_at(&batch, 0.0).unwrap();

    // After one step from zero the first moment is 0.1 x gradient.
    let state = trainer.optimizer().state();
    let found = |name: &str| {
        let wanted = format!("{name}.exp_avg");
        state.iter().find(|(n, _)| *n == wanted).unwrap().1.detach() * 10.0
    };
    let reference = network(1).with_full_training().unwrap();
    let loss = plain_loss(&reference, &examples);
    loss.backward();
    assert!((metric(&step.metrics, "loss") - loss.double_value(&[])).abs() < 1e-5);
    let mut squares = 0.0;
    for (name, tensor) in reference.trainable() {
        let (found, wanted) = (found(&name), tensor.grad());
        let off = (&found - &wanted).abs().max().double_value(&[]);
        assert!(off < 1e-5, "{name}: gradients differ by {off}");
        squares += found.square().sum(Kind::Double).double_value(&[]);
    }
    let norm = squares.sqrt();
    assert!((metric(&step.metrics, "grad_norm") - norm).abs() < 1e-4 * norm);

    // Along its own direction the loss changes by the norm of the gradient.
    let at = |offset: f64| {
        let _no_grad = tch::no_grad_guard();
        for (name, mut tensor) in reference.trainable() {
            let _ = tensor.g_add_(&(found(&name) * (offset / norm)));
        }
        plain_loss(&reference, &examples).double_value(&[])
    };
    let (up, down) = (at(1e-2), at(-2e-2));
    let slope = (up - down) / 2e-2;
    assert!((slope - norm).abs() < 0.01 * norm, "slope {slope}, norm {norm}");
}

#[test]
fn the_losses_of_tokens_come_back_to_their_examples() {
    let examples = examples(7);
    let mut trainer = SftTrainer::new(network(1).with_full_training().unwrap(), config(), run(10, 2)).unwrap();
    let batch: Vec<&Example> = examples.iter().collect();
    let step = trainer.step(&batch).unwrap();
    let reference = network(1);
    let (mut right, mut counted) = (0, 0);
    for (example, losses) in examples.iter().zip(&step.token_losses) {
        let ids: Vec<i64> = example.ids.iter().map(|&id| i64::from(id)).collect();
        let ids_bt = Tensor::from_slice(&ids).unsqueeze(0);
        let wanted = Vec::<f32>::try_from(reference.log_probs(&ids_bt).unwrap().squeeze_dim(0)).unwrap();
        let hidden = reference.hidden(&ids_bt).unwrap();
        let best = Vec::<i64>::try_from(reference.logits(&hidden).unwrap().argmax(-1, false).squeeze_dim(0)).unwrap();
        assert_eq!(losses.len(), example.ids.len());
        for t in 0..losses.len() {
            let wanted = if t > 0 && example.weights[t] > 0.0 { -wanted[t - 1] } else { 0.0 };
            assert!((losses[t] - wanted).abs() < 1e-4, "token {t}: {} is not {wanted}", losses[t]);
            if t > 0 && example.weights[t] > 0.0 {
                counted += 1;
                right += usize::from(best[t - 1] == ids[t]);
            }
        }
    }
    assert!((metric(&step.metrics, "mean_token_accuracy") - right as f64 / counted as f64).abs() < 1e-12);
}

#[test]
fn any_number_of_workers_gives_the_same_bits() {
    let examples = examples(40);
    let plan = Plan { rows: 40, batch_size: 16, epochs: 2, key: key(2, &["plan"]) };
    let train = |workers: usize, budget: usize| {
        let config = SftConfig { micro_batch_tokens: budget, ..config() };
        let mut trainer = SftTrainer::new(network(1).with_full_training().unwrap(), config, run(6, workers)).unwrap();
        let mut log = Vec::new();
        trainer
            .train(&examples, &plan, |_, metrics| {
                log.push(metrics.clone());
                Ok(())
            })
            .unwrap();
        (log, bits(trainer.network()))
    };
    let (one, weights) = train(1, 64);
    assert_eq!(one.len(), 6);
    for workers in [1, 2, 3] {
        let (log, other) = train(workers, 64);
        assert_eq!((&one, &weights), (&log, &other), "{workers} workers");
    }
    // One micro-batch per step instead of many: the same within rounding.
    let (whole, _) = train(1, 100_000);
    for (one, whole) in one.iter().zip(&whole) {
        assert!((metric(one, "loss") - metric(whole, "loss")).abs() < 1e-4);
        assert!((metric(one, "grad_norm") - metric(whole, "grad_norm")).abs() < 1e-3);
    }
}

#[test]
fn a_restored_trainer_goes_on_as_if_it_had_never_stopped() {
    let examples = examples(20);
    let plan = Plan { rows: 20, batch_size: 8, epochs: 2, key: key(2, &["plan"]) };
    for lora in [false, true] {
        let fresh = |workers: usize| {
            let base = network(1);
            let adapter = LoraConfig {
                r: 4,
                lora_alpha: 8.0,
                target_modules: vec!["q_proj", "down_proj"].into(),
                ..LoraConfig::default()
            };
            let network = if lora { base.with_lora(&adapter, key(1, &["lora"])) } else { base.with_full_training() };
            SftTrainer::new(network.unwrap(), config(), run(plan.steps(), workers)).unwrap()
        };
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut log = Vec::new();
        let mut trainer = fresh(1);
        assert!(!trainer.restore(whole.path()).unwrap());
        trainer
            .train(&examples, &plan, |_, metrics| {
                log.push(metrics.clone());
                Ok(())
            })
            .unwrap();
        trainer.save(whole.path()).unwrap();

        let mut again = Vec::new();
        let mut stopped = fresh(2);
        let stop = stopped.train(&examples, &plan, |trainer, metrics| {
            again.push(metrics.clone());
            trainer.save(parts.path())?;
            if trainer.steps_done() == 3 { Err(salmon::Error::interrupted("test")) } else { Ok(()) }
        });
        assert_eq!(stop.unwrap_err().kind(), Failure::Interrupted);
        drop(stopped);
        let mut resumed = fresh(1);
        assert!(resumed.restore(parts.path()).unwrap());
        assert_eq!(resumed.steps_done(), 3);
        resumed
            .train(&examples, &plan, |_, metrics| {
                again.push(metrics.clone());
                Ok(())
            })
            .unwrap();
        resumed.save(parts.path()).unwrap();
        assert_eq!(log, again);
        assert_eq!(files(whole.path()), files(parts.path()));
        assert_eq!(files(whole.path()).len(), 3, "only the newest step is kept");
    }
}

#[test]
fn a_loss_that_is_no_number_stops_before_any_change() {
    let examples = examples(4);
    let batch: Vec<&Example> = examples.iter().collect();
    let mut trainer = SftTrainer::new(network(1).with_full_training().unwrap(), config(), run(9, 2)).unwrap();
    trainer.step(&batch).unwrap();
    let (_, mut norm) = trainer.network().trainable().into_iter().find(|(n, _)| n == "model.norm.weight").unwrap();
    let _ = tch::no_grad(|| norm.fill_(f64::NAN));
    let before = bits(trainer.network());
    let state = |trainer: &SftTrainer| {
        trainer
            .optimizer()
            .state()
            .iter()
            .map(|(_, t)| Vec::<f32>::try_from(t.flatten(0, -1)).unwrap())
            .collect::<Vec<_>>()
    };
    let moments = state(&trainer);
    let error = trainer.step(&batch).unwrap_err();
    assert_eq!(error.kind(), Failure::Train);
    assert!(error.to_string().starts_with("tiny step 2: the loss is NaN"), "{error}");
    assert_eq!(before, bits(trainer.network()));
    assert_eq!(moments, state(&trainer));
    assert_eq!(trainer.steps_done(), 1);
}

#[test]
fn bad_examples_are_named() {
    let mut trainer = SftTrainer::new(network(1).with_full_training().unwrap(), config(), run(9, 1)).unwrap();
    let good = Example::answer(&[1], &[2, 3]);
    let cases = [
        (Example::answer(&[1], &[VOCAB]), "tiny step 1 row 1: token id 19 is outside of the vocabulary of 19"),
        (Example::answer(&[], &[1]), "tiny step 1 row 1: needs two tokens or more, and a weight for each"),
        (
            Example { ids: vec![1, 2], weights: vec![1.0] },
            "tiny step 1 row 1: needs two tokens or more, and a weight for each",
        ),
        (
            Example { ids: vec![1, 2], weights: vec![0.0, f32::NAN] },
            "tiny step 1 row 1: has a loss weight that is negative or not a number",
        ),
        (
            Example::answer(&[1; 40], &[2; 9]),
            "tiny step 1 row 1: has 49 tokens, more than the model's context of 48; shorten it",
        ),
    ];
    for (bad, wanted) in &cases {
        let error = trainer.step(&[&good, bad]).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Failure::Data, *wanted));
    }
    let silent = Example { ids: vec![1, 2], weights: vec![1.0, 0.0] };
    let error = trainer.step(&[&silent]).unwrap_err();
    assert_eq!(error.to_string(), "tiny step 1: no token of the batch has a loss weight above 0");
    // A row without a counted token does no harm beside others.
    trainer.step(&[&silent, &good]).unwrap();
    assert_eq!(trainer.steps_done(), 1);
}

#[test]
fn a_damaged_checkpoint_is_named() {
    let examples = examples(4);
    let batch: Vec<&Example> = examples.iter().collect();
    let folder = tempfile::tempdir().unwrap();
    let fresh = || SftTrainer::new(network(1).with_full_training().unwrap(), config(), run(9, 1)).unwrap();
    let mut trainer = fresh();
    trainer.step(&batch).unwrap();
    trainer.save(folder.path()).unwrap();
    // What an interrupted save leaves behind is not looked at.
    std::fs::create_dir(folder.path().join(".partial-x")).unwrap();
    assert!(fresh().restore(folder.path()).unwrap());

    let file = folder.path().join("step-00000001/optimizer.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let mut other = fresh();
    let error = other.restore(folder.path()).unwrap_err();
    assert_eq!(error.kind(), Failure::Store);
    assert!(
        error.to_string().contains("step-00000001/optimizer.safetensors: is not a valid safetensors file"),
        "{error}"
    );
    assert_eq!(other.steps_done(), 0);

    let adapter = LoraConfig { r: 4, lora_alpha: 8.0, target_modules: vec!["q_proj"].into(), ..LoraConfig::default() };
    let lora = network(1).with_lora(&adapter, key(1, &["lora"])).unwrap();
    let error = SftTrainer::new(lora, config(), run(9, 1)).unwrap().restore(folder.path()).unwrap_err();
    assert!(error.to_string().contains("is missing"), "{error}");
}

#[test]
fn it_learns_what_it_is_shown() {
    let examples = examples(6);
    let batch: Vec<&Example> = examples.iter().collect();
    let config = SftConfig { learning_rate: 1e-2, lr_scheduler_type: Scheduler::Constant, ..config() };
    let mut trainer = SftTrainer::new(network(1).with_full_training().unwrap(), config, run(80, 2)).unwrap();
    let first = metric(&trainer.step(&batch).unwrap().metrics, "loss");
    let mut last = first;
    for _ in 0..80 {
        last = metric(&trainer.step(&batch).unwrap().metrics, "loss");
    }
    assert!(first > 2.0 && last < 0.3, "{first} -> {last}");
}
