//! Plots as SVG that stands inside a page: lines, dots and rules between two axes.
//!
//! Owns: the layout of a plot; the classes that a page's style sheet colours.
//! May depend on: `axis`, `text`.
//! Invariants: what cannot be shown on an axis is left out, and a plot of nothing is None; all text is
//! escaped; nothing is drawn outside the view box.

use std::fmt;

use crate::{
    axis::{Axis, Scale},
    text::Escaped,
};

/// What is drawn. Dots and rules are drawn over lines.
#[derive(Clone, Debug)]
pub struct Plot {
    /// For those who cannot see it.
    pub title: String,
    pub x: Dimension,
    pub y: Dimension,
    pub lines: Vec<Line>,
    pub dots: Vec<Dot>,
    pub rules: Vec<Rule>,
}

/// What an axis shows, with its unit.
#[derive(Clone, Debug)]
pub struct Dimension {
    pub label: String,
    pub scale: Scale,
}

/// Points joined in order.
#[derive(Clone, Debug)]
pub struct Line {
    pub series: usize,
    pub points: Vec<(f64, f64)>,
}

/// One point, with a text that shows under the pointer.
#[derive(Clone, Debug)]
pub struct Dot {
    pub series: usize,
    pub at: (f64, f64),
    pub shape: Shape,
    pub title: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Disc,
    Cross,
    /// Around a disc.
    Ring,
}

/// A dashed line across the plot at one value.
#[derive(Clone, Debug)]
pub struct Rule {
    pub across: Across,
    pub at: f64,
    pub label: String,
}

/// The axis on which a rule's value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Across {
    X,
    Y,
}

/// The colours of Okabe and Ito, on a light and on a dark ground, as a style sheet writes them.
/// Later series have the same colours, dashed.
pub const PALETTE: [(&str, &str); 6] = [
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#d55e00"),
    ("#009e73", "#009e73"),
    ("#cc79a7", "#cc79a7"),
    ("#e69f00", "#e69f00"),
    ("#56b4e9", "#f0e442"),
];

/// The classes of a series: its colour and its dashes.
pub fn classes(series: usize) -> String {
    let dashes = series / PALETTE.len();
    format!("s{} d{}", series % PALETTE.len(), dashes.min(2))
}

impl Plot {
    /// None where there is nothing to show.
    pub fn drawn(&self) -> Option<String> {
        let points = || {
            let of_lines = self.lines.iter().flat_map(|line| line.points.iter());
            of_lines.chain(self.dots.iter().map(|dot| &dot.at)).copied()
        };
        let ruled = |across| {
            let rules = self.rules.iter();
            rules.filter_map(move |rule| (rule.across == across).then_some(rule.at))
        };
        // Rules alone make no plot.
        Axis::around(self.x.scale, points().map(|(x, _)| x))?;
        Axis::around(self.y.scale, points().map(|(_, y)| y))?;
        let x = Axis::around(
            self.x.scale,
            points().map(|(x, _)| x).chain(ruled(Across::X)),
        )?;
        let y = Axis::around(
            self.y.scale,
            points().map(|(_, y)| y).chain(ruled(Across::Y)),
        )?;
        Some(Drawing { plot: self, x, y }.to_string())
    }
}

/// A plot whose axes are known.
struct Drawing<'a> {
    plot: &'a Plot,
    x: Axis,
    y: Axis,
}

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 312.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = HEIGHT - 54.0;

impl fmt::Display for Drawing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = Escaped(&self.plot.title);
        writeln!(
            f,
            r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">"#
        )?;
        self.write_axes(f)?;
        for line in &self.plot.lines {
            self.write_line(f, line)?;
        }
        for rule in &self.plot.rules {
            self.write_rule(f, rule)?;
        }
        for dot in &self.plot.dots {
            self.write_dot(f, dot)?;
        }
        writeln!(f, "</svg>")
    }
}

