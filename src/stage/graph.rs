//! Stages and how they hang together.
//!
//! In: stages in any order. Out: a [`Graph`] in which every stage comes after those that make its inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Job, Known};
use crate::store::{Artifact, Kind, Lineage, check_name};
use crate::{Error, Result};

/// What a stage does: reads its job's inputs and writes its outputs.
pub type Run = Arc<dyn Fn(Arc<Job>) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// What a stage would find known if it ran: reads its job's inputs and writes nothing.
pub type Preview = Arc<dyn Fn(Arc<Job>) -> BoxFuture<'static, Result<Option<Known>>> + Send + Sync>;

/// One step of the pipeline.
#[derive(Clone)]
pub struct Stage {
    /// Its name, unique in the graph.
    pub name: String,
    /// The tables and models it reads.
    pub inputs: Vec<Artifact>,
    /// The tables and models it makes, at least one.
    pub outputs: Vec<Artifact>,
    /// What decides its bytes besides its inputs. `stage` is set by [`Stage::new`]; `inputs` and `models` may name
    /// what is not in the store (a data file, a base model) with its hash, and the runner adds the rest.
    pub recipe: Lineage,
    /// What it does.
    pub run: Run,
    /// What it would find known, for a stage that takes rows from earlier versions.
    pub preview: Option<Preview>,
}

impl Stage {
    /// A stage.
    pub fn new<F>(
        name: impl Into<String>,
        inputs: Vec<Artifact>,
        outputs: Vec<Artifact>,
        recipe: Lineage,
        run: impl Fn(Arc<Job>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let name = name.into();
        let recipe = Lineage { stage: name.clone(), ..recipe };
        Stage { name, inputs, outputs, recipe, run: Arc::new(move |job| run(job).boxed()), preview: None }
    }

    /// The stage with a way to say beforehand how many of its rows are known.
    pub fn with_preview<F>(self, preview: impl Fn(Arc<Job>) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Option<Known>>> + Send + 'static,
    {
        Stage { preview: Some(Arc::new(move |job| preview(job).boxed())), ..self }
    }
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage")
            .field("name", &self.name)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish()
    }
}

/// Stages in an order in which they can run.
#[derive(Debug, Clone)]
pub struct Graph {
    stages: Vec<Stage>,
    /// Which stages make what.
    makers: BTreeMap<Artifact, Vec<usize>>,
}

impl Graph {
    /// Orders the stages; those that do not depend on each other keep the order given.
    ///
    /// # Errors
    /// A configuration error for two stages of one name, a stage without outputs, a model that two stages make, a
    /// name that cannot be used, or stages that wait for each other.
    pub fn new(stages: Vec<Stage>) -> Result<Self> {
        let mut names = BTreeSet::new();
        for stage in &stages {
            check_name("stage", &stage.name)?;
            if !names.insert(stage.name.as_str()) {
                return Err(Error::config(format!("stage {}", stage.name), "is there twice; give one another name"));
            }
            if stage.outputs.is_empty() {
                return Err(Error::config(format!("stage {}", stage.name), "makes nothing; name its outputs"));
            }
            for artifact in stage.outputs.iter().chain(&stage.inputs) {
                check_name("name", &artifact.name)?;
            }
        }
        let ordered = order(stages)?;
        let makers = makers(&ordered);
        for (artifact, by) in &makers {
            if let (Kind::Model, [first, second, ..]) = (artifact.kind, by.as_slice()) {
                let (first, second) = (&ordered[*first].name, &ordered[*second].name);
                return Err(Error::config(
                    artifact,
                    format!("both stage {first} and stage {second} make it; rename one"),
                ));
            }
        }
        Ok(Graph { stages: ordered, makers })
    }

    /// The stages, each after those it needs.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// The stages that make `artifact`, as indices into [`Graph::stages`].
    pub(super) fn makers(&self, artifact: &Artifact) -> &[usize] {
        self.makers.get(artifact).map_or(&[], Vec::as_slice)
    }

    /// The stages named, with everything they need, in order; all stages when none is named.
    ///
    /// # Errors
    /// A configuration error for a name that no stage has.
    pub(super) fn select(&self, names: &[String]) -> Result<BTreeSet<usize>> {
        if names.is_empty() {
            return Ok((0..self.stages.len()).collect());
        }
        let mut selected = BTreeSet::new();
        let mut open = names.iter().map(|name| self.index(name)).collect::<Result<Vec<_>>>()?;
        while let Some(index) = open.pop() {
            if selected.insert(index) {
                open.extend(self.stages[index].inputs.iter().flat_map(|input| self.makers(input)));
            }
        }
        Ok(selected)
    }

    /// Where the stage of that name is.
    ///
    /// # Errors
    /// A configuration error that lists the stages there are.
    pub(super) fn index(&self, name: &str) -> Result<usize> {
        self.stages.iter().position(|stage| stage.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.stages.iter().map(|stage| stage.name.as_str()).collect();
            Error::config(format!("stage {name}"), format!("there is no such stage; there are {}", known.join(", ")))
        })
    }
}

fn makers(stages: &[Stage]) -> BTreeMap<Artifact, Vec<usize>> {
    let mut makers: BTreeMap<Artifact, Vec<usize>> = BTreeMap::new();
    for (index, stage) in stages.iter().enumerate() {
        for output in &stage.outputs {
            makers.entry(output.clone()).or_default().push(index);
        }
    }
    makers
}

/// Takes, again and again, the first stage whose inputs are all made.
fn order(stages: Vec<Stage>) -> Result<Vec<Stage>> {
    let mut waiting = stages;
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let unmade: BTreeSet<&Artifact> = waiting.iter().flat_map(|stage| &stage.outputs).collect();
        let ready = waiting.iter().position(|stage| stage.inputs.iter().all(|input| !unmade.contains(input)));
        let Some(ready) = ready else {
            let names: Vec<&str> = waiting.iter().map(|stage| stage.name.as_str()).collect();
            return Err(Error::config("stages", format!("{} wait for each other's results", names.join(", "))));
        };
        ordered.push(waiting.remove(ready));
    }
    Ok(ordered)
}
