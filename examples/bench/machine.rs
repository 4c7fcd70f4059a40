//! What the machine can do, and what this process takes of it.
//!
//! In: threads and a time. Out: bytes read and floating-point operations per second by all threads at once. The loops are
//! written as instructions, so that no compiler setting changes them.

use std::time::{Duration, Instant};

use salmon::torch::{speed, together};
use salmon::{Error, Result};
use serde_json::{Value, json};

/// Resident bytes.
pub(crate) fn memory() -> Result<Value> {
    let bad = || Error::internal("/proc/self/status", "has no VmRSS");
    let text = std::fs::read_to_string("/proc/self/status").map_err(|_| bad())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or_else(bad)?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().map_err(|_| bad())?;
    Ok(json!({"resident": kib * 1024}))
}

/// `read`: bytes per second; `gemm`: operations per second of libtorch's f32 products; `fma`: those of multiply-adds in
/// registers, where the processor has AVX2.
pub(crate) fn measure(threads: usize, seconds: f64) -> Result<Value> {
    let time = Duration::from_secs_f64(seconds);
    let gemm = speed(threads, time)?;
    let avx2 = cfg!(target_arch = "x86_64") && has_avx2();
    let (read, fma) = match avx2 {
        true => (Some(best_read(threads, time)?), Some(together(threads, || Ok(multiply_adds(time)))?)),
        false => (None, None),
    };
    Ok(json!({"read": read, "gemm": gemm, "fma": fma}))
}

/// The best of several sizes of memory per thread, all beyond the caches.
fn best_read(threads: usize, time: Duration) -> Result<f64> {
    let sizes = [64usize, 256, 512].map(|mib| mib << 20);
    let found = sizes.iter().map(|&bytes| together(threads, || Ok(read(bytes, time))));
    found.collect::<Result<Vec<f64>>>().map(|found| found.into_iter().fold(0.0, f64::max))
}

/// Bytes per second of one thread that reads `bytes` again and again.
fn read(bytes: usize, time: Duration) -> f64 {
    let memory = vec![1u8; bytes];
    let (start, mut done) = (Instant::now(), 0.0);
    while start.elapsed() < time {
        // SAFETY: `bytes` is a multiple of 256, and AVX2 is there.
        unsafe { read_once(memory.as_ptr(), bytes) };
        done += bytes as f64;
    }
    done / start.elapsed().as_secs_f64()
}

/// Floating-point operations per second of one thread.
fn multiply_adds(time: Duration) -> f64 {
    const TURNS: u64 = 100_000;
    let (start, mut done) = (Instant::now(), 0.0);
    while start.elapsed() < time {
        // SAFETY: AVX2 and FMA are there.
        unsafe { multiply_add(TURNS) };
        // 12 instructions of 8 lanes of 2 operations.
        done += (TURNS * 12 * 8 * 2) as f64;
    }
    done / start.elapsed().as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn read_once(from: *const u8, bytes: usize) {
    // SAFETY: reads `bytes` from `from` on, 256 at a time; the caller owns them.
    unsafe {
        std::arch::asm!(
            "2:",
            "vmovups ymm0, [{at}]",
            "vmovups ymm1, [{at} + 32]",
            "vmovups ymm2, [{at} + 64]",
            "vmovups ymm3, [{at} + 96]",
            "vmovups ymm4, [{at} + 128]",
            "vmovups ymm5, [{at} + 160]",
            "vmovups ymm6, [{at} + 192]",
            "vmovups ymm7, [{at} + 224]",
            "add {at}, 256",
            "cmp {at}, {end}",
            "jb 2b",
            at = inout(reg) from => _,
            end = in(reg) from.add(bytes),
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
            out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            options(nostack, readonly)
        );
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply_add(turns: u64) {
    // SAFETY: registers only. Zeros stay zeros, so nothing slows it down.
    unsafe {
        std::arch::asm!(
            "vzeroall",
            "2:",
            "vfmadd231ps ymm0, ymm12, ymm13",
            "vfmadd231ps ymm1, ymm12, ymm13",
            "vfmadd231ps ymm2, ymm12, ymm13",
            "vfmadd231ps ymm3, ymm12, ymm13",
            "vfmadd231ps ymm4, ymm12, ymm13",
            "vfmadd231ps ymm5, ymm12, ymm13",
            "vfmadd231ps ymm6, ymm12, ymm13",
            "vfmadd231ps ymm7, ymm12, ymm13",
            "vfmadd231ps ymm8, ymm12, ymm13",
            "vfmadd231ps ymm9, ymm12, ymm13",
            "vfmadd231ps ymm10, ymm12, ymm13",
            "vfmadd231ps ymm11, ymm12, ymm13",
            "dec {turns}",
            "jnz 2b",
            turns = inout(reg) turns => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _, out("ymm6") _,
            out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _,
            out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack, nomem)
        );
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn read_once(_: *const u8, _: usize) {}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn multiply_add(_: u64) {}
