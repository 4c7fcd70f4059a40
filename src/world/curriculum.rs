//! What the base model reads when: stages with gates, shares by what is not learned yet, the learning rate.
//!
//! In: the losses of the steps so far. Out: the share of every kind of document in the next step, what to emphasise
//! in it, the learning rate, and whether the run is over.
//!
//! Circuits form in an order: matching words and knowing facts, then verdicts on short answers, then on full ones,
//! then the layouts of the pipeline. A stage ends when the verdict losses of every principle that it lists are low;
//! the mean over principles would hide the one that is not learned.

use serde::{Deserialize, Serialize};

use super::check::PRINCIPLES;
use super::corpus::{Emphasis, Kind};

/// Length of a run, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Most tokens in all.
    pub max_tokens: u64,
    /// Tokens of the final phase, which begins when all gates are passed, or when no more tokens are left.
    pub final_tokens: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options { max_tokens: 36_000_000, final_tokens: 10_000_000 }
    }
}

/// One stage.
struct Stage {
    /// Shares before they are adapted.
    shares: &'static [(Kind, f64)],
    /// All must open.
    gates: &'static [Gate],
}

/// Opens when the loss of every listed principle is below a value.
struct Gate {
    kind: Kind,
    principles: &'static [usize],
    below: f64,
}

const ALL: &[usize] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
const HONEST: &[usize] = &[3];
const SPECIFIC: &[usize] = &[5];
const SHORT: &[usize] = &[5, 3, 8];

#[rustfmt::skip]
const STAGES: [Stage; 4] = [
    Stage {
        shares: &[
            (Kind::Match, 0.28), (Kind::FactCheck, 0.20), (Kind::Facts, 0.08), (Kind::Lines, 0.30),
            (Kind::Glossary, 0.08), (Kind::Chat, 0.06),
        ],
        gates: &[
            Gate { kind: Kind::Match, principles: SPECIFIC, below: 0.25 },
            Gate { kind: Kind::FactCheck, principles: HONEST, below: 0.25 },
            Gate { kind: Kind::Lines, principles: SHORT, below: 0.25 },
            Gate { kind: Kind::Glossary, principles: ALL, below: 0.40 },
        ],
    },
    Stage {
        shares: &[
            (Kind::Lines, 0.06), (Kind::Facts, 0.05), (Kind::Glossary, 0.06), (Kind::Chat, 0.04),
            (Kind::ShortName, 0.26), (Kind::ShortDefinition, 0.16), (Kind::FullName, 0.22), (Kind::FullDefinition, 0.15),
        ],
        gates: &[Gate { kind: Kind::ShortName, principles: SHORT, below: 0.20 }],
    },
    Stage {
        shares: &[
            (Kind::Lines, 0.02), (Kind::Glossary, 0.02), (Kind::Facts, 0.05), (Kind::Chat, 0.05),
            (Kind::ShortName, 0.06), (Kind::ShortDefinition, 0.13), (Kind::ShortPair, 0.34), (Kind::FullName, 0.13),
            (Kind::FullDefinition, 0.12), (Kind::FullPair, 0.08),
        ],
        gates: &[
            Gate { kind: Kind::ShortPair, principles: SHORT, below: 0.25 },
            Gate { kind: Kind::ShortDefinition, principles: SHORT, below: 0.35 },
        ],
    },
    Stage {
        shares: &[
            (Kind::Glossary, 0.02), (Kind::Facts, 0.05), (Kind::Chat, 0.04), (Kind::Rules, 0.04),
            (Kind::ShortDefinition, 0.04), (Kind::ShortReward, 0.07), (Kind::ShortPair, 0.08), (Kind::ShortJudge, 0.10),
            (Kind::FullName, 0.08), (Kind::FullDefinition, 0.14), (Kind::FullReward, 0.08), (Kind::FullPair, 0.26),
        ],
        gates: &[
            Gate { kind: Kind::FullName, principles: ALL, below: 0.38 },
            Gate { kind: Kind::FullDefinition, principles: ALL, below: 0.40 },
            Gate { kind: Kind::FullPair, principles: ALL, below: 0.35 },
        ],
    },
];

