//! Rank, scale and place of an adapter, in all the forms that PEFT has for them.
//!
//! In: a table of `salmon.toml`, or `adapter_config.json`. Out: for every projection of every layer whether it has
//! an adapter, of what rank and scale.

use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::config::ModelConfig;
use super::lora::Lora;
use super::weights::{PROJECTIONS, Projection, module, projections};
use crate::{Error, Result};

/// LoRA for every trained model; the keys have PEFT's names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rank.
    pub r: i64,
    /// Scale: the update is multiplied by `lora_alpha / r`.
    pub lora_alpha: f64,
    /// The projections that get an adapter: names (the ends of module paths), `"all-linear"` for all, or a regular
    /// expression for whole paths such as `model.layers.0.self_attn.q_proj`.
    pub target_modules: Targets,
    /// Only these layers, counted from 0; all where it is empty.
    pub layers_to_transform: Vec<usize>,
    /// Multiply by `lora_alpha / sqrt(r)` instead (rsLoRA, arXiv 2312.03732).
    pub use_rslora: bool,
    /// Other ranks for some modules: a regular expression for the end of their path, and the rank.
    pub rank_pattern: Patterns<i64>,
    /// The same for `lora_alpha`.
    pub alpha_pattern: Patterns<f64>,
    /// Modules that are trained as a whole and saved with the adapter: `embed_tokens`, `lm_head`. (The linear reward
    /// head always is.)
    pub modules_to_save: Vec<String>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        LoraConfig {
            r: 64,
            lora_alpha: 16.0,
            target_modules: Targets::Pattern(ALL_LINEAR.into()),
            layers_to_transform: vec![],
            use_rslora: false,
            rank_pattern: Patterns::default(),
            alpha_pattern: Patterns::default(),
            modules_to_save: vec![],
        }
    }
}

/// Which modules get an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Targets {
    /// Modules whose path is one of these, or ends in a dot and one of these.
    Names(Vec<String>),
    /// `all-linear`, or a regular expression for the whole path.
    Pattern(String),
}

impl<S: Into<String>> From<Vec<S>> for Targets {
    fn from(names: Vec<S>) -> Self {
        Targets::Names(names.into_iter().map(Into::into).collect())
    }
}

/// What stands for every projection.
pub(super) const ALL_LINEAR: &str = "all-linear";
/// Modules that have weights and are no projections.
const OTHERS: [&str; 2] = ["model.embed_tokens", "lm_head"];

/// Values by regular expressions; the first that fits a module counts, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Patterns<T>(pub Vec<(String, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Patterns(Vec::new())
    }
}

impl<T: Serialize> Serialize for Patterns<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(pattern, value)| (pattern, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patterns<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Entries<T> {
            type Value = Patterns<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of patterns and values")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Patterns(entries))
            }
        }
        deserializer.deserialize_map(Entries(std::marker::PhantomData))
    }
}

/// The adapter of one projection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    /// Rank.
    pub(crate) r: i64,
    /// What `B A` is multiplied by.
    pub(crate) scale: f64,
}

impl LoraConfig {
    /// How many numbers an adapter for `model` has, without the reward head.
    ///
    /// # Errors
    /// A configuration error where the targets do not fit the model.
    pub fn parameters(&self, model: &ModelConfig) -> Result<u64> {
        let mut count = 0;
        Lora::build(self, model, |_, shape| {
            count += shape.iter().product::<i64>() as u64;
            Ok(Tensor::new())
        })?;
        Ok(count)
    }

    /// Whether a module is trained as a whole.
    pub(crate) fn saves(&self, module: &str) -> bool {
        self.modules_to_save.iter().any(|saved| saved == module)
    }

    /// Checks the values; `place` names the file or table they came from.
    ///
    /// # Errors
    /// A configuration error that names the key and its value.
    pub fn check(&self, place: &str) -> Result<()> {
        let wrong = |problem: String| Err(Error::config(place, problem));
        let rank = |key: &str, r: i64| {
            if r < 1 { wrong(format!("{key}: {r} is not a positive rank")) } else { Ok(()) }
        };
        let alpha = |key: &str, alpha: f64| match alpha.is_finite() && alpha > 0.0 {
            true => Ok(()),
            false => wrong(format!("{key}: {alpha} is not a positive number")),
        };
        rank("r", self.r)?;
        alpha("lora_alpha", self.lora_alpha)?;
        self.rank_pattern.0.iter().try_for_each(|(pattern, r)| rank(&format!("rank_pattern.{pattern}"), *r))?;
        self.alpha_pattern.0.iter().try_for_each(|(pattern, a)| alpha(&format!("alpha_pattern.{pattern}"), *a))?;
        for module in &self.modules_to_save {
            if !["embed_tokens", "lm_head"].contains(&module.as_str()) {
                let known = "only embed_tokens, lm_head and the reward head are";
                return wrong(format!("modules_to_save: {module:?} is not supported; {known}"));
            }
        }
        let known = PROJECTIONS.join(", ");
        match &self.target_modules {
            Targets::Names(names) if names.is_empty() => {
                wrong(format!("target_modules: empty; choose some of {known}"))
            }
            Targets::Names(names) => {
                let end = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
                match names.iter().find(|name| !PROJECTIONS.contains(&end(name).as_str())) {
                    Some(name) if ["lm_head", "embed_tokens"].contains(&end(name).as_str()) => wrong(format!(
                        "target_modules: LoRA on {name:?} is not supported; train it as a whole with modules_to_save"
                    )),
                    Some(name) => wrong(format!("target_modules: {name:?} is not one of {known}")),
                    None => Ok(()),
                }
            }
            Targets::Pattern(_) if !self.layers_to_transform.is_empty() => {
                wrong("layers_to_transform: is for a list of target_modules; put the layers into the pattern".into())
            }
            Targets::Pattern(_) => Ok(()),
        }
    }

