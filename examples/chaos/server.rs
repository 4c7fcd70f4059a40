//! The S3 server behind the campaigns: `examples/s3_server.rs` in a process of its own.
//!
//! In: a folder. Out: its address; it checks signatures, and ends when this process does.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Failure;

/// The bucket that runs lie in.
pub const BUCKET: &str = "chaos";

/// The variables by which a client finds the server at `endpoint`.
pub fn variables(endpoint: &str) -> Vec<(String, String)> {
    let fixed = [
        ("AWS_ACCESS_KEY_ID", "chaos"),
        ("AWS_SECRET_ACCESS_KEY", "chaos-secret"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    fixed.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// A running server.
pub struct Server {
    child: Child,
    /// `http://host:port`.
    pub endpoint: String,
}

impl Server {
    /// Starts it on `folder`, which gets the bucket.
    pub fn start(program: &Path, folder: &Path) -> Result<Server, Failure> {
        std::fs::create_dir_all(folder.join(BUCKET))?;
        let mut command = Command::new(program);
        command.arg(folder).arg("--with-stdin").envs(variables(""));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}; build it: cargo build --example s3_server", program.display()))?;
        let mut endpoint = String::new();
        BufReader::new(child.stdout.take().ok_or("no stdout")?).read_line(&mut endpoint)?;
        let endpoint = endpoint.trim().to_string();
        let mut server = Server { child, endpoint };
        if !server.endpoint.starts_with("http://") {
            let _ = server.child.kill();
            return Err("the S3 server did not start".into());
        }
        Ok(server)
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.endpoint.trim_start_matches("http://").to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
