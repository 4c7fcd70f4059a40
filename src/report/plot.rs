//! Small inline SVG plots. Colours are CSS classes `c0`..`c7` of the page, so that they follow light and dark.
//!
//! In: numbers and labels, not escaped. Out: one `<svg>` element each, escaped; nothing for no data.

use std::fmt::Write;

/// Colours of the page.
const COLOURS: usize = 8;
/// The most points that a line is drawn with; more are averaged, so that a long run's page stays small.
const POINTS: usize = 300;
/// Width of every plot, in its own units.
const WIDTH: f64 = 560.0;
/// Where bars begin, right of their labels.
const BARS: f64 = 150.0;

/// One labelled number.
#[derive(Debug, Clone)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// Which colour.
    pub(super) colour: usize,
}

/// One line of a plot.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    /// By x.
    pub(super) points: Vec<(f64, f64)>,
}

/// Text inside of SVG.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // Not allowed in XML at all.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A number as people read it: three significant digits.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        x if x >= 100.0 => 0,
        x if x >= 10.0 => 1,
        x if x >= 0.1 => 2,
        x if x >= 0.001 => 4,
        _ => return format!("{value:.1e}"),
    };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
}

fn open(title: &str, width: f64, height: f64) -> String {
    let title = escape(title);
    format!("<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>")
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text));
}

/// Horizontal bars from 0 to `most`, or to the largest value when that is `None`.
pub(super) fn bars(title: &str, bars: &[Bar], most: Option<f64>) -> String {
    const ROW: f64 = 22.0;
    let drawn: Vec<&Bar> = bars.iter().filter(|bar| bar.value.is_finite()).collect();
    if drawn.is_empty() {
        return String::new();
    }
    let largest = drawn.iter().map(|bar| bar.value).fold(0.0, f64::max);
    let most = most.unwrap_or(largest).max(1e-12);
    let room = WIDTH - BARS - 60.0;
    let mut svg = open(title, WIDTH, ROW * drawn.len() as f64 + 4.0);
    for (i, bar) in drawn.iter().enumerate() {
        let y = ROW * i as f64 + 3.0;
        let length = (bar.value / most).clamp(0.0, 1.0) * room;
        label(&mut svg, BARS - 8.0, y + 13.0, "end", &shorten(&bar.label, 22));
        let _ = write!(svg, "<rect class=\"track\" x=\"{BARS}\" y=\"{y:.1}\" width=\"{room:.1}\" height=\"16\"/>");
        let colour = bar.colour % COLOURS;
        let _ =
            write!(svg, "<rect class=\"c{colour}\" x=\"{BARS}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"16\"/>");
        label(&mut svg, BARS + room + 6.0, y + 13.0, "start", &number(bar.value));
    }
    svg + "</svg>"
}

/// One bar per row, cut into parts; the first part has the first colour.
pub(super) fn stacked(title: &str, rows: &[(String, Vec<Bar>)]) -> String {
    const ROW: f64 = 26.0;
    let rows: Vec<_> = rows.iter().filter(|(_, parts)| parts.iter().any(|part| part.value > 0.0)).collect();
    if rows.is_empty() {
        return String::new();
    }
    let room = WIDTH - BARS - 10.0;
    let mut svg = open(title, WIDTH, ROW * rows.len() as f64 + 4.0);
    for (i, (name, parts)) in rows.iter().enumerate() {
        let y = ROW * i as f64 + 3.0;
        let total: f64 = parts.iter().map(|part| part.value).sum();
        label(&mut svg, BARS - 8.0, y + 15.0, "end", &shorten(name, 22));
        let mut x = BARS;
        for part in parts {
            let length = part.value / total * room;
            let (colour, what) = (part.colour % COLOURS, escape(&part.label));
            let _ = write!(
                svg,
                "<rect class=\"c{colour}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"20\">\
                 <title>{what}: {}</title></rect>",
                number(part.value)
            );
            x += length;
        }
    }
    svg + "</svg>"
}

