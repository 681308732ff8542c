//! The report of a run as one HTML file, which loads nothing from anywhere.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::picture::Rgb;

use crate::plot::{self, Chart, escape};

/// The report of a run.
#[derive(Default)]
pub struct Report {
    /// Name of the run.
    pub name: String,
    /// Model and data in a sentence.
    pub subtitle: String,
    /// What a reader should know first, such as skipped steps.
    pub notices: Vec<String>,
    /// Numbers: what, the number, and more about it.
    pub numbers: Vec<[String; 3]>,
    /// Charts, the first one large.
    pub charts: Vec<Chart>,
    /// Charts of metrics.
    pub metrics: Vec<Chart>,
    /// Grids of samples with captions, as PNG files.
    pub grids: Vec<(Vec<u8>, String)>,
    /// Samples with the nearest training images.
    pub nearest: Nearest,
    /// Settings: name and value.
    pub settings: Vec<[String; 2]>,
    /// Files of the run, with their names.
    pub files: Vec<[String; 2]>,
    /// Where this is from.
    pub origin: String,
}

/// Samples with the training images nearest to them.
#[derive(Default)]
pub struct Nearest {
    /// How near they are, in words, or why there are none.
    pub text: String,
    /// A sample with its caption, then training images with theirs.
    pub rows: Vec<Vec<(Rgb, String)>>,
}

const STYLE: &str = include_str!("report.css");

/// Returns the HTML file.
pub fn render(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'; img-src data:\">\n<title>{name}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{name}</h1>\n\
         <p class=\"muted\">{}</p>\n",
        escape(&report.subtitle),
        name = escape(&report.name),
    );
    for notice in &report.notices {
        let _ = writeln!(page, "<p class=\"notice\">{}</p>", escape(notice));
    }
    page += "<dl class=\"numbers\">\n";
    for [what, number, more] in &report.numbers {
        let [what, number, more] = [what, number, more].map(|text| escape(text));
        let _ = writeln!(page, "<div><dt>{what}</dt><dd>{number}<small>{more}</small></dd></div>");
    }
    page += "</dl>\n";
    page += &charts("Learning curves", &report.charts, true);
    page += &charts("Metrics", &report.metrics, false);
    page += &grids(&report.grids);
    page += &nearest(&report.nearest);
    page += "<h2>Settings</h2>\n<table>\n";
    for [name, value] in &report.settings {
        let (name, value) = (escape(name), escape(value));
        let _ = writeln!(page, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
    }
    page += "</table>\n";
    for [name, content] in &report.files {
        let (name, content) = (escape(name), escape(content));
        let _ =
            writeln!(page, "<details><summary>{name}</summary>\n<pre>{content}</pre></details>");
    }
    let origin = escape(&report.origin);
    let _ = write!(page, "<footer>{origin}</footer>\n</main>\n</body>\n</html>\n");
    page
}

/// Returns a section of charts.
fn charts(title: &str, charts: &[Chart], first_is_large: bool) -> String {
    if charts.is_empty() {
        return String::new();
    }
    let mut section = format!("<h2>{title}</h2>\n<div class=\"charts\">\n");
    for (number, chart) in charts.iter().enumerate() {
        let large = first_is_large && number == 0;
        let size = if large { [1072.0, 380.0] } else { [524.0, 260.0] };
        let class = if large { " class=\"large\"" } else { "" };
        let svg = plot::lines(&Chart { size, ..chart.clone() });
        let _ = writeln!(section, "<div{class}>{svg}</div>");
    }
    section + "</div>\n"
}

fn grids(grids: &[(Vec<u8>, String)]) -> String {
    if grids.is_empty() {
        return String::new();
    }
    let mut section = String::from("<h2>Samples over time</h2>\n<div class=\"grids\">\n");
    for (png, caption) in grids {
        let caption = escape(caption);
        let _ = writeln!(
            section,
            "<figure><img alt=\"Samples {caption}\" src=\"{}\"><figcaption>{caption}</figcaption>\
             </figure>",
            data_url(png)
        );
    }
    section + "</div>\n"
}

fn nearest(nearest: &Nearest) -> String {
    let text = escape(&nearest.text);
    let mut section = format!("<h2>Nearest training images</h2>\n<p>{text}</p>\n");
    section += "<div class=\"nearest\">\n";
    for row in &nearest.rows {
        section += "<div class=\"row\">";
        for (picture, caption) in row {
            // Enlarged by whole factors: viewers without the style sheet, too, show sharp pixels.
            let times = 64usize.div_ceil(picture.width.max(1)).max(1);
            let png = picture.enlarged(times).to_png(None).unwrap_or_default();
            let caption = escape(caption);
            let _ = write!(
                section,
                "<figure><img alt=\"\" src=\"{}\"><figcaption>{caption}</figcaption></figure>",
                data_url(&png)
            );
        }
        section += "</div>\n";
    }
    section + "</div>\n"
}

fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Point, Series};

    #[test]
    fn a_report_is_complete_in_itself_and_escaped() {
        let points = vec![Point::new(0.0, 1.0), Point::new(1.0, 2.0)];
        let chart = Chart {
            series: vec![Series { points, ..Series::default() }],
            title: "a & b".into(),
            ..Chart::default()
        };
        let picture = Rgb { width: 2, height: 1, bytes: vec![9; 6] };
        let report = Report {
            name: "<script>alert(1)</script>".into(),
            notices: vec!["1 < 2".into()],
            numbers: vec![["loss".into(), "0.1".into(), "\"last\"".into()]],
            charts: vec![chart.clone(), chart.clone()],
            metrics: vec![chart],
            grids: vec![(picture.to_png(None).expect("small"), "after 1 image".into())],
            nearest: Nearest {
                text: "near".into(),
                rows: vec![vec![(picture.clone(), "seed 0".into()), (picture, "<b>".into())]],
            },
            settings: vec![["batch".into(), "8".into()]],
            files: vec![["options.json".into(), "{\"a\": \"</pre>\"}".into()]],
            origin: "here".into(),
            ..Report::default()
        };
        let page = render(&report);
        assert_eq!(page.matches("<svg").count(), 3);
        assert_eq!(page.matches("data:image/png;base64,iVBOR").count(), 3);
        for text in ["&lt;script&gt;", "1 &lt; 2", "&lt;/pre&gt;", "&lt;b&gt;", "light-dark("] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("<script"));
        // The name space of SVG is the only address.
        let addresses = page.matches("http").count() - page.matches("http-equiv").count();
        assert_eq!(addresses, page.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    }

    #[test]
    fn missing_parts_are_left_out_or_explained() {
        let nearest = Nearest { text: "the data is not here".into(), rows: Vec::new() };
        let page = render(&Report { nearest, ..Report::default() });
        assert!(page.contains("the data is not here") && !page.contains("Learning curves"));
    }
}
