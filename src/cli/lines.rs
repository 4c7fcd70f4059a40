//! Columns, ages and sizes as people read and write them.

use std::time::Duration;

use indicatif::{DecimalBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Rows below a header, in columns as wide as they need.
pub(super) fn columns<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = header.map(|name| name.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |cells: [&str; N]| {
        let cells: Vec<String> = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let mut text = line(header);
    rows.iter().for_each(|row| text += &line(row.each_ref().map(String::as_str)));
    text
}

/// `3.4 MB`.
pub(super) fn bytes(count: u64) -> String {
    DecimalBytes(count).to_string()
}

/// An age such as `90s`, `30m`, `12h`, `7d`; without a unit, days.
///
/// # Errors
/// What is wrong with it.
pub(super) fn age(text: &str) -> std::result::Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "d"),
    };
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("give a number and s, m, h or d, e.g. 12h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "give a whole number and s, m, h or d, e.g. 12h".to_string())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "is too long".into())
}

/// A bar on stderr, on a terminal only.
pub(super) fn bar(total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
