//! Line charts as SVG.
//!
//! Colours are attributes of the shapes, so that every viewer shows them. A style sheet inside
//! replaces them where the reader's system is dark.

mod chart;
mod colours;
mod scale;

use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub use self::chart::{Axis, Chart, Mark, Point, Series};
use self::colours::{GRID, INK, Ink, MUTED, SERIES, style_sheet};
use self::scale::{Scale, is_drawable, tick_label};

/// Units of the drawing per CSS pixel. Coordinates are integers.
const UNITS: f64 = 8.0;
/// Height of the row with the label of the vertical axis, and of a row of the legend.
const ROW: f64 = 22.0;
/// Size of text.
const TEXT: f64 = 13.0;
/// Number of columns within which a line keeps its highest and its lowest point only.
const COLUMNS: f64 = 700.0;

/// Returns the SVG element of a chart, for use in an HTML page. Points that the axes cannot show are
/// left out: values that are not finite, and values up to 0 on a logarithmic axis.
pub fn lines(chart: &Chart) -> String {
    let mut drawing = String::new();
    let [width, height] = chart.size;
    let root = SVGBackend::with_string(&mut drawing, (units(width) as u32, units(height) as u32))
        .into_drawing_area();
    draw(chart, &root).and_then(|()| root.present()).expect("drawing into a string does not fail");
    drop(root);
    let content = drawing.split_once('>').map_or("", |(_, content)| content);
    format!(
        "<svg class=\"plot\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {} {}\" role=\"img\" \
         aria-label=\"{}\" xmlns=\"http://www.w3.org/2000/svg\">\n<style>{}</style>{content}",
        width,
        height,
        units(width),
        units(height),
        escape(&chart.title),
        style_sheet(),
    )
}

/// Returns a chart as an SVG file, on a ground of its own.
pub fn file(chart: &Chart) -> String {
    let ground = "<style>.plot{background:#fff}@media(prefers-color-scheme:dark){\
                  .plot{background:#0d1117}}</style>";
    lines(chart).replacen("<style>", &format!("{ground}\n<style>"), 1)
}

/// Replaces the characters that have a meaning in HTML and XML.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

/// Returns a length in CSS pixels in units of the drawing.
fn units(pixels: f64) -> i32 {
    (pixels * UNITS).round() as i32
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawingResult = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// Returns the style of text of a colour, placed relative to its left, middle or right end.
fn text_style(area: &Area<'_>, ink: &'static Ink, horizontal: HPos) -> TextStyle<'static> {
    // The backend divides sizes by this factor.
    let size = (TEXT * UNITS * 1.24).round() as i32;
    ("sans-serif", size, &ink.0[0]).into_text_style(area).pos(Pos::new(horizontal, VPos::Center))
}

