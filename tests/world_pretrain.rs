//! Pre-training: the curriculum's gates and shares, and runs that stop and go on with the same bytes.

use std::path::Path;

use salmon::draw;
use salmon::error::Kind as Failure;
use salmon::model::{Network, Tokenizer};
use salmon::world::check::PRINCIPLES;
use salmon::world::corpus::Kind;
use salmon::world::curriculum::{Curriculum, Options};
use salmon::world::pretrain::pretrain;
use salmon::{Error, Result};

/// About twelve steps; the final phase is forced after the fourth or fifth.
const SHORT: Options = Options { max_tokens: 26_000, final_tokens: 16_000 };

/// What a run did: the metrics of its steps, as bits.
type Log = Vec<Vec<(&'static str, u64)>>;

/// Runs until `stop` steps are done (to the end without), then saves to `save`.
fn run(workers: usize, resume: Option<&Path>, stop: Option<(usize, &Path)>) -> (Result<Network>, Log) {
    let mut log = Vec::new();
    let network = pretrain(draw::key(9, &["pretrain"]), workers, SHORT, resume, |run, metrics| {
        log.push(metrics.iter().map(|(name, value)| (*name, value.to_bits())).collect());
        match stop {
            Some((steps, folder)) if run.steps_done() == steps => {
                run.save(folder)?;
                Err(Error::interrupted("test"))
            }
            _ => Ok(()),
        }
    });
    (network, log)
}

fn weights(network: &Network, folder: &Path) -> Vec<u8> {
    network.save(folder).unwrap();
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

#[test]
fn the_same_key_gives_the_same_bytes_with_any_number_of_workers_and_stops() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name);
    let (whole, log) = run(1, None, None);
    let whole = weights(&whole.unwrap(), &path("whole"));
    assert!(log.len() > 8, "{} steps", log.len());
    let stages: Vec<f64> =
        log.iter().map(|step| f64::from_bits(step.iter().find(|(name, _)| *name == "stage").unwrap().1)).collect();
    assert!(stages[0] == 0.0 && stages.ends_with(&[4.0; 4]), "{stages:?}");

    let (twice, again) = run(2, None, None);
    assert!(weights(&twice.unwrap(), &path("twice")) == whole, "two workers give other bytes");
    assert_eq!(again, log);

    // Stopped in the first stage and in the final phase.
    let checkpoint = path("checkpoint");
    let (stopped, mut parts) = run(1, None, Some((3, &checkpoint)));
    assert_eq!(stopped.unwrap_err().kind(), Failure::Interrupted);
    let (stopped, part) = run(2, Some(&checkpoint), Some((7, &checkpoint)));
    assert_eq!(stopped.unwrap_err().kind(), Failure::Interrupted);
    parts.extend(part);
    let left: Vec<_> = std::fs::read_dir(&checkpoint).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let (done, part) = run(1, Some(&checkpoint), None);
    parts.extend(part);
    assert!(weights(&done.unwrap(), &path("done")) == whole, "stopping changed the bytes");
    assert_eq!(parts, log);

    // The folder is one like the shipped one.
    let folder = path("whole");
    let network = Network::open(&folder, tch::Kind::Float, tch::Device::Cpu).unwrap();
    assert_eq!(network.config().torch_dtype, tch::Kind::BFloat16);
    assert_eq!(Tokenizer::open(&folder).unwrap().bos(), Some(1));
    let same =
        std::fs::read(folder.join("tokenizer.json")).unwrap() == include_bytes!("../datasets/pocket/tokenizer.json");
    assert!(same, "another tokenizer");
}

#[test]
fn a_folder_without_a_checkpoint_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (network, log) = run(1, Some(folder.path()), None);
    assert_eq!(network.unwrap_err().kind(), Failure::Store);
    assert!(log.is_empty());
}

/// Reports one loss for every principle of a kind until the running mean is there.
fn teach(curriculum: &mut Curriculum, kind: Kind, loss: f64) {
    for p in 0..PRINCIPLES.len() {
        (0..400).for_each(|_| curriculum.record(kind, Some(p), loss));
    }
}

