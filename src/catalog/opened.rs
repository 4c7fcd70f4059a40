//! A run opened to ask one of its models.
//!
//! In: a run's URL and a model's name. Out: a session in which that model answers, with the templates it was trained
//! with (from its lineage), the run's principles (from their table) and the run's tokenizer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::prelude::SessionContext;
use tch::{Device, Kind};

use crate::config::{self, Config, Dtype};
use crate::pipeline::{Base, Setup};
use crate::principle::{Library, Templates};
use crate::query::{self, Models, Params, SessionOptions};
use crate::store::{self, Artifact, Current, Kind as ArtifactKind, Manifest, Remote, Store};
use crate::{Error, Result, world};

/// The object of a run that holds the configuration of its last execution, with absolute paths.
pub(crate) const CONFIG: &str = "config.toml";

/// A run and the configuration of its last execution.
pub(crate) struct OpenRun {
    pub(crate) store: Store,
    current: Current,
    pub(crate) config: Config,
    url: String,
}

/// A model of a run.
pub(crate) struct Found {
    /// What it was trained with.
    pub(crate) setup: Arc<Setup>,
    /// The folder of the base model.
    pub(crate) base: PathBuf,
    /// The model's own folder.
    pub(crate) folder: PathBuf,
}

/// The configuration that a run keeps; `None` for a run of an older salmon.
pub(crate) async fn stored_config(store: &Store) -> Result<Option<Config>> {
    let Some(bytes) = store.get(CONFIG).await? else { return Ok(None) };
    let place = format!("{store}/{CONFIG}");
    let text = std::str::from_utf8(&bytes).map_err(|e| Error::store(&place, "is not text").because(e))?;
    config::parse(&place, text, &[]).map(Some)
}

