//! A run looked at from outside: is it whole, and how does it differ from another one.
//!
//! In: the store of a run, or of two. Out: problems, a line each ([`verify`]); differences of stages, principles, rows
//! and figures ([`diff`]); what a version was made from ([`ancestry`]). Nothing is written.

mod accounts;
mod ancestry;
mod diff;
mod hash;
mod model;
mod sample;
mod verify;

pub use ancestry::{Node, ancestry, dot};
pub(crate) use ancestry::{files, principles};
pub use diff::{Difference, Figure, PrincipleChange, StageChange, TableChange, diff};
pub use sample::Row;
pub use verify::{Problem, Verified, verify};
