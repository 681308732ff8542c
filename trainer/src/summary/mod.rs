//! The report of a run: charts of its log, and an HTML file with everything worth seeing.

pub mod charts;
pub mod html;
pub mod nearest;
