//! The Rust side of `shim.cpp`: what tch does not expose.
//!
//! In: tensors. Out: their in-place update, a norm, gradients taken out. Every call returns libtorch's message as an
//! error instead of panicking.

use std::ffi::{CStr, c_char, c_int, c_void};

use tch::Tensor;

use crate::{Error, Result};

type Pointer = *mut c_void;

unsafe extern "C" {
    fn salmon_shim_error() -> *const c_char;
    fn salmon_fused_adamw(
        count: usize,
        params: *const Pointer,
        grads: *const Pointer,
        first: *const Pointer,
        second: *const Pointer,
        steps: *const Pointer,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
    ) -> c_int;
    fn salmon_global_norm(count: usize, tensors: *const Pointer) -> f64;
    fn salmon_scale(count: usize, tensors: *const Pointer, factor: f64) -> c_int;
    fn salmon_add(count: usize, into: *const Pointer, from: *const Pointer) -> c_int;
    fn salmon_take_grad(leaf: Pointer) -> Pointer;
    fn salmon_flush_denormals(on: c_int) -> c_int;
    fn salmon_with_backward(
        input: Pointer,
        output: Pointer,
        state: Pointer,
        call: extern "C" fn(Pointer, Pointer, *mut c_char, usize) -> Pointer,
        drop: extern "C" fn(Pointer),
    ) -> c_int;
    fn salmon_backward(output: Pointer, gradient: Pointer) -> c_int;
    fn mkl_serv_intel_cpu_true() -> c_int;
}

/// Keeps the MKL switch of `shim.cpp` in every program that links this crate: libtorch only sees it there.
#[used]
static KEEP_MKL_SWITCH: unsafe extern "C" fn() -> c_int = mkl_serv_intel_cpu_true;

fn pointers(tensors: &[Tensor]) -> Vec<Pointer> {
    tensors.iter().map(|t| t.as_ptr() as Pointer).collect()
}

/// The message of the shim call that just failed on this thread.
fn failure() -> Error {
    // SAFETY: the shim returns a NUL-terminated thread-local string that stays valid until its next failure.
    let text = unsafe { CStr::from_ptr(salmon_shim_error()) }.to_string_lossy();
    Error::model("libtorch", text.lines().next().unwrap_or("unknown error"))
}

fn check(ok: bool) -> Result<()> {
    if ok { Ok(()) } else { Err(failure()) }
}

/// The numbers of one AdamW step, in libtorch's meaning (decoupled weight decay).
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
}

/// One fused AdamW step over tensors of equal count and pairwise equal shapes: parameters, gradients, first and
/// second moments, and the 0-d f32 step counts *after* counting this step. Updates all but `grads` in place.
pub fn fused_adamw(
    params: &[Tensor],
    grads: &[Tensor],
    first: &[Tensor],
    second: &[Tensor],
    steps: &[Tensor],
    step: AdamWStep,
) -> Result<()> {
    let count = params.len();
    if [grads.len(), first.len(), second.len(), steps.len()].iter().any(|&n| n != count) {
        return Err(Error::internal("AdamW", "parameters, gradients and moments differ in number"));
    }
    let lists = [params, grads, first, second, steps].map(pointers);
    // SAFETY: five arrays of `count` live at::Tensor pointers each.
    check(
        0 == unsafe {
            salmon_fused_adamw(
                count,
                lists[0].as_ptr(),
                lists[1].as_ptr(),
                lists[2].as_ptr(),
                lists[3].as_ptr(),
                lists[4].as_ptr(),
                step.lr,
                step.beta1,
                step.beta2,
                step.weight_decay,
                step.eps,
            )
        },
    )
}

/// The Euclidean norm over all elements of all tensors. Not a number where any element is not.
pub fn global_norm(tensors: &[Tensor]) -> Result<f64> {
    let list = pointers(tensors);
    // SAFETY: `list` holds live at::Tensor pointers.
    let norm = unsafe { salmon_global_norm(list.len(), list.as_ptr()) };
    check(norm >= 0.0 || norm.is_nan())?;
    Ok(norm)
}