/// The shares of the final phase, first and second half.
#[rustfmt::skip]
const FINAL: [&[(Kind, f64)]; 2] = [
    &[
        (Kind::Glossary, 0.02), (Kind::Facts, 0.05), (Kind::ShortReward, 0.05), (Kind::ShortJudge, 0.05),
        (Kind::FullDefinition, 0.06), (Kind::FullReward, 0.18), (Kind::FullPair, 0.10), (Kind::FullJudge, 0.22),
        (Kind::Chat, 0.12), (Kind::Rules, 0.15),
    ],
    &[
        (Kind::Glossary, 0.01), (Kind::Facts, 0.05), (Kind::ShortReward, 0.03), (Kind::ShortJudge, 0.03),
        (Kind::FullDefinition, 0.02), (Kind::FullReward, 0.20), (Kind::FullPair, 0.04), (Kind::FullJudge, 0.22),
        (Kind::Chat, 0.18), (Kind::Rules, 0.22),
    ],
];

/// Peak learning rate.
const LEARNING_RATE: f64 = 3e-3;
/// Steps until it is reached.
const WARM_UP: f64 = 100.0;
/// From this part of the final phase on the learning rate falls along a cosine ...
const DECAY_FROM: f64 = 0.35;
/// ... to this part of the peak.
const LEAST: f64 = 0.02;
/// Steps that a stage has at least.
const STAGE_STEPS: usize = 100;
/// Gates are looked at every so many steps.
const GATE_STEPS: usize = 10;
/// Answers of nearly one length cannot be told apart, so Concise may keep a higher loss.
const CONCISE_SLACK: f64 = 1.6;
/// Decay of the running means: verdicts, prose.
const DECAY: [f64; 2] = [0.93, 0.95];
/// Where the loss of prose stands beside those of the principles.
const PROSE: usize = PRINCIPLES.len();

/// Where a run stands.
#[derive(Debug, Clone)]
pub struct Curriculum {
    options: Options,
    stage: usize,
    /// The step at which the stage began.
    since: usize,
    tokens: u64,
    /// Tokens at which the final phase began.
    last: Option<u64>,
    /// Running mean of the loss by kind and principle, and of prose; `None` before the first.
    losses: [[Option<f64>; PROSE + 1]; Kind::ALL.len()],
}

/// A [`Curriculum`] in whole numbers.
#[derive(Debug, Serialize, Deserialize)]
pub struct CurriculumState {
    options: Options,
    stage: usize,
    since: usize,
    tokens: u64,
    last: Option<u64>,
    /// Bits of the means.
    losses: Vec<(Kind, [Option<u64>; PROSE + 1])>,
}

impl Curriculum {
    /// A run at its beginning.
    pub fn new(options: Options) -> Self {
        Curriculum { options, stage: 0, since: 0, tokens: 0, last: None, losses: [[None; PROSE + 1]; Kind::ALL.len()] }
    }

    /// Moves to the next stage where the one that runs is done; `step` steps are behind. True where it moved.
    pub fn advance(&mut self, step: usize) -> bool {
        let before = self.stage;
        if self.stage < STAGES.len() {
            let due = step >= self.since + STAGE_STEPS && step.is_multiple_of(GATE_STEPS);
            if due && self.closed() == 0 {
                self.stage += 1;
                self.since = step;
            } else if self.tokens > self.options.max_tokens.saturating_sub(self.options.final_tokens) {
                self.stage = STAGES.len();
            }
        }
        if self.stage == STAGES.len() && self.last.is_none() {
            self.last = Some(self.tokens);
        }
        self.stage != before
    }

    /// How far the final phase is, from 0 to 1; 0 before it.
    fn fraction(&self) -> f64 {
        match (self.last, self.end()) {
            (Some(start), Some(end)) => (self.tokens - start) as f64 / end.saturating_sub(start).max(1) as f64,
            _ => 0.0,
        }
    }

    /// Tokens at the end of the run, known from the final phase on.
    pub fn end(&self) -> Option<u64> {
        self.last.map(|start| (start + self.options.final_tokens).min(self.options.max_tokens))
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        self.end().is_some_and(|end| self.tokens >= end)
    }