impl OpenRun {
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let store = Store::open_existing(url).await?;
        let config = stored_config(&store).await?.ok_or_else(|| {
            Error::store(&store, format!("holds no {CONFIG}; `salmon run` writes it, bring the run up to date with it"))
        })?;
        let current = Current::load(&store).await?;
        Ok(OpenRun { store, current, config, url: url.to_string() })
    }

    /// Whether the run has this model.
    pub(crate) fn has(&self, model: &str) -> bool {
        self.current.versions(&Artifact::model(model)).next().is_some()
    }

    /// The manifest of a model's current version.
    pub(crate) async fn model(&self, name: &str) -> Result<Manifest> {
        let found = self.current.manifests(&self.store, &Artifact::model(name)).await?.into_iter().next();
        found.ok_or_else(|| {
            let models = self.current.all().filter(|(artifact, _, _)| artifact.kind == ArtifactKind::Model);
            let known: Vec<&str> = models.map(|(artifact, _, _)| artifact.name.as_str()).collect();
            let known =
                if known.is_empty() { "it has none yet".into() } else { format!("it has {}", known.join(", ")) };
            Error::config(format!("model {name}"), format!("is not in {}; {known}", self.store))
        })
    }

    /// The principles as the run's table holds them.
    pub(crate) async fn library(&self) -> Result<Library> {
        let ctx = super::session(&self.url).await?;
        let rows = query::sql(&ctx, "select * from principles", &Params::new()).await?.collect().await?;
        Library::stored(&rows)
    }

    /// A session in which the model of `manifest` answers to `name`.
    pub(crate) async fn session(&self, manifest: &Manifest, name: &str) -> Result<SessionContext> {
        let Found { setup, base, folder } = self.find(Some(manifest)).await?;
        let models = Arc::new(Models::new());
        setup.register(&models, name, &base, &folder);
        query::session(models, Arc::clone(&setup.templates), &SessionOptions::default())
    }

    /// Where the model of `manifest` lies, and what it was trained with; without a manifest, the base model.
    pub(crate) async fn find(&self, manifest: Option<&Manifest>) -> Result<Found> {
        let (library, templates) = match manifest {
            Some(manifest) => self.templates(manifest)?,
            None => (Library::default(), Templates::load(None, &Library::default())?),
        };
        let cache = store::cache_folder().join("models");
        let base = self.base(&cache).await?;
        let folder = match manifest {
            Some(manifest) => store::fetch(&self.store, manifest, &cache).await?,
            None => base.clone(),
        };
        let kind = match self.config.model.dtype {
            Dtype::Float32 => Kind::Float,
            Dtype::Bfloat16 => Kind::BFloat16,
        };
        let setup = Arc::new(Setup {
            config: self.config.clone(),
            library,
            templates: Arc::new(templates),
            // Nothing is fingerprinted here.
            base: Base::Folder { path: base.clone(), hash: String::new() },
            device: Device::Cpu,
            kind,
            workers: self.config.model.workers,
            folder: PathBuf::new(),
            fetched: Default::default(),
        });
        Ok(Found { setup, base, folder })
    }

    /// The names of the models that the run has, `base` included.
    pub(crate) fn names(&self) -> Vec<String> {
        let models = self.current.all().filter(|(artifact, _, _)| artifact.kind == ArtifactKind::Model);
        let mut names: Vec<String> = models.map(|(artifact, _, _)| artifact.name.clone()).collect();
        names.push("base".into());
        names.sort();
        names.dedup();
        names
    }

    /// The manifest of a model, `None` for a base that the run did not make.
    pub(crate) async fn made(&self, name: &str) -> Result<Option<Manifest>> {
        if name == "base" && !self.has("base") { Ok(None) } else { self.model(name).await.map(Some) }
    }

    /// The templates that the run's models and judgments were made with.
    pub(crate) async fn all_templates(&self) -> Result<Templates> {
        let mut texts = BTreeMap::new();
        let models = self.current.all().map(|(artifact, _, _)| artifact);
        for artifact in models.filter(|artifact| artifact.kind == ArtifactKind::Model || artifact.name == "judgments") {
            for manifest in self.current.manifests(&self.store, artifact).await? {
                texts.extend(manifest.lineage.templates);
            }
        }
        let alone = |text: &String| !text.contains("rules") && !text.contains("exemplars");
        match self.load_templates(&texts) {
            // The files of rules and exemplars may be gone; the other templates do without them.
            Err(_) if !texts.values().all(alone) => {
                texts.retain(|_, text| alone(text));
                Ok(self.load_templates(&texts)?.1)
            }
            loaded => Ok(loaded?.1),
        }
    }

    /// The folder of the base model, fetched where it lies elsewhere.
    pub(crate) async fn base_folder(&self) -> Result<PathBuf> {
        self.base(&store::cache_folder().join("models")).await
    }

    /// The templates of the model's lineage: what it was trained with, whatever became of the files since.
    fn templates(&self, manifest: &Manifest) -> Result<(Library, Templates)> {
        self.load_templates(&manifest.lineage.templates)
    }

    fn load_templates(&self, texts: &BTreeMap<String, String>) -> Result<(Library, Templates)> {
        // Only a template that shows rules or exemplars needs the files they stand in.
        let library = if texts.values().any(|text| text.contains("rules") || text.contains("exemplars")) {
            Library::load(Path::new("/"), &self.config.principles.files)?
        } else {
            Library::default()
        };
        let bad = |e: std::io::Error| Error::store(std::env::temp_dir().display(), "cannot be written").because(e);
        let folder = tempfile::tempdir().map_err(bad)?;
        for (name, text) in texts {
            std::fs::write(folder.path().join(format!("{name}.jinja")), text).map_err(bad)?;
        }
        let templates = Templates::load(Some(folder.path()), &library)?;
        Ok((library, templates))
    }

    async fn base(&self, cache: &Path) -> Result<PathBuf> {
        match self.config.model.base.as_str() {
            "pocket" => world::base::folder(),
            "pretrain" => store::fetch(&self.store, &self.model("base").await?, cache).await,
            url if store::is_url(url) => Remote::folder(url).await?.fetch().await,
            path => Ok(PathBuf::from(path)),
        }
    }
}

/// The template of a model that gives rewards. A policy knows the reward model's, but does not read it.
pub(crate) fn reward_template(manifest: &Manifest) -> Option<&str> {
    match text(manifest, "chat_template") {
        Some(_) => None,
        None => text(manifest, "reward_template").or(text(manifest, "rubric_template")),
    }
}

/// A text parameter of a model's lineage.
pub(crate) fn text<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a str> {
    manifest.lineage.parameters.get(name)?.as_str()
}

/// A whole-number parameter of a model's lineage.
pub(crate) fn whole(manifest: &Manifest, name: &str) -> Option<i64> {
    manifest.lineage.parameters.get(name)?.as_i64()
}

/// A parameter of a model's lineage that is a number.
pub(crate) fn real(manifest: &Manifest, name: &str) -> Option<f64> {
    manifest.lineage.parameters.get(name)?.as_f64()
}

/// A parameter of a model's lineage that is a list of texts.
pub(crate) fn texts(manifest: &Manifest, name: &str) -> Option<Vec<String>> {
    let items = manifest.lineage.parameters.get(name)?.as_array()?;
    Some(items.iter().filter_map(|item| item.as_str().map(str::to_string)).collect())
}
