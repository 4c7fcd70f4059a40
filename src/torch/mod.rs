//! The boundary to libtorch: failures, threads, devices.
//!
//! In: closures that use tensors. Out: their result, or one error line where libtorch panicked. tch's plain
//! methods panic on failure; [`guard`] at each public entry point turns that into an [`Error`], so the code
//! between may use them freely.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use tch::Device;

use crate::{Error, Result};

pub mod shim;
mod speed;

pub use speed::{speed, together};

thread_local! {
    /// How many guards are open on this thread.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs `f`; a panic inside becomes an error at `place`, silently.
///
/// # Errors
/// What `f` returns, a [`Kind::Model`](crate::error::Kind) error with the first line of libtorch's message
/// where a tensor operation failed, and an internal error for any other panic.
pub fn guard<T>(place: &str, f: impl FnOnce() -> Result<T>) -> Result<T> {
    install_hook();
    let grad_enabled = grad_mode();
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    // A value that was half changed when the panic struck is dropped by the caller together with its error.
    let result = catch_unwind(AssertUnwindSafe(f));
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    result.unwrap_or_else(|payload| {
        // `tch::no_grad` does not restore the mode when its closure panics.
        set_grad_mode(grad_enabled);
        Err(panic_error(place, payload.as_ref()))
    })
}

/// Panics on threads that are inside a guard are reported as errors, not printed. All others go on to the hook
/// that was there before.
fn install_hook() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) == 0 {
                previous(info);
            }
        }));
    });
}

/// Whether operations of this thread extend the graph.
pub(crate) fn grad_mode() -> bool {
    let enabled = set_grad_mode(true);
    set_grad_mode(enabled);
    enabled
}

/// Runs `f` with a graph, wherever it is called; for backward passes, which run without.
pub(crate) fn with_grad<T>(f: impl FnOnce() -> T) -> T {
    let before = set_grad_mode(true);
    let value = f();
    set_grad_mode(before);
    value
}

/// Sets this thread's gradient mode and returns the previous one.
fn set_grad_mode(enabled: bool) -> bool {
    // SAFETY: sets a thread-local flag of libtorch.
    unsafe { torch_sys::at_grad_set_enabled(i32::from(enabled)) != 0 }
}

fn panic_error(place: &str, payload: &(dyn Any + Send)) -> Error {
    let text = match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(text), _) => text.as_str(),
        (None, Some(text)) => text,
        (None, None) => "panic without a message",
    };
    // tch unwraps its errors: `called `Result::unwrap()` on an `Err` value: Torch("first line\nsecond line")`.
    match text.split_once("Torch(\"") {
        Some((_, message)) => {
            let first = message.split("\\n").next().unwrap_or(message);
            let first = first.lines().next().unwrap_or(first).trim_end_matches("\")");
            Error::model(place, first.replace("\\\"", "\"").replace("\\'", "'"))
        }
        None => Error::internal(place, text.lines().next().unwrap_or(text)),
    }
}

/// Makes the calling thread compute alone: one intra-op thread, denormals flushed. For worker threads, which
/// share the cores among themselves; libtorch's thread count is also the default of threads started later.
pub fn single_thread() {
    tch::set_num_threads(1);
    shim::flush_denormals(true);
}

/// The device by its name: `cpu`, `cuda` (the first GPU) or `auto` (the GPU if there is one).
///
/// The program is linked against libtorch's CPU half. Its CUDA half is loaded here, before the first tensor is
/// made, from the library path (`LD_LIBRARY_PATH`).
///
/// # Errors
/// A configuration error for an unknown name, and for `cuda` where the library or a GPU is missing.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(if load_cuda().is_ok() && tch::Cuda::is_available() { Device::Cuda(0) } else { Device::Cpu }),
        "cuda" => {
            load_cuda().map_err(|cause| {
                Error::config("device", format!("cuda is asked for, but libtorch_cuda.so cannot be loaded ({cause}); put the lib folder of a CUDA libtorch on LD_LIBRARY_PATH, or set device to cpu"))
            })?;
            if tch::Cuda::is_available() {
                Ok(Device::Cuda(0))
            } else {
                Err(Error::config(
                    "device",
                    "cuda is asked for, but libtorch finds no GPU; check the driver, or set device to cpu",
                ))
            }
        }
        other => Err(Error::config("device", format!("`{other}` is not one of cpu, cuda, auto"))),
    }
}

/// Loads libtorch's CUDA half into the process, with its symbols visible to the CPU half.
fn load_cuda() -> std::result::Result<(), String> {
    // SAFETY: both strings are NUL-terminated; the handle is kept for the life of the process.
    unsafe {
        if !libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return Ok(());
        }
        let reason = libc::dlerror();
        if reason.is_null() {
            return Err("no reason given".into());
        }
        Err(std::ffi::CStr::from_ptr(reason).to_string_lossy().into_owned())
    }
}
