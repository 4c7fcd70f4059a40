//! Once more, where nobody knows what became of a request.
//!
//! In: a request that may be made twice. Out: its answer. `object_store` repeats what a server refuses for the moment and
//! most of what the network loses, but not a conditional put or a deletion whose answer was lost, for others those may not
//! be harmless, nor a listing or a "there is no such object" that was cut short. Here all of that may be repeated, for
//! objects have the same bytes whoever writes them.

use std::time::{Duration, Instant};

use object_store::client::{HttpError, HttpErrorKind};

use crate::Result;

/// Pauses before the second, third, ... attempt, in milliseconds.
const PAUSES: [u64; 5] = [100, 300, 1000, 2000, 4000];
/// After this time nothing is tried again.
const LONGEST: Duration = Duration::from_secs(60);

/// Does `work`, and again while its answers get lost.
///
/// # Errors
/// What `work` said last.
pub(super) async fn again<T, F>(work: impl Fn() -> F) -> object_store::Result<T>
where
    F: Future<Output = object_store::Result<T>>,
{
    let began = Instant::now();
    for pause in PAUSES {
        match work().await {
            Err(e) if lost(&e) && began.elapsed() < LONGEST => tracing::info!("asked again: {e}"),
            answer => return answer,
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    work().await
}

/// Whether the answer was lost on its way, and not a refusal or a server that cannot be reached.
fn lost(error: &object_store::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return !matches!(http.kind(), HttpErrorKind::Connect | HttpErrorKind::Request);
        }
        next = error.source();
    }
    false
}

/// Pauses while something that must be there is not, in milliseconds.
const WAITS: [u64; 4] = [100, 300, 800, 1600];

/// Reads what must be there, and again while it is not: a store or a cache in front of it that does not show at once
/// what was written shows it a moment later. A disk or memory (`at_once`) has no such moment.
///
/// # Errors
/// What `read` says.
pub(super) async fn expected<T, F>(at_once: bool, read: impl Fn() -> F) -> Result<Option<T>>
where
    F: Future<Output = Result<Option<T>>>,
{
    for pause in WAITS {
        let found = read().await?;
        if found.is_some() || at_once {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    read().await
}

/// The same for a reader that hears of a missing object by an error.
///
/// # Errors
/// What `read` says.
pub(super) async fn shown<T, F>(read: impl Fn() -> F) -> object_store::Result<T>
where
    F: Future<Output = object_store::Result<T>>,
{
    for pause in WAITS {
        match read().await {
            Err(object_store::Error::NotFound { .. }) => {}
            answer => return answer,
        }
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    read().await
}
