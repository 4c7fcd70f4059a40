//! Advantages and returns of responses of different lengths, and whitening.
//!
//! In: rewards and value estimates per response token. Out: generalised advantage estimates (Schulman et al.,
//! arXiv 1506.02438). Rows are as long as their responses: no padding, hence no mask.

/// `(advantages, returns)` of one response. The episode ends with it, so the value after the last token is 0:
/// `delta_t = r_t + gamma v_{t+1} - v_t`, `A_t = delta_t + gamma lam A_{t+1}`, `return_t = A_t + v_t`.
pub fn advantages(rewards: &[f64], values: &[f64], gamma: f64, lam: f64) -> (Vec<f64>, Vec<f64>) {
    let mut advantages = vec![0.0; rewards.len()];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for (t, (reward, value)) in rewards.iter().zip(values).enumerate().rev() {
        next_advantage = reward + gamma * next_value - value + gamma * lam * next_advantage;
        next_value = *value;
        advantages[t] = next_advantage;
    }
    let returns = advantages.iter().zip(values).map(|(advantage, value)| advantage + value).collect();
    (advantages, returns)
}

/// Divides all tokens of all rows by their common standard deviation (unbiased, epsilon 1e-8 on the variance)
/// after taking off their mean; `keep_mean` puts the mean back, as TRL does for rewards.
pub fn whiten(rows: &mut [Vec<f64>], keep_mean: bool) {
    let count = rows.iter().map(Vec::len).sum::<usize>();
    if count < 2 {
        // There is no deviation to divide by.
        return;
    }
    let mean = rows.iter().flatten().sum::<f64>() / count as f64;
    let squares = rows.iter().flatten().map(|x| (x - mean) * (x - mean)).sum::<f64>();
    let scale = 1.0 / (squares / (count - 1) as f64 + 1e-8).sqrt();
    let offset = if keep_mean { mean } else { 0.0 };
    for x in rows.iter_mut().flatten() {
        *x = (*x - mean) * scale + offset;
    }
}
