//! The file of `-o`, which appears when it is whole.

use std::fs::File;
use std::io::{Result as IoResult, Write};
use std::path::Path;

use crate::{Error, Result};

/// A file that is being written: under another name in the same folder, unless it is a device or a pipe.
pub(super) enum Target<'a> {
    Whole { path: &'a Path, file: tempfile::NamedTempFile },
    Device { path: &'a Path, file: File },
}

impl<'a> Target<'a> {
    pub(super) fn open(path: &'a Path) -> Result<Self> {
        let bad = |e: std::io::Error| Error::store(path.display(), "cannot be written").because(e);
        match path.metadata() {
            Ok(found) if found.is_dir() => Err(Error::store(path.display(), "is a folder; give a file")),
            Ok(found) if !found.is_file() => {
                Ok(Target::Device { path, file: File::options().write(true).open(path).map_err(bad)? })
            }
            _ => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let mut builder = tempfile::Builder::new();
                builder.prefix(".salmon-sql-");
                #[cfg(unix)]
                builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
                Ok(Target::Whole { path, file: builder.tempfile_in(folder).map_err(bad)? })
            }
        }
    }

    /// Gives the file its name.
    pub(super) fn keep(mut self) -> Result<()> {
        let done = self.flush();
        match self {
            Target::Whole { path, file } => {
                let done = done.and_then(|()| file.persist(path).map_err(|e| e.error));
                done.map(drop).map_err(|e| Error::store(path.display(), "cannot be written").because(e))
            }
            Target::Device { path, .. } => {
                done.map_err(|e| Error::store(path.display(), "cannot be written").because(e))
            }
        }
    }
}

impl Write for Target<'_> {
    fn write(&mut self, bytes: &[u8]) -> IoResult<usize> {
        match self {
            Target::Whole { file, .. } => file.write(bytes),
            Target::Device { file, .. } => file.write(bytes),
        }
    }

    fn flush(&mut self) -> IoResult<()> {
        match self {
            Target::Whole { file, .. } => file.flush(),
            Target::Device { file, .. } => file.flush(),
        }
    }
}
