//! Failures of libtorch become errors; the boundary leaves no trace behind.

use salmon::error::Kind;
use salmon::torch::{device, guard};
use tch::Tensor;

#[test]
fn a_failing_operation_is_one_line_with_its_place() {
    let error =
        guard("layer 3", || Ok(Tensor::from_slice(&[1f32, 2.0]).matmul(&Tensor::from_slice(&[1f32])))).unwrap_err();
    assert_eq!(error.kind(), Kind::Model);
    let line = error.to_string();
    assert!(line.starts_with("layer 3: inconsistent tensor size"), "{line}");
    assert!(!line.contains('\n') && !line.contains("frame #") && !line.contains("Torch("), "{line}");
}

#[test]
fn any_other_panic_is_a_bug_of_ours() {
    let error = guard("step 4", || -> salmon::Result<()> { panic!("row {} is gone\nsecond line", 7) }).unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert_eq!(error.to_string(), "step 4: row 7 is gone");
}

#[test]
fn gradients_are_recorded_again_after_a_panic_without_them() {
    let failed = guard("x", || {
        let _ = tch::no_grad(|| Tensor::from_slice(&[1f32, 2.0]).matmul(&Tensor::from_slice(&[1f32])));
        Ok(())
    });
    assert!(failed.is_err());
    let leaf = Tensor::from_slice(&[1f32]).set_requires_grad(true);
    assert!((leaf * 2.0).requires_grad());
}

#[test]
fn our_errors_pass_through() {
    let error = guard("x", || -> salmon::Result<()> { Err(salmon::Error::data("row 1", "is empty")) }).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Data, "row 1: is empty"));
}

#[test]
fn devices_go_by_name() {
    assert_eq!(device("cpu").unwrap(), tch::Device::Cpu);
    let error = device("gpu").unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (Kind::Config, "device: `gpu` is not one of cpu, cuda, auto")
    );
    // With a GPU both name it; without one, `auto` is the CPU and `cuda` an error that says what to do.
    match device("cuda") {
        Ok(found) => assert_eq!(device("auto").unwrap(), found),
        Err(error) => {
            assert_eq!(device("auto").unwrap(), tch::Device::Cpu);
            assert!(error.to_string().contains("set device to cpu"), "{error}");
        }
    }
}

/// libtorch's MKL asks this symbol whether it may use AVX-512; the program must answer before libtorch does.
#[test]
fn the_mkl_switch_is_ours() {
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"mkl_serv_intel_cpu_true".as_ptr());
        assert!(!symbol.is_null());
        let mut info: libc::Dl_info = std::mem::zeroed();
        assert_ne!(libc::dladdr(symbol, &mut info), 0);
        let file = std::ffi::CStr::from_ptr(info.dli_fname).to_string_lossy().into_owned();
        assert!(!file.contains("libtorch"), "{file}");
        let call: extern "C" fn() -> i32 = std::mem::transmute(symbol);
        assert_eq!(call(), 1);
    }
}