/// Multiplies all tensors by `factor` in place.
pub fn scale(tensors: &[Tensor], factor: f64) -> Result<()> {
    let list = pointers(tensors);
    // SAFETY: `list` holds live at::Tensor pointers.
    check(0 == unsafe { salmon_scale(list.len(), list.as_ptr(), factor) })
}

/// Adds `from` to `into` in place, pairwise.
pub fn add(into: &[Tensor], from: &[Tensor]) -> Result<()> {
    if into.len() != from.len() {
        return Err(Error::internal("gradients", "two lists differ in number"));
    }
    let (into, from) = (pointers(into), pointers(from));
    // SAFETY: two arrays of equally many live at::Tensor pointers.
    check(0 == unsafe { salmon_add(into.len(), into.as_ptr(), from.as_ptr()) })
}

/// Takes the gradient out of a leaf, which has none afterwards. `None` where there was none.
pub fn take_grad(leaf: &Tensor) -> Result<Option<Tensor>> {
    // SAFETY: `leaf` is live; the shim hands over a tensor of its own.
    let taken = unsafe { salmon_take_grad(leaf.as_ptr() as Pointer) };
    check(!taken.is_null())?;
    // SAFETY: a pointer from `new at::Tensor` that nobody else owns.
    let taken = unsafe { Tensor::from_ptr(taken as *mut torch_sys::C_tensor) };
    Ok(taken.defined().then_some(taken))
}

/// Computes the gradient of an input from that of an output.
type Backward = Box<dyn Fn(&Tensor) -> Result<Tensor> + Send>;

/// `output`, which was computed from `input` without a graph, as a differentiable function of it: a backward pass
/// through it calls `backward` with the gradient of the output, without a graph, and takes what that gives as the
/// gradient of the input. `backward` is dropped after its pass, or with the graph.
///
/// # Errors
/// When libtorch cannot extend the graph. An error of `backward` fails the backward pass with its text.
pub fn with_backward(
    input: &Tensor,
    output: Tensor,
    backward: impl Fn(&Tensor) -> Result<Tensor> + Send + 'static,
) -> Result<Tensor> {
    let state: Box<Backward> = Box::new(Box::new(backward));
    let (input, pointer) = (input.as_ptr() as Pointer, output.as_ptr() as Pointer);
    // SAFETY: live tensors; the state is given away, and the shim ends it with `drop_backward`, once.
    check(
        0 == unsafe { salmon_with_backward(input, pointer, Box::into_raw(state).cast(), call_backward, drop_backward) },
    )?;
    Ok(output)
}

extern "C" fn call_backward(state: Pointer, gradient: Pointer, message: *mut c_char, room: usize) -> Pointer {
    // SAFETY: the state of `with_backward`, which lives until `drop_backward`; a tensor that the shim keeps alive.
    let (backward, gradient) = unsafe { (&*state.cast::<Backward>(), Tensor::clone_from_ptr(gradient.cast())) };
    match super::guard("backward pass", || backward(&gradient)) {
        Ok(tensor) => {
            let pointer = tensor.as_ptr() as Pointer;
            // The shim deletes it.
            std::mem::forget(tensor);
            pointer
        }
        Err(error) => {
            let text = error.to_string();
            let count = text.len().min(room.saturating_sub(1));
            // SAFETY: `message` has `room` bytes, which are zero behind what is written here.
            unsafe { std::ptr::copy_nonoverlapping(text.as_ptr().cast(), message, count) };
            std::ptr::null_mut()
        }
    }
}

extern "C" fn drop_backward(state: Pointer) {
    // SAFETY: made by `with_backward`, given back once.
    drop(unsafe { Box::from_raw(state.cast::<Backward>()) });
}

/// Backpropagates `gradient`, the gradient of `output`, to the leaves that `output` depends on.
///
/// # Errors
/// When libtorch cannot compute them.
pub fn backward(output: &Tensor, gradient: &Tensor) -> Result<()> {
    // SAFETY: live tensors.
    check(0 == unsafe { salmon_backward(output.as_ptr() as Pointer, gradient.as_ptr() as Pointer) })
}

/// Whether the calling thread treats denormal numbers as zero from now on; false where the processor cannot.
pub fn flush_denormals(on: bool) -> bool {
    // SAFETY: sets the floating-point mode of this thread only.
    unsafe { salmon_flush_denormals(c_int::from(on)) != 0 }
}
