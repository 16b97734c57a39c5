//! Bar charts.

use std::fmt::Write;

/// Bars that belong together.
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) name: &'static str,
    /// As a multiple of the floor.
    pub(crate) value: f64,
    pub(crate) text: String,
}

const WIDTH: f64 = 760.0;
const LABELS: f64 = 190.0;
const NAMES: f64 = 64.0;
const TEXTS: f64 = 150.0;
const TOP: f64 = 62.0;
const BAR: f64 = 15.0;
const GAP: f64 = 13.0;

/// A chart of horizontal bars, with a line at 1, where the floor is.
pub(crate) fn chart(title: &str, subtitle: &str, groups: &[Group]) -> String {
    let longest = groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value).fold(1.0, f64::max);
    let begin = LABELS + NAMES;
    let scale = (WIDTH - begin - TEXTS) / longest;
    let height = groups.iter().map(|group| group.bars.len() as f64 * BAR + GAP).sum::<f64>() + TOP + 8.0;
    let mut out = String::new();
    let _ = writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="12" fill="#1f2933">
<title>{}</title>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
<text x="14" y="24" font-size="16" font-weight="600">{}</text>
<text x="14" y="43" fill="#616e7c">{}</text>"##,
        escaped(title),
        escaped(title),
        escaped(subtitle),
    );
    let mut y = TOP;
    for group in groups {
        let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
        let _ = writeln!(out, r#"<text x="14" y="{middle:.1}">{}</text>"#, escaped(&group.label));
        for bar in &group.bars {
            let (text, fill) = (y + BAR - 4.0, if bar.name == "avout" { "#2364aa" } else { "#b8c4ce" });
            let length = bar.value * scale;
            let _ = writeln!(
                out,
                r##"<text x="{:.1}" y="{text:.1}" text-anchor="end" font-size="11" fill="#616e7c">{}</text>
<rect x="{begin}" y="{:.1}" width="{length:.1}" height="{:.1}" rx="2" fill="{fill}"/>
<text x="{:.1}" y="{text:.1}" font-size="11">{}</text>"##,
                begin - 6.0,
                escaped(bar.name),
                y + 1.0,
                BAR - 2.0,
                begin + length + 6.0,
                escaped(&bar.text),
            );
            y += BAR;
        }
        y += GAP;
    }
    let one = begin + scale;
    let _ = writeln!(
        out,
        r##"<line x1="{one:.1}" y1="{:.1}" x2="{one:.1}" y2="{:.1}" stroke="#7b8794" stroke-dasharray="3 3"/>
</svg>"##,
        TOP - 6.0,
        height - 12.0,
    );
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
