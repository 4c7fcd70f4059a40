//! AdamW against a plain implementation in f64.

use salmon::draw::key;
use salmon::train::Gradients;
use salmon::train::optimizer::{AdamW, AdamWConfig};
use tch::{Kind, Tensor};

const CONFIG: AdamWConfig =
    AdamWConfig { adam_beta1: 0.9, adam_beta2: 0.99, adam_epsilon: 1e-6, weight_decay: 0.1, max_grad_norm: 2.0 };

struct Plain {
    value: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    step: i32,
    decay: f64,
}

impl Plain {
    fn step(&mut self, gradient: &[f64], lr: f64) {
        self.step += 1;
        for (i, g) in gradient.iter().enumerate() {
            self.value[i] -= lr * self.decay * self.value[i];
            self.first[i] = 0.9 * self.first[i] + 0.1 * g;
            self.second[i] = 0.99 * self.second[i] + 0.01 * g * g;
            let first = self.first[i] / (1.0 - 0.9f64.powi(self.step));
            let second = self.second[i] / (1.0 - 0.99f64.powi(self.step));
            self.value[i] -= lr * first / (second.sqrt() + 1e-6);
        }
    }
}

fn parameters() -> Vec<(String, Tensor)> {
    [("matrix", vec![3, 4]), ("vector", vec![5]), ("unused", vec![2, 2])]
        .into_iter()
        .map(|(name, shape)| {
            let stream = key(1, &[name]);
            let values: Vec<f32> = (0..shape.iter().product::<i64>()).map(|i| stream.normal(i as u64) as f32).collect();
            (name.to_string(), Tensor::from_slice(&values).view(shape.as_slice()).set_requires_grad(true))
        })
        .collect()
}

fn list(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.detach().flatten(0, -1).to_kind(Kind::Double)).unwrap()
}

#[test]
fn adamw_is_the_plain_algorithm() {
    let parameters = parameters();
    let mut plain: Vec<Plain> = parameters
        .iter()
        .zip([0.1, 0.0, 0.1])
        .map(|((_, p), decay)| {
            let value = list(p);
            let zeros = vec![0.0; value.len()];
            Plain { value, first: zeros.clone(), second: zeros, step: 0, decay }
        })
        .collect();
    let copies = parameters.iter().map(|(name, p)| (name.clone(), p.shallow_clone())).collect();
    let mut optimizer = AdamW::new(CONFIG, copies).unwrap();
    for step in 0..20u64 {
        // Small gradients and ones above the limit; the last parameter never has one, the vector only at times.
        let scale = if step % 3 == 0 { 2.0 } else { 0.1 };
        let mut gradients: Vec<Option<Vec<f64>>> = Vec::new();
        for (i, (_, p)) in parameters.iter().enumerate() {
            let stream = key(2, &["gradient"]).with(step).with(i as u64);
            let values = (0..p.numel() as u64).map(|j| f64::from((scale * stream.normal(j)) as f32)).collect();
            gradients.push((i == 0 || (i == 1 && step % 4 != 2)).then_some(values));
        }
        let tensors = gradients
            .iter()
            .zip(&parameters)
            .map(|(g, (_, p))| g.as_ref().map(|g| Tensor::from_slice(g).to_kind(Kind::Float).view(p.size().as_slice())))
            .collect();
        let norm = gradients.iter().flatten().flatten().map(|g| g * g).sum::<f64>().sqrt();
        let tensors = Gradients(tensors);
        assert!((tensors.norm().unwrap() - norm).abs() < 1e-5 * norm);
        let lr = 0.05 / (1.0 + step as f64);
        optimizer.step("test", &tensors, norm, lr).unwrap();
        let clip = if norm > 2.0 { 2.0 / (norm + 1e-6) } else { 1.0 };
        for (plain, gradient) in plain.iter_mut().zip(&gradients) {
            if let Some(gradient) = gradient {
                plain.step(&gradient.iter().map(|g| g * clip).collect::<Vec<_>>(), lr);
            }
        }
    }
    for (plain, (name, parameter)) in plain.iter().zip(&parameters) {
        for (found, wanted) in list(parameter).iter().zip(&plain.value) {
            assert!((found - wanted).abs() < 1e-5, "{name}: {found} is not {wanted}");
        }
    }
    let steps: Vec<f64> =
        optimizer.state().iter().filter(|(n, _)| n.ends_with(".step")).map(|(_, t)| t.double_value(&[])).collect();
    assert_eq!(steps, [20.0, 15.0, 0.0]);
}

#[test]
fn a_norm_that_is_no_number_changes_nothing() {
    let parameters = parameters();
    let before: Vec<Vec<f64>> = parameters.iter().map(|(_, p)| list(p)).collect();
    let copies = parameters.iter().map(|(name, p)| (name.clone(), p.shallow_clone())).collect();
    let mut optimizer = AdamW::new(CONFIG, copies).unwrap();
    let gradients = Gradients(parameters.iter().map(|(_, p)| Some(p.detach().fill(f64::NAN))).collect());
    let norm = gradients.norm().unwrap();
    let error = optimizer.step("reward step 8", &gradients, norm, 0.1).unwrap_err();
    assert_eq!(error.kind(), salmon::error::Kind::Train);
    assert!(error.to_string().starts_with("reward step 8: the gradient norm is NaN"), "{error}");
    assert_eq!(before, parameters.iter().map(|(_, p)| list(p)).collect::<Vec<_>>());
    assert!(optimizer.state().iter().all(|(_, t)| list(t).iter().all(|x| *x == 0.0)));
}

#[test]
fn a_network_without_trainable_tensors_is_refused() {
    let Err(error) = AdamW::new(CONFIG, Vec::new()) else { panic!("accepted") };
    assert!(error.to_string().contains("add LoRA or full training"), "{error}");
}
