//! Charts as shapes: pure functions from numbers to what is drawn (docs/adr/0014).
//!
//! A [`Chart`] knows no HTML: the template draws its layers, one after the other, and gives them their colours by
//! class. Every chart brings its numbers along as a table.

mod horizon;
mod hours;
mod scale;
mod stages;
mod trend;

pub use horizon::horizon;
pub use hours::{hours, hours_that_differ};
pub use stages::stages;
pub use trend::trend;

use self::scale::{Scale, place};
use super::format::compact;
use super::table::Table;

/// How wide a chart is, in units of its own.
const WIDTH: f64 = 720.0;
/// Room left of the drawing, for the numbers of an axis; the same to the right.
const MARGIN: f64 = 60.0;
/// Where the drawing ends on the right.
const RIGHT: f64 = WIDTH - MARGIN;
/// The least that is drawn of anything that is not 0.
const LEAST: f64 = 3.0;

/// A chart.
#[derive(Debug, Default)]
pub struct Chart {
    /// Its name within the page.
    pub id: &'static str,
    /// What it shows.
    pub title: &'static str,
    /// What there is to be seen, for those who do not see it.
    pub summary: String,
    /// How to read it.
    pub note: String,
    /// How wide it is.
    pub width: f64,
    /// How high it is.
    pub height: f64,
    /// What its shapes mean.
    pub keys: Vec<Key>,
    /// First layer: lines of the grid.
    pub lines: Vec<Line>,
    /// Second layer.
    pub bars: Vec<Bar>,
    /// Third layer: curves and signs.
    pub paths: Vec<Path>,
    /// Fourth layer: lines across everything.
    pub rules: Vec<Line>,
    /// Last layer.
    pub labels: Vec<Label>,
    /// The same numbers.
    pub tables: Vec<Table>,
}

/// An entry of the legend: a shape of 16 by 12 and what it means.
#[derive(Debug)]
pub struct Key {
    /// The class of what it explains.
    pub class: &'static str,
    /// Its shape.
    pub shape: &'static str,
    /// What it means.
    pub text: String,
}

/// A straight line.
#[derive(Debug)]
pub struct Line {
    /// Its CSS class.
    pub class: &'static str,
    /// Its begin.
    pub x1: f64,
    /// Its begin.
    pub y1: f64,
    /// Its end.
    pub x2: f64,
    /// Its end.
    pub y2: f64,
}

/// A bar.
#[derive(Debug)]
pub struct Bar {
    /// Its CSS class.
    pub class: &'static str,
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// How wide it is.
    pub width: f64,
    /// How high it is.
    pub height: f64,
    /// What it stands for, shown when pointed at.
    pub hint: String,
}

/// A curve or a sign.
#[derive(Debug)]
pub struct Path {
    /// Its CSS class.
    pub class: &'static str,
    /// Its shape, as SVG says it.
    pub shape: String,
    /// What it stands for, shown when pointed at.
    pub hint: String,
}

/// A text.
#[derive(Debug)]
pub struct Label {
    /// Its CSS class, which also says where it is held.
    pub class: &'static str,
    /// Where it is held.
    pub x: f64,
    /// Its base line.
    pub y: f64,
    /// What it says.
    pub text: String,
}

/// The shape of a key for bars.
const KEY_BAR: &str = "M1 2h14v8h-14z";
/// The shape of a key for lines.
const KEY_LINE: &str = "M0 6h16";
/// The shape of a key for lines that stand.
const KEY_RULE: &str = "M8 0v12";

impl Chart {
    fn new(id: &'static str, title: &'static str, height: f64) -> Self {
        Self { id, title, width: WIDTH, height, ..Self::default() }
    }

    fn key(&mut self, class: &'static str, shape: &'static str, text: &str) {
        self.keys.push(Key { class, shape, text: text.to_owned() });
    }

    fn label(&mut self, class: &'static str, x: f64, y: f64, text: impl Into<String>) {
        self.labels.push(Label { class, x: place(x), y: place(y), text: text.into() });
    }

    fn line(&mut self, class: &'static str, from: (f64, f64), to: (f64, f64)) {
        self.lines.push(Line { class, x1: place(from.0), y1: place(from.1), x2: place(to.0), y2: place(to.1) });
    }

    fn rule(&mut self, class: &'static str, x: f64, top: f64, bottom: f64) {
        self.rules.push(Line { class, x1: place(x), y1: top, x2: place(x), y2: bottom });
    }

    fn sign(&mut self, class: &'static str, shape: String, hint: String) {
        self.paths.push(Path { class, shape, hint });
    }

    /// The axis of a scale, on the left, with lines across the drawing.
    fn axis(&mut self, scale: &Scale) {
        for tick in scale.ticks() {
            let y = scale.at(tick);
            self.line("grid", (MARGIN, y), (RIGHT, y));
            self.label("end", MARGIN - 6.0, y + 4.0, compact(tick));
        }
    }
}

/// A place on a line of `all` slots: left edge and width of the one with this number.
fn slot(index: usize, all: usize) -> (f64, f64) {
    let width = (RIGHT - MARGIN) / all.max(1) as f64;
    (MARGIN + index as f64 * width, width)
}

/// A round sign.
fn disc(x: f64, y: f64) -> String {
    format!("M{} {}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", place(x - 4.0), place(y))
}

/// A square sign.
fn square(x: f64, y: f64) -> String {
    format!("M{} {}h7v7h-7z", place(x - 3.5), place(y - 3.5))
}

/// A sign that points down.
fn pointer(x: f64, y: f64) -> String {
    format!("M{} {}h10l-5 8z", place(x - 5.0), place(y))
}

/// A square that stands on its corner.
fn diamond(x: f64, y: f64) -> String {
    format!("M{} {}l5 5l-5 5l-5 -5z", place(x), place(y - 5.0))
}

/// A line through points.
fn curve(points: &[(f64, f64)]) -> String {
    let mut shape = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let command = if index == 0 { "M" } else { "L" };
        shape += &format!("{command}{} {}", place(*x), place(*y));
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fill_the_drawing() {
        assert_eq!(slot(0, 1), (MARGIN, RIGHT - MARGIN));
        let (x, width) = slot(199, 200);
        assert!((x + width - RIGHT).abs() < 1e-6);
    }

    #[test]
    fn a_curve_goes_through_its_points() {
        assert_eq!(curve(&[(1.0, 2.0), (3.456, 4.0)]), "M1 2L3.46 4");
        assert_eq!(curve(&[]), "");
    }
}