impl Drawing<'_> {
    fn place(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        let (x, y) = (self.x.place(x)?, self.y.place(y)?);
        Some((LEFT + x * (RIGHT - LEFT), BOTTOM - y * (BOTTOM - TOP)))
    }

    fn write_axes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, text) in self.x.ticks() {
            let x = LEFT + place * (RIGHT - LEFT);
            writeln!(f, r#"<path class="grid" d="M{x:.1} {TOP}V{BOTTOM}"/>"#)?;
            let below = BOTTOM + 22.0;
            writeln!(
                f,
                r#"<text x="{x:.1}" y="{below}" text-anchor="middle">{text}</text>"#
            )?;
        }
        for (place, text) in self.y.ticks() {
            let y = BOTTOM - place * (BOTTOM - TOP);
            writeln!(f, r#"<path class="grid" d="M{LEFT} {y:.1}H{RIGHT}"/>"#)?;
            let (beside, line) = (LEFT - 10.0, y + 4.0);
            writeln!(
                f,
                r#"<text x="{beside}" y="{line:.1}" text-anchor="end">{text}</text>"#
            )?;
        }
        writeln!(
            f,
            r#"<path class="axis" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>"#
        )?;
        let (x, y) = (Escaped(&self.plot.x.label), Escaped(&self.plot.y.label));
        let last = HEIGHT - 6.0;
        writeln!(
            f,
            r#"<text class="label" x="{RIGHT}" y="{last}" text-anchor="end">{x}</text>"#
        )?;
        writeln!(f, r#"<text class="label" x="8" y="18">{y}</text>"#)
    }

    fn write_line(&self, f: &mut fmt::Formatter<'_>, line: &Line) -> fmt::Result {
        let classes = classes(line.series);
        let places: Vec<_> = line.points.iter().map(|&point| self.place(point)).collect();
        // What cannot be shown parts a line; a part of one point would be invisible as a line.
        for part in places.split(Option::is_none) {
            let points: Vec<(f64, f64)> = part.iter().flatten().copied().collect();
            match *points {
                [] => {}
                [(x, y)] => {
                    writeln!(
                        f,
                        r#"<circle class="disc {classes}" cx="{x:.1}" cy="{y:.1}" r="3"/>"#
                    )?;
                }
                [(x, y), ref rest @ ..] => {
                    write!(f, r#"<path class="line {classes}" d="M{x:.1} {y:.1}"#)?;
                    for (x, y) in rest {
                        write!(f, "L{x:.1} {y:.1}")?;
                    }
                    writeln!(f, r#""/>"#)?;
                }
            }
        }
        Ok(())
    }

    fn write_dot(&self, f: &mut fmt::Formatter<'_>, dot: &Dot) -> fmt::Result {
        let Some((x, y)) = self.place(dot.at) else {
            return Ok(());
        };
        let classes = classes(dot.series);
        let title = Escaped(&dot.title);
        write!(f, r#"<g class="{classes}"><title>{title}</title>"#)?;
        match dot.shape {
            Shape::Disc => write!(
                f,
                r#"<circle class="disc" cx="{x:.1}" cy="{y:.1}" r="3.5"/>"#
            )?,
            Shape::Ring => write!(f, r#"<circle class="ring" cx="{x:.1}" cy="{y:.1}" r="8"/>"#)?,
            Shape::Cross => {
                let (left, top) = (x - 5.0, y - 5.0);
                let d = format!("M{left:.1} {top:.1}l10 10m0 -10l-10 10");
                write!(f, r#"<path class="cross" d="{d}"/>"#)?;
            }
        }
        writeln!(f, "</g>")
    }

    fn write_rule(&self, f: &mut fmt::Formatter<'_>, rule: &Rule) -> fmt::Result {
        let axis = match rule.across {
            Across::X => &self.x,
            Across::Y => &self.y,
        };
        let Some(place) = axis.place(rule.at) else {
            return Ok(());
        };
        let label = Escaped(&rule.label);
        match rule.across {
            Across::Y => {
                let y = BOTTOM - place * (BOTTOM - TOP);
                let above = if y > TOP + 16.0 { y - 6.0 } else { y + 16.0 };
                writeln!(f, r#"<path class="rule" d="M{LEFT} {y:.1}H{RIGHT}"/>"#)?;
                let beside = LEFT + 8.0;
                writeln!(
                    f,
                    r#"<text class="ruled" x="{beside}" y="{above:.1}">{label}</text>"#
                )
            }
            Across::X => {
                let x = LEFT + place * (RIGHT - LEFT);
                let (beside, anchor) = if place < 0.5 {
                    (x + 6.0, "start")
                } else {
                    (x - 6.0, "end")
                };
                let line = BOTTOM - 8.0;
                writeln!(f, r#"<path class="rule" d="M{x:.1} {TOP}V{BOTTOM}"/>"#)?;
                write!(
                    f,
                    r#"<text class="ruled" x="{beside:.1}" y="{line}" text-anchor="{anchor}">"#
                )?;
                writeln!(f, "{label}</text>")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)]) -> Plot {
        let dimension = |label: &str, scale| Dimension {
            label: label.to_owned(),
            scale,
        };
        Plot {
            title: "a & b".to_owned(),
            x: dimension("time, s", Scale::Linear),
            y: dimension("latency, ms", Scale::Log),
            lines: vec![Line {
                series: 0,
                points: points.to_vec(),
            }],
            dots: Vec::new(),
            rules: vec![Rule {
                across: Across::Y,
                at: 20.0,
                label: "<objective>".to_owned(),
            }],
        }
    }

    #[test]
    fn a_plot_of_nothing_is_none_even_with_a_rule() {
        assert_eq!(plot(&[]).drawn(), None);
        assert_eq!(plot(&[(1.0, 0.0), (2.0, f64::NAN)]).drawn(), None);
    }

    #[test]
    fn what_cannot_be_shown_parts_the_line() {
        let svg = plot(&[
            (0.0, 1.0),
            (1.0, 2.0),
            (2.0, 0.0),
            (3.0, 4.0),
            (4.0, f64::NAN),
        ])
        .drawn();
        let svg = svg.expect("three points can be shown");
        assert_eq!(svg.matches(r#"class="line"#).count(), 1, "{svg}");
        assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
        assert!(!svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn text_is_escaped() {
        let svg = plot(&[(0.0, 1.0)]).drawn().expect("one point");
        assert!(svg.contains(r#"aria-label="a &amp; b""#), "{svg}");
        assert!(svg.contains(">&lt;objective&gt;<"), "{svg}");
    }

    #[test]
    fn a_seventh_series_is_dashed_in_the_first_colour() {
        assert_eq!((classes(0), classes(6)), ("s0 d0".into(), "s0 d1".into()));
        assert_eq!(classes(100), "s4 d2");
    }
}
