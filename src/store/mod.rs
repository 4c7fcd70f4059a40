//! A run on disk, S3 or any object store: versions, manifests, Parquet.
//!
//! In: record-batch streams, model folders, and what they were made from. Out: immutable versions that any later
//! reader finds through one manifest each.
//!
//! ```text
//! <run>/tables/<name>/<fingerprint>/part-00000.parquet ...   rows
//!                                  /shards/00000.json ...    finished pieces of a long stage, while it runs
//!                                  /manifest.json            the commit
//! <run>/models/<name>/<fingerprint>/<files of a model folder>
//!                                  /checkpoints/step-...     while it trains
//!                                  /manifest.json            the commit
//! <run>/current/tables/<name>/<stage>.json                   which version the last configuration uses
//! <run>/runs/<time>-<stage>-<process>.json                   history
//! <run>/leases/<work>/00001.json                             who works on it, while it is worked on
//! ```
//!
//! A version's fingerprint is the hash of everything that decides its bytes ([`Lineage`]), so names and bytes of
//! files are the same whichever attempt wrote them: an attempt that dies leaves files that nothing names, and the
//! next one writes the same bytes under the same names. `manifest.json` is published last, with a conditional
//! put, and is the only thing readers trust. There is no rename, no append and no lock in this design, because
//! object stores have none of them; a lease only keeps two runners from doing the same work.

mod again;
mod cache;
mod checkpoint;
mod conform;
mod credentials;
mod current;
mod earlier;
mod fault;
mod folder;
pub mod gc;
mod history;
mod holder;
mod lease;
mod lineage;
mod manifest;
mod multipart;
mod name;
mod named;
mod object;
mod parquet;
mod place;
mod remote;
mod rows;
mod shards;
mod sql;
mod upload;

pub use checkpoint::Checkpoints;
pub use current::Current;
pub use earlier::{Earlier, earlier, versions_of};
pub use folder::{fetch, fetch_into, files_of, upload_file, upload_folder};
pub use gc::versions;
pub use history::{Made, Record, records, table as runs_table};
pub use holder::Holder;
pub use lease::{Claim, Found, Lease, bury_dead, leases};
pub use lineage::{Lineage, canonical};
pub use manifest::{ColumnEntry, Digest, FileEntry, Info, Manifest};
pub use name::{Artifact, Kind, Version, check_name};
pub use object::{Entry, Store};
pub use parquet::{Limits, TableSink};
pub use remote::{Remote, is_url, local, shown};
pub use rows::{part_facts, read_rows};
pub use shards::Shards;
pub use sql::{bind, bind_as, bind_batches, bind_bucket, bind_store, current_table, provider, versions_table};
pub use upload::Upload;

/// The work of removing what nothing names; see [`Claim`].
pub const GC: &str = "gc";

/// The first characters of a hash, enough to tell versions apart by eye.
pub fn short(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}

/// `$XDG_CACHE_HOME/salmon`, or `.cache/salmon` in the home folder: what can be fetched or made again.
pub fn cache_folder() -> std::path::PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(std::path::PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("salmon")
}