fn draw(chart: &Chart, root: &Area<'_>) -> DrawingResult {
    let [width, height] = chart.size;
    let inks = inks(&chart.series);
    let legend = legend(chart, &inks);
    let rows = legend.iter().map(|entry| entry.row + 1).max().unwrap_or(0);
    let (head, body) = root.split_vertically(units(ROW * (1 + rows) as f64 + 4.0));
    let label = text_style(root, &MUTED, HPos::Left);
    head.draw_text(&chart.y.label, &label, (units(4.0), units(ROW / 2.0)))?;
    for entry in &legend {
        let y = units(ROW * (1.5 + entry.row as f64));
        let ShapeStyle { color, .. } = line_style(entry.ink, 1.0);
        if entry.mark == Mark::Points {
            head.draw(&Circle::new((units(entry.x + 10.0), y), units(3.5), color.filled()))?;
        } else {
            let swatch = vec![(units(entry.x), y), (units(entry.x + 20.0), y)];
            head.draw(&PathElement::new(swatch, color.stroke_width(units(3.0) as u32)))?;
        }
        let at = (units(entry.x + 26.0), y);
        head.draw_text(entry.name, &text_style(root, &INK, HPos::Left), at)?;
    }

    let drawable =
        |point: &&Point| is_drawable(point.x, chart.x.log) && is_drawable(point.y, chart.y.log);
    let points = || chart.series.iter().flat_map(|series| &series.points).filter(drawable);
    let errors = points().flat_map(|point| point.error.into_iter().flatten());
    let x = Scale::new(points().map(|point| point.x), chart.x.log, false, (width / 100.0) as usize);
    let y = Scale::new(
        points().map(|point| point.y).chain(errors),
        chart.y.log,
        true,
        (height / 60.0) as usize,
    );
    let (Some(x), Some(y)) = (x, y) else {
        let middle = (units(width / 2.0), units(height / 2.0 - ROW * (1 + rows) as f64));
        return body.draw_text("no values", &text_style(root, &MUTED, HPos::Center), middle);
    };
    let mut plot = ChartBuilder::on(&body)
        .margin_right(units(18.0))
        .y_label_area_size(units(62.0))
        .x_label_area_size(units(44.0))
        .build_cartesian_2d(x.clone(), y)?;
    plot.configure_mesh()
        .disable_x_mesh()
        .bold_line_style(line_style(&GRID, 1.0))
        .axis_style(line_style(&GRID, 1.0))
        .set_all_tick_mark_size(units(5.0))
        .label_style(text_style(root, &MUTED, HPos::Left))
        .x_label_formatter(&|value| tick_label(*value))
        .y_label_formatter(&|value| tick_label(*value))
        .draw()?;
    let below = (units(width - 18.0), units(height - ROW * (1 + rows) as f64 - 4.0 - 9.0));
    body.draw_text(&chart.x.label, &text_style(root, &MUTED, HPos::Right), below)?;
    for (series, ink) in chart.series.iter().zip(inks) {
        let points: Vec<Point> = series.points.iter().filter(drawable).copied().collect();
        draw_series(&mut plot, series.mark, &thinned(points, &x), ink)?;
    }
    Ok(())
}

type Plot<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Scale, Scale>>;

fn draw_series(plot: &mut Plot, mark: Mark, points: &[Point], ink: &Ink) -> DrawingResult {
    let line = match mark {
        Mark::Line => Some(line_style(ink, 2.0)),
        Mark::Background => Some(ShapeStyle { color: ink.0[0].mix(0.3), ..line_style(ink, 1.5) }),
        Mark::Points => None,
    };
    let positions = || points.iter().map(|point| (point.x, point.y));
    if let Some(style) = line {
        plot.draw_series(LineSeries::new(positions(), style))?;
    }
    let few = points.len() <= 30;
    if mark == Mark::Points || (mark == Mark::Line && few) {
        let radius = units(if mark == Mark::Points { 3.5 } else { 2.5 });
        let style = ink.0[0].filled();
        plot.draw_series(positions().map(|position| Circle::new(position, radius, style)))?;
    }
    let bars = points.iter().filter_map(|point| {
        let [low, high] = point.error.filter(|ends| ends.iter().all(|end| end.is_finite()))?;
        let style = line_style(ink, 1.5);
        Some(ErrorBar::new_vertical(point.x, low, point.y, high, style, units(6.0) as u32))
    });
    plot.draw_series(bars)?;
    Ok(())
}

fn line_style(ink: &Ink, width: f64) -> ShapeStyle {
    ink.0[0].stroke_width(units(width) as u32)
}

/// Returns the colour of each series.
fn inks(series: &[Series]) -> Vec<&'static Ink> {
    let mut next = 0;
    let colour = |series: &Series| {
        let ink = &SERIES[next % SERIES.len()];
        next += usize::from(series.mark != Mark::Background);
        ink
    };
    series.iter().map(colour).collect()
}

/// An entry of the legend.
struct Entry<'a> {
    name: &'a str,
    mark: Mark,
    ink: &'static Ink,
    /// Left end in CSS pixels.
    x: f64,
    row: usize,
}

