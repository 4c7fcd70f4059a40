//! A real S3 server in a process of its own (`examples/s3_server.rs`), and commands that know it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The one key pair that the server accepts.
pub(crate) const KEY: &str = "AKIATESTTESTTEST";
pub(crate) const SECRET: &str = "hunter2-do-not-show-this";

/// A server with a folder of its own; both go when it is dropped.
pub(crate) struct S3 {
    process: Child,
    /// `http://127.0.0.1:<port>`
    pub(crate) endpoint: String,
    /// Buckets are the folders in it.
    pub(crate) folder: tempfile::TempDir,
}

impl S3 {
    /// Starts a server with a bucket named `bucket`.
    pub(crate) fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        let mut process = Command::new(program())
            .arg(folder.path())
            .arg("--with-stdin")
            .args(options)
            .envs([("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", SECRET)])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        assert!(endpoint.starts_with("http://"), "the server did not start: {endpoint}");
        S3 { process, endpoint: endpoint.trim().to_string(), folder }
    }

    /// The variables with which a command reaches the server.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", KEY.into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
        ]
    }

    /// `command` with these variables, and none of the AWS settings of whoever runs the tests.
    pub(crate) fn reach(&self, mut command: Command) -> Command {
        clean(&mut command, self.folder.path());
        command.envs(self.environment());
        command
    }

    /// The file of an object.
    pub(crate) fn object(&self, key: &str) -> PathBuf {
        self.folder.path().join("bucket").join(key)
    }

    /// Parts of uploads that were neither completed nor aborted.
    pub(crate) fn orphans(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(".upload_id-")).collect()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Takes the AWS settings of this machine away from a command; `home` holds no profiles.
pub(crate) fn clean(command: &mut Command, home: &Path) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    let place = |name: &str| home.join(".aws").join(name);
    command.env("AWS_CONFIG_FILE", place("config")).env("AWS_SHARED_CREDENTIALS_FILE", place("credentials"));
    command.env("AWS_EC2_METADATA_DISABLED", "true");
}

/// Runs the test `name` of this binary in a process of its own with these variables: those of this process are
/// everybody's.
pub(crate) fn again(name: &str, environment: &[(&str, String)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs(environment.iter().map(|(name, value)| (*name, value.as_str()))).output().unwrap()
}

/// The server, which cargo builds beside the tests; a run of this one test binary alone builds it here.
fn program() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let built = tests.parent().and_then(Path::parent).unwrap().join("examples/s3_server");
    if !built.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--example", "s3_server"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells the tests of this package; build scripts of others that read it would run again, and
        // everything above them be compiled again.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
        let cargo = cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH").status().unwrap();
        assert!(cargo.success() && built.exists(), "{} cannot be built", built.display());
    }
    built
}