#[test]
fn every_gate_waits_for_every_principle() {
    let mut curriculum = Curriculum::new(Options::default());
    let gated: [&[Kind]; 4] = [
        &[Kind::Match, Kind::FactCheck, Kind::Lines, Kind::Glossary],
        &[Kind::ShortName],
        &[Kind::ShortPair, Kind::ShortDefinition],
        &[Kind::FullName, Kind::FullDefinition, Kind::FullPair],
    ];
    let mut step = 0;
    for (stage, kinds) in gated.into_iter().enumerate() {
        step += 100;
        assert!(!curriculum.advance(step), "nothing was learned yet");
        for kind in kinds {
            assert!(!curriculum.advance(step));
            teach(&mut curriculum, *kind, 0.1);
        }
        assert_eq!((curriculum.stage(), curriculum.closed()), (stage, 0));
        // Specific is in every gate's list but that of the fact check.
        let last = kinds[kinds.len() - 1];
        (0..100).for_each(|_| curriculum.record(last, Some(5), 0.7));
        assert!(curriculum.closed() == 1 && !curriculum.advance(step));
        (0..100).for_each(|_| curriculum.record(last, Some(5), 0.1));
        assert!(!curriculum.advance(step + 1), "gates are looked at every ten steps");
        assert!(curriculum.advance(step), "stage {stage}");
        assert!(!curriculum.advance(step + 90), "a stage has at least 100 steps");
    }
    assert_eq!((curriculum.stage(), curriculum.end()), (4, Some(10_000_000)));
    curriculum.count(9_999_999);
    assert!(!curriculum.is_over());
    curriculum.count(1);
    assert!(curriculum.is_over());
}

#[test]
fn concise_may_be_a_little_worse() {
    let mut curriculum = Curriculum::new(Options::default());
    for kind in [Kind::Match, Kind::FactCheck, Kind::Lines, Kind::Glossary] {
        teach(&mut curriculum, kind, 0.1);
    }
    (0..400).for_each(|_| curriculum.record(Kind::Glossary, Some(0), 0.6));
    assert_eq!(curriculum.closed(), 0);
    (0..400).for_each(|_| curriculum.record(Kind::Glossary, Some(1), 0.6));
    assert_eq!(curriculum.closed(), 1);
}

#[test]
fn shares_and_emphasis_follow_what_is_not_learned() {
    let mut curriculum = Curriculum::new(Options::default());
    let share = |c: &Curriculum, kind| c.shares().into_iter().find(|(k, _)| *k == kind).unwrap().1;
    assert_eq!(share(&curriculum, Kind::Match), 0.28);
    teach(&mut curriculum, Kind::Match, 0.06);
    assert!((share(&curriculum, Kind::Match) - 0.28 * 0.45).abs() < 1e-9);
    (0..400).for_each(|_| curriculum.record(Kind::Match, Some(5), 3.0));
    assert!((share(&curriculum, Kind::Match) - 0.28 * 1.35).abs() < 1e-9, "the worst principle counts, up to a limit");
    let emphasis = curriculum.emphasis(Kind::Match);
    assert!((emphasis.principles[5] - 1.1).abs() < 1e-9 && (emphasis.principles[4] - 0.16).abs() < 1e-9);
    assert!(!emphasis.bridging);
    assert_eq!(curriculum.emphasis(Kind::FullPair).principles[0], 0.6, "half a nat before the first verdict");
}

#[test]
fn the_learning_rate_rises_stays_and_falls() {
    let mut curriculum = Curriculum::new(Options { max_tokens: 1000, final_tokens: 1000 });
    assert!((curriculum.learning_rate(0) - 3e-5).abs() < 1e-12);
    assert_eq!(curriculum.learning_rate(99), 3e-3);
    curriculum.count(1);
    assert!(curriculum.advance(200), "no tokens are left for the stages");
    let rates: Vec<f64> = (0..10)
        .map(|_| {
            let rate = curriculum.learning_rate(200);
            curriculum.count(100);
            rate
        })
        .collect();
    assert_eq!(rates[..4], [3e-3; 4]);
    assert!(rates[4..].is_sorted_by(|a, b| a > b), "{rates:?}");
    assert!(curriculum.is_over());
    assert_eq!(curriculum.learning_rate(200), 3e-3 * 0.02);
}