/// Returns the legend, in rows. There is none for a single series.
fn legend<'a>(chart: &'a Chart, inks: &[&'static Ink]) -> Vec<Entry<'a>> {
    let (mut entries, mut x, mut row): (Vec<Entry>, f64, usize) = (Vec::new(), 4.0, 0);
    for (series, ink) in chart.series.iter().zip(inks) {
        if series.mark == Mark::Background || series.name.is_empty() {
            continue;
        }
        // The width of text is unknown here: this is that of wide letters.
        let width = 26.0 + 0.58 * TEXT * series.name.chars().count() as f64 + 18.0;
        if x > 4.0 && x + width > chart.size[0] {
            (x, row) = (4.0, row + 1);
        }
        entries.push(Entry { name: &series.name, mark: series.mark, ink, x, row });
        x += width;
    }
    if entries.len() < 2 { Vec::new() } else { entries }
}

/// Keeps the highest and the lowest point of each column, in their order, and every point with an
/// error bar. Logs of long runs have many more points than the chart has columns.
fn thinned(points: Vec<Point>, x: &Scale) -> Vec<Point> {
    if points.len() as f64 <= 2.0 * COLUMNS {
        return points;
    }
    let column = |point: &Point| (x.position(point.x) * COLUMNS) as u32;
    let mut kept = Vec::new();
    for chunk in points.chunk_by(|a, b| column(a) == column(b)) {
        let by_height = |(_, a): &(usize, &Point), (_, b): &(usize, &Point)| a.y.total_cmp(&b.y);
        let low = chunk.iter().enumerate().min_by(by_height).map(|(i, _)| i);
        let high = chunk.iter().enumerate().max_by(by_height).map(|(i, _)| i);
        let keep = |i: usize| Some(i) == low || Some(i) == high || chunk[i].error.is_some();
        kept.extend((0..chunk.len()).filter(|i| keep(*i)).map(|i| chunk[i]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: Vec<Series>) -> Chart {
        Chart {
            title: "loss & <rate>".into(),
            x: Axis::linear("images"),
            y: Axis::log("loss"),
            series,
            ..Chart::default()
        }
    }

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        let points = points.iter().map(|&(x, y)| Point::new(x, y)).collect();
        Series { name: name.into(), points, mark: Mark::Line }
    }

    /// Returns the points of the longest line, in CSS pixels.
    fn longest_line(svg: &str) -> Vec<[f64; 2]> {
        let lines = svg.split("points=\"").skip(1).map(|rest| {
            let text = rest.split('"').next().expect("an attribute");
            let point = |pair: &str| {
                let (x, y) = pair.split_once(',').expect("a pair");
                [x, y].map(|n| n.parse::<f64>().expect("a number") / UNITS)
            };
            text.split_whitespace().map(point).collect::<Vec<_>>()
        });
        lines.max_by_key(Vec::len).expect("a line")
    }

    #[test]
    fn values_are_at_their_place_on_both_axes() {
        // Factors of ten are equally far apart.
        let svg = lines(&chart(vec![series("a", &[(0.0, 100.0), (5.0, 10.0), (10.0, 1.0)])]));
        let line = longest_line(&svg);
        let [a, b, c] = line[..] else { panic!("{line:?}") };
        assert!((b[0] - (a[0] + c[0]) / 2.0).abs() < 0.3 && a[0] < b[0], "{line:?}");
        assert!((b[1] - (a[1] + c[1]) / 2.0).abs() < 0.3 && a[1] < b[1], "{line:?}");
        assert!(a[0] > 50.0 && c[0] > 650.0 && c[0] < 720.0 && c[1] < 320.0, "{line:?}");
        for text in ["aria-label=\"loss &amp; &lt;rate&gt;\"", ">\nimages\n<", ">\n100\n<"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
    }

    #[test]
    fn the_legend_names_all_series_of_several() {
        let line = [(0.0, 1.0), (1.0, 2.0)];
        assert!(!lines(&chart(vec![series("only", &line)])).contains("only"));
        let background = Series { mark: Mark::Background, ..series("raw", &line) };
        let dots = Series { mark: Mark::Points, ..series("dots", &line) };
        let svg = lines(&chart(vec![background, series("<first>", &line), dots]));
        assert!(svg.contains("&lt;first&gt;") && svg.contains("dots") && !svg.contains("raw"));
        // The first line has the colour of the series after it.
        assert!(svg.contains("stroke=\"#0969DA\"") && svg.contains("fill=\"#C04F00\""), "{svg}");
        let many: Vec<_> = (0..20).map(|i| series(&format!("a long name {i}"), &line)).collect();
        let legend = legend_rows(&many);
        assert!(legend > 2 && legend < 8, "{legend}");
    }

    fn legend_rows(series: &[Series]) -> usize {
        let chart = chart(series.to_vec());
        let legend = legend(&chart, &inks(&chart.series));
        assert!(legend.iter().all(|entry| entry.x < 670.0));
        legend.iter().map(|entry| entry.row + 1).max().expect("entries")
    }

    #[test]
    fn points_that_cannot_be_drawn_are_left_out() {
        let nothing = lines(&chart(vec![series("a", &[(0.0, 0.0), (1.0, f64::NAN)])]));
        assert!(nothing.contains("no values"), "{nothing}");
        assert!(lines(&Chart::default()).contains("no values"));
        let values = [(0.0, 1.0), (1.0, f64::INFINITY), (2.0, -1.0), (3.0, 3.0), (4.0, 2.0)];
        assert_eq!(longest_line(&lines(&chart(vec![series("a", &values)]))).len(), 3);
        // One point, and equal ones.
        lines(&chart(vec![series("a", &[(5.0, 1.0)])]));
        lines(&chart(vec![series("a", &[(5.0, 1.0), (5.0, 1.0)])]));
    }

    #[test]
    fn error_bars_are_inside_the_chart() {
        let bar = |low, high| Point { x: 1.0, y: 2.0, error: Some([low, high]) };
        let with = |point| lines(&chart(vec![Series { points: vec![point], ..Series::default() }]));
        // Shapes in the colour of the series, and not lines of the grid.
        let bars = |svg: &str| svg.matches("=\"#0969DA\"").count();
        assert!(bars(&with(bar(1.0, 4.0))) >= bars(&with(Point::new(1.0, 2.0))) + 3);
        // The lower end is not on a logarithmic axis.
        with(bar(-1.0, 4.0));
        assert_eq!(bars(&with(bar(f64::NAN, 4.0))), bars(&with(Point::new(1.0, 2.0))));
    }

    #[test]
    fn long_series_keep_their_extremes() {
        let noisy = |i: usize| 2.0 + (i as f64 * 0.7).sin();
        let mut values: Vec<_> = (0..100_000).map(|i| (i as f64, noisy(i))).collect();
        values[43_210].1 = 50.0;
        values[54_321].1 = 0.01;
        let svg = lines(&chart(vec![series("a", &values)]));
        assert!(svg.len() < 60_000, "{}", svg.len());
        let line = longest_line(&svg);
        let heights = || line.iter().map(|point| point[1]);
        let (low, high) = (heights().fold(f64::MAX, f64::min), heights().fold(0.0, f64::max));
        let at = |height: f64| line.iter().find(|point| point[1] == height).expect("there")[0];
        let place = |i: f64| line[0][0] + (line[line.len() - 1][0] - line[0][0]) * i / 1e5;
        assert!((at(low) - place(43_210.0)).abs() < 1.5, "{} {}", at(low), place(43_210.0));
        assert!((at(high) - place(54_321.0)).abs() < 1.5, "{} {}", at(high), place(54_321.0));
    }

    #[test]
    fn every_colour_has_a_dark_counterpart() {
        let all: Vec<_> =
            (0..9).map(|i| series(&i.to_string(), &[(0.0, 1.0), (1.0, 2.0)])).collect();
        let svg = file(&chart(all));
        let (style, content) = svg.rsplit_once("</style>").expect("a style sheet");
        for part in content.split('#').skip(1) {
            let colour = part.get(..6).expect("a colour");
            assert!(style.contains(&format!("\"#{colour}\"")), "{colour}");
        }
        assert!(style.contains("background:#0d1117"));
    }
}
