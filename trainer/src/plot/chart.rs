//! The description of a chart.

/// An axis of a chart.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// Name and unit.
    pub label: String,
    /// Whether the axis is logarithmic.
    pub log: bool,
}

impl Axis {
    /// Returns a linear axis.
    pub fn linear(label: &str) -> Self {
        Self { label: label.into(), log: false }
    }

    /// Returns a logarithmic axis.
    pub fn log(label: &str) -> Self {
        Self { label: label.into(), log: true }
    }
}

/// A point of a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Horizontal position.
    pub x: f64,
    /// Vertical position.
    pub y: f64,
    /// Ends of the error bar.
    pub error: Option<[f64; 2]>,
}

impl Point {
    /// Returns a point without an error bar.
    pub fn new(x: f64, y: f64) -> Self {
        Self { x, y, error: None }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mark {
    /// A line, with a dot at each point if there are few.
    #[default]
    Line,
    /// A pale line without an entry in the legend, in the colour of the series after it.
    Background,
    /// Dots.
    Points,
}

/// A series of points.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points, in the order in which the line connects them.
    pub points: Vec<Point>,
    /// How it is drawn.
    pub mark: Mark,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Description, for readers who do not see the chart.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// Series, the first one lowest. Colours repeat after eight.
    pub series: Vec<Series>,
    /// Width and height in CSS pixels.
    pub size: [f64; 2],
}

impl Default for Chart {
    fn default() -> Self {
        let (title, x, y) = Default::default();
        Self { title, x, y, series: Vec::new(), size: [720.0, 320.0] }
    }
}