    /// Checks that the targets are projections of a model.
    ///
    /// # Errors
    /// A configuration error that names the target and what the model has.
    pub fn check_model(&self, model: &ModelConfig) -> Result<()> {
        self.places(model).map(drop)
    }

    /// For every layer and projection the adapter it gets, if any.
    ///
    /// # Errors
    /// A configuration error for a pattern that is none, for names that are no projections of this architecture, and
    /// for targets that fit no module.
    pub(crate) fn places(&self, model: &ModelConfig) -> Result<Vec<Vec<Option<Place>>>> {
        let known = projections(model);
        if let Targets::Names(names) = &self.target_modules {
            let end = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
            if let Some(name) = names.iter().find(|name| !known.iter().any(|p| p.name == end(name))) {
                let family = model.architecture.family.causal;
                let known = known.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
                let problem = format!("target_modules: {name:?} is no projection of {family}; it has {known}");
                return Err(Error::config("LoRA adapter", problem));
            }
        }
        let targets = Matcher::new(&self.target_modules)?;
        if let Some(other) = OTHERS.into_iter().find(|path| targets.fits(path)) {
            let problem = format!("target_modules: LoRA on {other} is not supported; narrow the pattern");
            return Err(Error::config("LoRA adapter", problem));
        }
        let (ranks, alphas) = (ends("rank_pattern", &self.rank_pattern)?, ends("alpha_pattern", &self.alpha_pattern)?);
        let mut any = false;
        let layers = model.num_hidden_layers;
        let mut out = Vec::with_capacity(layers);
        for l in 0..layers {
            let chosen = self.layers_to_transform.is_empty() || self.layers_to_transform.contains(&l);
            let place = |projection: &Projection| {
                let path = module(l, projection);
                if !chosen || !targets.fits(&path) {
                    return None;
                }
                any = true;
                let r = first(&ranks, &path).unwrap_or(self.r);
                let alpha = first(&alphas, &path).unwrap_or(self.lora_alpha);
                let divisor = if self.use_rslora { (r as f64).sqrt() } else { r as f64 };
                Some(Place { r, scale: alpha / divisor })
            };
            out.push(known.iter().map(place).collect());
        }
        if any {
            return Ok(out);
        }
        let problem = format!(
            "target_modules and layers_to_transform fit no module; there are {layers} layers with {}",
            known.iter().map(|p| module(0, p)).collect::<Vec<_>>().join(", ")
        );
        Err(Error::config("LoRA adapter", problem))
    }
}

/// [`Targets`], ready to compare.
enum Matcher<'a> {
    Names(&'a [String]),
    All,
    Pattern(Regex),
}

impl<'a> Matcher<'a> {
    fn new(targets: &'a Targets) -> Result<Self> {
        Ok(match targets {
            Targets::Names(names) => Matcher::Names(names),
            Targets::Pattern(text) if text == ALL_LINEAR => Matcher::All,
            Targets::Pattern(text) => Matcher::Pattern(compiled("target_modules", text, &format!(r"\A(?:{text})\z"))?),
        })
    }

    fn fits(&self, path: &str) -> bool {
        match self {
            Matcher::Names(names) => names.iter().any(|name| {
                path.strip_suffix(name.as_str()).is_some_and(|front| front.is_empty() || front.ends_with('.'))
            }),
            Matcher::All => !OTHERS.contains(&path),
            Matcher::Pattern(regex) => matches(regex, path),
        }
    }
}

fn compiled(key: &str, text: &str, whole: &str) -> Result<Regex> {
    Regex::new(whole)
        .map_err(|e| Error::config("LoRA adapter", format!("{key}: {text:?} is no regular expression")).because(e))
}

/// A pattern that gives up on backtracking fits nothing.
fn matches(regex: &Regex, path: &str) -> bool {
    regex.is_match(path).unwrap_or(false)
}

/// Patterns for the ends of paths, as peft compares them.
fn ends<T: Copy>(key: &str, patterns: &Patterns<T>) -> Result<Vec<(Regex, T)>> {
    let end = |(text, value): &(String, T)| Ok((compiled(key, text, &format!(r"\A(?:.*\.)?(?:{text})\z"))?, *value));
    patterns.0.iter().map(end).collect()
}

fn first<T: Copy>(patterns: &[(Regex, T)], path: &str) -> Option<T> {
    patterns.iter().find(|(regex, _)| matches(regex, path)).map(|(_, value)| *value)
}
