//! From the URL a user types to an object store.
//!
//! In: a plain path, `file://`, `memory://`, `s3://`, `gs://` or `az://` URL, and the environment
//! (`AWS_*`, `GOOGLE_*`, `AZURE_*`). Out: a [`Place`]: the store of the whole bucket (or disk), the prefix of
//! the run in it, and a form of the URL that may be shown. Credentials come from the environment, and for S3 from
//! wherever the AWS tools would find them ([`credentials`]); never from the URL.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};
use url::Url;

use super::{credentials, fault};
use crate::{Error, Result};

/// How long one request may take before it is given up and retried, unless the environment says otherwise.
const REQUEST_TIMEOUT: &str = "60 seconds";
/// How long a connection may take.
const CONNECT_TIMEOUT: &str = "10 seconds";

/// Where a run lives.
pub(super) struct Place {
    /// The store of the whole bucket, container, disk or memory.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// The run's prefix in it.
    pub(super) base: Path,
    /// The run's URL as it may be shown: never with credentials.
    pub(super) shown: String,
    /// The URL under which a SQL session knows `objects`.
    pub(super) root: Url,
    /// The run's folder, when it is on this machine's disk.
    pub(super) folder: Option<PathBuf>,
}

/// Finds the place that `location` names. A local folder is created when `create` says so.
///
/// # Errors
/// A configuration error for a URL that is not understood or holds credentials, a store error for a path that
/// is a file or may not be created.
pub(super) fn find(location: &str, create: bool) -> Result<Place> {
    if location.trim().is_empty() {
        return Err(Error::config("run", "the run's URL is empty; give a folder or a URL like s3://bucket/run"));
    }
    let Some((scheme, _)) = location.split_once("://") else {
        return local(FsPath::new(location), location, create);
    };
    let url = Url::parse(location)
        .map_err(|e| Error::config(format!("{scheme}://..."), "is not a URL that can be read").because(e))?;
    let azure = matches!(scheme, "az" | "adl" | "azure" | "abfs" | "abfss");
    let shown = shown(&url, azure);
    // abfss://container@account.host/ puts the container, which is no secret, where others put a user.
    if url.password().is_some() || (!url.username().is_empty() && !azure) || url.query().is_some() {
        return Err(Error::config(
            shown,
            "the URL holds credentials or a query; leave them out and set them in the environment (AWS_*, GOOGLE_*, AZURE_*)",
        ));
    }
    match scheme {
        "file" => {
            let path =
                url.to_file_path().map_err(|()| Error::config(&shown, "is not a local path; use file:///path"))?;
            local(&path, &shown, create)
        }
        "memory" => memory(&url, shown),
        _ => remote(&url, scheme, shown),
    }
}

/// The URL without user, password, query and fragment.
fn shown(url: &Url, keep_user: bool) -> String {
    let mut clean = url.clone();
    clean.set_query(None);
    clean.set_fragment(None);
    let _ = clean.set_password(None);
    if !keep_user {
        let _ = clean.set_username("");
    }
    clean.as_str().trim_end_matches('/').to_string()
}

fn local(path: &FsPath, shown: &str, create: bool) -> Result<Place> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(Error::store(shown, "is a file; give a folder for the run")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(path).map_err(|e| fault::io(shown, "the run's folder cannot be created", &e))?;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::store(
                shown,
                "there is no such folder; check the path, or make a run with `salmon run`",
            ));
        }
        Err(e) => return Err(fault::io(shown, "the run's folder cannot be opened", &e)),
    }
    let folder = path.canonicalize().map_err(|e| fault::io(shown, "the run's folder cannot be opened", &e))?;
    let base = Path::from_absolute_path(&folder)
        .map_err(|e| Error::store(shown, "the path has characters that no store can hold").because(e))?;
    Ok(Place {
        objects: Arc::new(LocalFileSystem::new()),
        base,
        shown: shown.to_string(),
        root: parse_root("file:///")?,
        folder: Some(folder),
    })
}

/// A store that lives as long as its handles. Every call makes one of its own, with its own root in SQL.
fn memory(url: &Url, shown: String) -> Result<Place> {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let base = Path::from_url_path(url.path()).map_err(|e| Error::config(&shown, "is not a usable path").because(e))?;
    let root = parse_root(&format!("memory://{:x}", Arc::as_ptr(&objects).cast::<u8>() as usize))?;
    Ok(Place { objects, base, shown, root, folder: None })
}

fn remote(url: &Url, scheme: &str, shown: String) -> Result<Place> {
    let clean = |e: object_store::Error| {
        Error::config(&shown, "the store cannot be set up").because(fault::scrub(&e.to_string()))
    };
    let text = url.to_string();
    let retry = RetryConfig { max_retries: 8, retry_timeout: Duration::from_secs(120), ..RetryConfig::default() };
    // Each builder has a key type of its own; timeouts already set through the environment win.
    macro_rules! build {
        ($builder:expr, $key:path, $prefix:literal) => {{
            let mut builder = $builder.with_url(text).with_retry(retry);
            for (key, value) in
                [(ClientConfigKey::Timeout, REQUEST_TIMEOUT), (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT)]
            {
                let name = format!("{}_{}", $prefix, key.as_ref().to_ascii_uppercase());
                if std::env::var_os(name).is_none() {
                    builder = builder.with_config($key(key), value);
                }
            }
            Arc::new(builder.build().map_err(clean)?) as Arc<dyn ObjectStore>
        }};
    }
    let objects = match scheme {
        "s3" | "s3a" => {
            build!(credentials::configure(AmazonS3Builder::from_env())?, AmazonS3ConfigKey::Client, "AWS")
        }
        "gs" => build!(GoogleCloudStorageBuilder::from_env(), GoogleConfigKey::Client, "GOOGLE"),
        "az" | "adl" | "azure" | "abfs" | "abfss" => {
            build!(MicrosoftAzureBuilder::from_env(), AzureConfigKey::Client, "AZURE")
        }
        other => {
            return Err(Error::config(
                &shown,
                format!("{other}:// is not a store; use a path, file://, s3://, gs://, az:// or memory://"),
            ));
        }
    };
    let base = Path::from_url_path(url.path()).map_err(|e| Error::config(&shown, "is not a usable path").because(e))?;
    let host = url.host_str().unwrap_or_default();
    let root = parse_root(&format!("{scheme}://{host}"))?;
    // As people write it, without percent signs for spaces and letters.
    let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
    let shown = format!("{scheme}://{user}{host}/{base}").trim_end_matches('/').to_string();
    Ok(Place { objects, base, shown, root, folder: None })
}

fn parse_root(text: &str) -> Result<Url> {
    Url::parse(text).map_err(|e| Error::internal("store", format!("root {text} is not a URL")).because(e))
}