/// Lines over a common x axis, with a legend where there are several.
pub(super) fn lines(title: &str, x_label: &str, series: &[Series]) -> String {
    const HEIGHT: f64 = 260.0;
    const LEFT: f64 = 56.0;
    const RIGHT: f64 = 12.0;
    const TOP: f64 = 28.0;
    const BOTTOM: f64 = 40.0;
    let series: Vec<Series> = series.iter().map(thin).filter(|one| !one.points.is_empty()).collect();
    if series.is_empty() {
        return String::new();
    }
    let legend = if series.len() > 1 { 18.0 * series.len().div_ceil(3) as f64 } else { 0.0 };
    let (x_ticks, y_ticks) = (axis(&series, |p| p.0), axis(&series, |p| p.1));
    let place = |value: f64, ticks: &[f64], from: f64, to: f64| {
        let (low, high) = (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0));
        from + (value - low) / (high - low).max(1e-300) * (to - from)
    };
    let x_of = |value| place(value, &x_ticks, LEFT, WIDTH - RIGHT);
    let y_of = |value| place(value, &y_ticks, HEIGHT - BOTTOM, TOP);

    let mut svg = open(title, WIDTH, HEIGHT + legend);
    let _ = write!(svg, "<text class=\"head\" x=\"{LEFT}\" y=\"16\">{}</text>", escape(title));
    for tick in &y_ticks {
        let y = y_of(*tick);
        let _ =
            write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", WIDTH - RIGHT);
        label(&mut svg, LEFT - 6.0, y + 4.0, "end", &number(*tick));
    }
    for tick in &x_ticks {
        label(&mut svg, x_of(*tick), HEIGHT - BOTTOM + 16.0, "middle", &number(*tick));
    }
    label(&mut svg, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, "middle", x_label);
    for (i, one) in series.iter().enumerate() {
        // The colours come round again with dashes.
        let dash = if i < COLOURS { "" } else { " stroke-dasharray=\"5 3\"" };
        let colour = i % COLOURS;
        let points: Vec<String> = one.points.iter().map(|p| format!("{:.1},{:.1}", x_of(p.0), y_of(p.1))).collect();
        let name = escape(&one.name);
        if let [only] = points.as_slice() {
            let (x, y) = only.split_once(',').unwrap_or((only, "0"));
            let _ =
                write!(svg, "<circle class=\"c{colour}\" cx=\"{x}\" cy=\"{y}\" r=\"3\"><title>{name}</title></circle>");
        } else {
            let points = points.join(" ");
            let _ = write!(
                svg,
                "<polyline class=\"line c{colour}\"{dash} points=\"{points}\"><title>{name}</title></polyline>"
            );
        }
        if legend > 0.0 {
            let (x, y) = (LEFT + 170.0 * (i % 3) as f64, HEIGHT + 10.0 + 18.0 * (i / 3) as f64);
            let _ = write!(
                svg,
                "<line class=\"line c{colour}\"{dash} x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
                x + 18.0
            );
            label(&mut svg, x + 24.0, y + 4.0, "start", &shorten(&one.name, 22));
        }
    }
    svg + "</svg>"
}

/// Finite points only, at most [`POINTS`], each the mean of its neighbours.
fn thin(series: &Series) -> Series {
    let finite: Vec<_> = series.points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
    let mean = |chunk: &[(f64, f64)]| {
        let n = chunk.len() as f64;
        (chunk.iter().map(|p| p.0).sum::<f64>() / n, chunk.iter().map(|p| p.1).sum::<f64>() / n)
    };
    let points = finite.chunks(finite.len().div_ceil(POINTS).max(1)).map(mean).collect();
    Series { name: series.name.clone(), points }
}

/// Round ticks that enclose one coordinate of all points.
fn axis(series: &[Series], of: impl Fn(&(f64, f64)) -> f64) -> Vec<f64> {
    let values = || series.iter().flat_map(|one| one.points.iter().map(&of));
    let (mut low, mut high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    if high - low < 1e-9 * high.abs().max(1e-6) {
        let pad = if low == 0.0 { 1.0 } else { low.abs() * 0.5 };
        (low, high) = (low - pad, high + pad);
    }
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= rough).unwrap_or(rough);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// At most `most` characters.
fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_string();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
