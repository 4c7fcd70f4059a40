//! A wall clock that jumps, for the program only.
//!
//! In: `clock.c` and a C compiler. Out: variables for a command. Time namespaces move only the monotonic clock, so the
//! calls that read the wall clock are replaced in the process itself.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("clock.c");

/// The compiled replacement.
pub struct Clock {
    library: PathBuf,
}

impl Clock {
    /// Compiles it into `folder`; says why not when that is impossible.
    pub fn build(folder: &Path) -> Result<Clock, String> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        std::fs::write(&source, SOURCE).map_err(|e| e.to_string())?;
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source);
        let output = command.output().map_err(|e| format!("cc: {e}"))?;
        if !output.status.success() {
            return Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ")));
        }
        Ok(Clock { library })
    }

    /// The variables under which a process lives with jumps of up to `range` seconds.
    pub fn variables(&self, seed: u64, range: u64) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".into(), self.library.display().to_string()),
            ("CLOCK_SEED".into(), (seed % 1_000_000).to_string()),
            ("CLOCK_RANGE".into(), range.to_string()),
        ]
    }
}
