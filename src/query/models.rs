//! The models a statement may name, loaded when a statement first needs them.
//!
//! In: a name and a closure that loads the model. Out: the same `Arc<dyn Inference>` for every session, operator
//! and partition that asks for the name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::judge::Judging;
use crate::engine::Inference;
use crate::model::Tokenizer;
use crate::{Error, Result};

type Load<T> = Box<dyn Fn() -> Result<T> + Send + Sync>;

/// A value that is made by the first caller who needs it. A failure is told to that caller and not kept: the next
/// one tries again.
struct Lazy<T> {
    load: Load<T>,
    value: Mutex<Option<T>>,
}

impl<T: Clone> Lazy<T> {
    fn new(load: impl Fn() -> Result<T> + Send + Sync + 'static) -> Self {
        Lazy { load: Box::new(load), value: Mutex::new(None) }
    }

    fn loaded(&self) -> Option<T> {
        // While another thread loads, this one need not wait to know that the value is not there yet.
        self.value.try_lock().ok().and_then(|value| value.clone())
    }

    fn get(&self) -> Result<T> {
        let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        match &*value {
            Some(value) => Ok(value.clone()),
            None => Ok(value.insert((self.load)()?).clone()),
        }
    }
}

struct Entry {
    model: Lazy<Arc<dyn Inference>>,
    tokenizer: Option<Lazy<Arc<Tokenizer>>>,
    /// How `judge` asks it.
    judging: Option<Arc<Judging>>,
}

/// The catalog: name -> model.
#[derive(Default)]
pub struct Models {
    entries: RwLock<BTreeMap<String, Arc<Entry>>>,
}

impl Models {
    /// An empty catalog.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a model, or replaces the one of that name. `load` runs when a statement first asks the model, on a
    /// thread that may block.
    pub fn register(
        &self,
        name: impl Into<String>,
        load: impl Fn() -> Result<Arc<dyn Inference>> + Send + Sync + 'static,
    ) {
        self.put(name.into(), Entry { model: Lazy::new(load), tokenizer: None, judging: None });
    }

    /// The same, with a way to get the tokenizer alone, so that `count_tokens` and `truncate_tokens` do not load
    /// the model.
    pub fn register_with_tokenizer(
        &self,
        name: impl Into<String>,
        load: impl Fn() -> Result<Arc<dyn Inference>> + Send + Sync + 'static,
        tokenizer: impl Fn() -> Result<Arc<Tokenizer>> + Send + Sync + 'static,
    ) {
        self.put(name.into(), Entry { model: Lazy::new(load), tokenizer: Some(Lazy::new(tokenizer)), judging: None });
    }

    /// The same for a model that `judge` may ask too.
    pub fn register_with_judging(
        &self,
        name: impl Into<String>,
        load: impl Fn() -> Result<Arc<dyn Inference>> + Send + Sync + 'static,
        tokenizer: impl Fn() -> Result<Arc<Tokenizer>> + Send + Sync + 'static,
        judging: Arc<Judging>,
    ) {
        let (model, tokenizer) = (Lazy::new(load), Some(Lazy::new(tokenizer)));
        self.put(name.into(), Entry { model, tokenizer, judging: Some(judging) });
    }

    /// How `judge` asks that model.
    pub(super) fn judging(&self, name: &str) -> Result<Arc<Judging>> {
        let none = || Error::query("judge", format!("nothing says how to ask model {name}; it takes a model of a run"));
        self.entry(name, "judge")?.judging.clone().ok_or_else(none)
    }

    /// Takes a model out of the catalog; running statements keep theirs.
    pub fn remove(&self, name: &str) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// The names in the catalog, sorted.
    pub fn names(&self) -> Vec<String> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The model of that name; loading it does not block the asynchronous caller's thread.
    pub async fn get(&self, name: &str) -> Result<Arc<dyn Inference>> {
        let entry = self.entry(name, "model")?;
        if let Some(model) = entry.model.loaded() {
            return Ok(model);
        }
        match tokio::task::spawn_blocking(move || entry.model.get()).await {
            Ok(model) => model,
            Err(error) => Err(Error::internal(format!("model {name}"), "loading it failed").because(error)),
        }
    }

    /// The tokenizer of that model; blocks while it loads.
    pub fn tokenizer(&self, name: &str) -> Result<Arc<Tokenizer>> {
        let entry = self.entry(name, "model")?;
        match &entry.tokenizer {
            Some(tokenizer) if entry.model.loaded().is_none() => tokenizer.get(),
            _ => Ok(Arc::clone(entry.model.get()?.tokenizer())),
        }
    }

    /// An error that lists the known names, where `name` is not one of them; `place` is the function that asks.
    pub(super) fn check(&self, name: &str, place: &str) -> Result<()> {
        self.entry(name, place).map(|_| ())
    }

    fn entry(&self, name: &str, place: &str) -> Result<Arc<Entry>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(name).cloned().ok_or_else(|| {
            let known = entries.keys().cloned().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "there are none".to_string() } else { format!("known are {known}") };
            Error::query(place, format!("no model is named {name}; {known}"))
        })
    }

    fn put(&self, name: String, entry: Entry) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(entry));
    }
}

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Models").field(&self.names()).finish()
    }
}