    /// Tokens so far.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The stage, from 0 to 3, or 4 for the final phase.
    pub fn stage(&self) -> usize {
        self.stage
    }

    /// How many losses still keep the stage's gates closed.
    pub fn closed(&self) -> usize {
        let Some(stage) = STAGES.get(self.stage) else { return 0 };
        let is_high = |gate: &Gate, p: usize| {
            let slack =
                if gate.principles.len() == ALL.len() && PRINCIPLES[p] == "Concise" { CONCISE_SLACK } else { 1.0 };
            self.loss(gate.kind, p).is_none_or(|loss| loss > gate.below * slack)
        };
        stage.gates.iter().map(|gate| gate.principles.iter().filter(|&&p| is_high(gate, p)).count()).sum()
    }

    /// The kinds of the next step and their shares (their sum is not 1). Kinds with a principle that is not learned
    /// have more.
    pub fn shares(&self) -> Vec<(Kind, f64)> {
        let shares = match STAGES.get(self.stage) {
            Some(stage) => stage.shares,
            None => FINAL[usize::from(self.fraction() >= 0.5)],
        };
        let adapt = |&(kind, share): &(Kind, f64)| {
            let worst = (0..PROSE).filter_map(|p| self.loss(kind, p)).reduce(f64::max);
            (kind, share * worst.map_or(1.0, |worst| 0.35 + (worst / 0.6).min(1.0)))
        };
        shares.iter().map(adapt).collect()
    }

    /// What the documents of a kind are made to differ in: most in what is not learned.
    pub fn emphasis(&self, kind: Kind) -> Emphasis {
        let weight = |p: usize| 0.1 + self.loss(kind, p).unwrap_or(0.5).min(1.0);
        Emphasis { principles: std::array::from_fn(weight), bridging: self.stage + 1 >= STAGES.len() }
    }

    /// The learning rate of the next step; `step` steps are behind.
    pub fn learning_rate(&self, step: usize) -> f64 {
        let warm_up = ((step + 1) as f64 / WARM_UP).min(1.0);
        let along = (self.fraction() - DECAY_FROM) / (1.0 - DECAY_FROM);
        let fall = if along < 0.0 { 1.0 } else { (0.5 * (1.0 + (std::f64::consts::PI * along).cos())).max(LEAST) };
        LEARNING_RATE * warm_up * fall
    }

    /// Counts the tokens of a step.
    pub fn count(&mut self, tokens: u64) {
        self.tokens += tokens;
    }

    /// Takes in the mean loss of a micro-batch, in nats per token: of the verdicts on a principle, or of prose.
    pub fn record(&mut self, kind: Kind, principle: Option<usize>, loss: f64) {
        let decay = DECAY[usize::from(principle.is_none())];
        let mean = &mut self.losses[kind as usize][principle.unwrap_or(PROSE)];
        *mean = Some(mean.map_or(loss, |mean| decay * mean + (1.0 - decay) * loss));
    }

    /// The running mean of the verdicts on a principle.
    pub fn loss(&self, kind: Kind, principle: usize) -> Option<f64> {
        self.losses[kind as usize][principle]
    }

    /// The running mean of prose.
    pub fn prose_loss(&self, kind: Kind) -> Option<f64> {
        self.losses[kind as usize][PROSE]
    }

    /// Everything, for a checkpoint.
    pub fn state(&self) -> CurriculumState {
        let bits = |kind: Kind| (kind, self.losses[kind as usize].map(|loss| loss.map(f64::to_bits)));
        CurriculumState {
            options: self.options,
            stage: self.stage,
            since: self.since,
            tokens: self.tokens,
            last: self.last,
            losses: Kind::ALL.into_iter().map(bits).collect(),
        }
    }

    /// The run as it stood at `state`.
    pub fn restore(state: &CurriculumState) -> Self {
        let mut curriculum = Curriculum::new(state.options);
        (curriculum.stage, curriculum.since) = (state.stage, state.since);
        (curriculum.tokens, curriculum.last) = (state.tokens, state.last);
        for (kind, bits) in &state.losses {
            curriculum.losses[*kind as usize] = bits.map(|bits| bits.map(f64::from_bits));
        }
        curriculum
    }
}
