//! The place an export goes to.
//!
//! In: a folder or an object store's URL. Out: a scratch folder to write into, which becomes the export in one step
//! when everything is in it. On local disk the step is a rename; on an object store the files go up one by one,
//! `README.md` last, and what went up is deleted again when one of them fails.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::store::{Store, files_of, upload_file};
use crate::{Error, Result};

/// Every export has one; it is also what says that a folder is an export.
pub(super) const CARD: &str = "README.md";

/// A line of the card's front matter by which `--force` knows what it may replace.
const TAG: &str = "\n- salmon\n";

/// An export in the making; dropped before [`Target::commit`], it leaves nothing behind.
#[derive(Debug)]
pub struct Target {
    place: Place,
    scratch: TempDir,
    /// Whether an older export is in the way.
    replaces: bool,
}

#[derive(Debug)]
enum Place {
    Local(PathBuf),
    Remote(Store),
}

impl Target {
    /// Checks the place `out` (a path, `file://`, `s3://`, `gs://` or `az://`) before any work is done.
    ///
    /// # Errors
    /// A configuration error where something is there already and `force` is not given, or is given for what is
    /// not an export; a store error for a place that cannot be read or written.
    pub async fn open(out: &str, force: bool) -> Result<Self> {
        Target::at(place(out)?, out, force).await
    }

    /// The same for a store that is open.
    ///
    /// # Errors
    /// As [`Target::open`].
    pub async fn on(store: Store, force: bool) -> Result<Self> {
        let shown = store.to_string();
        Target::at(Place::Remote(store), &shown, force).await
    }

    async fn at(place: Place, out: &str, force: bool) -> Result<Self> {
        let bad = |e: std::io::Error| Error::store(out, "the scratch folder cannot be made here").because(e);
        let (taken, card) = place.look().await?;
        if taken && !force {
            return Err(Error::config(out, "is there already; choose another --out, or replace it with --force"));
        }
        if taken && !card.is_some_and(|card| card.contains(TAG)) {
            let problem =
                format!("is not an export (no {CARD} says so), so --force does not replace it; choose another");
            return Err(Error::config(out, problem + " --out"));
        }
        let mut scratch = tempfile::Builder::new();
        // A folder like any other under the user's umask, not a temporary one's private permissions.
        scratch.prefix(".salmon-export-").permissions(Permissions::from_mode(0o777));
        let scratch = match &place {
            // Beside the export, so that the last step is a rename.
            Place::Local(path) => {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                std::fs::create_dir_all(parent).map_err(bad)?;
                scratch.tempdir_in(parent).map_err(bad)?
            }
            Place::Remote(_) => scratch.tempdir().map_err(bad)?,
        };
        Ok(Target { place, scratch, replaces: taken })
    }

    /// Where to write.
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    /// Makes the scratch folder the export, in place of an older one.
    ///
    /// # Errors
    /// A store error; the place is then empty, or as it was.
    pub async fn commit(self) -> Result<()> {
        match self.place {
            Place::Local(path) => put(self.scratch, &path, self.replaces),
            Place::Remote(store) => upload(self.scratch.path(), &store, self.replaces).await,
        }
    }
}

fn place(out: &str) -> Result<Place> {
    match out.split_once("://") {
        None => Ok(Place::Local(PathBuf::from(out))),
        Some(("file", _)) => {
            let path = url::Url::parse(out).ok().and_then(|url| url.to_file_path().ok());
            path.map(Place::Local).ok_or_else(|| Error::config(out, "is not a local path; use file:///path"))
        }
        Some(_) => Store::open(out).map(Place::Remote),
    }
}

impl Place {
    /// Whether something is there, and the card of it.
    async fn look(&self) -> Result<(bool, Option<String>)> {
        match self {
            Place::Local(path) => match std::fs::read_dir(path) {
                Ok(mut entries) => Ok((entries.next().is_some(), std::fs::read_to_string(path.join(CARD)).ok())),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok((false, None)),
                Err(e) => Err(Error::config(path.display(), "is not a folder that can be read").because(e)),
            },
            Place::Remote(store) => {
                let card = store.get(CARD).await?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                Ok((!store.list("").await?.is_empty(), card))
            }
        }
    }
}

fn put(scratch: TempDir, path: &Path, replaces: bool) -> Result<()> {
    let bad = |e: std::io::Error| Error::store(path.display(), "the export cannot be put here").because(e);
    let mut old = None;
    if replaces {
        let parent = scratch.path().parent().unwrap_or(Path::new("."));
        let aside = tempfile::Builder::new().prefix(".salmon-export-").tempdir_in(parent).map_err(bad)?;
        std::fs::rename(path, aside.path().join("old")).map_err(bad)?;
        old = Some(aside);
    }
    if let Err(e) = std::fs::rename(scratch.path(), path) {
        // What was there stays there.
        if let Some(aside) = &old {
            std::fs::rename(aside.path().join("old"), path).map_err(bad)?;
        }
        return Err(bad(e));
    }
    // It has another name now; there is nothing left to remove.
    let _ = scratch.keep();
    Ok(())
}

async fn upload(folder: &Path, store: &Store, replaces: bool) -> Result<()> {
    if replaces {
        // The card goes first: what is left without one is no export.
        store.delete(CARD).await?;
        store.delete_below("").await?;
    }
    let mut files = files_of(folder)?;
    files.sort_by_key(|file| file == CARD);
    for file in files {
        if let Err(error) = upload_file(store, &file, &folder.join(&file)).await {
            // The first failure is the one to report.
            let _ = store.delete_below("").await;
            return Err(error);
        }
    }
    Ok(())
}
