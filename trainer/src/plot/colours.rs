//! Colours of charts on light and on dark ground.

use std::fmt::Write;

use plotters::style::RGBColor;

/// A colour on light and on dark ground.
pub struct Ink(pub [RGBColor; 2]);

/// Text.
pub const INK: Ink = Ink([RGBColor(0x1f, 0x23, 0x28), RGBColor(0xe6, 0xed, 0xf3)]);
/// Labels.
pub const MUTED: Ink = Ink([RGBColor(0x59, 0x63, 0x6e), RGBColor(0x91, 0x98, 0xa1)]);
/// Axes and grid lines.
pub const GRID: Ink = Ink([RGBColor(0xd1, 0xd9, 0xe0), RGBColor(0x3d, 0x44, 0x4d)]);
/// Colours of series, which differ in lightness too.
pub const SERIES: [Ink; 8] = [
    Ink([RGBColor(0x09, 0x69, 0xda), RGBColor(0x58, 0xa6, 0xff)]),
    Ink([RGBColor(0xc0, 0x4f, 0x00), RGBColor(0xf0, 0x88, 0x3e)]),
    Ink([RGBColor(0x11, 0x63, 0x29), RGBColor(0x56, 0xd3, 0x64)]),
    Ink([RGBColor(0x82, 0x50, 0xdf), RGBColor(0xd2, 0xa8, 0xff)]),
    Ink([RGBColor(0xbf, 0x39, 0x89), RGBColor(0xff, 0x9b, 0xce)]),
    Ink([RGBColor(0x7d, 0x4e, 0x00), RGBColor(0xe3, 0xb3, 0x41)]),
    Ink([RGBColor(0x0e, 0x7c, 0x86), RGBColor(0x39, 0xc5, 0xcf)]),
    Ink([RGBColor(0x42, 0x4a, 0x53), RGBColor(0xb1, 0xba, 0xc4)]),
];

/// Returns the style sheet: the font, and the colours on dark ground.
pub fn style_sheet() -> String {
    let mut rules = String::from(
        ".plot{max-width:100%;height:auto}.plot text{font-family:system-ui,sans-serif}\
         .plot polyline{stroke-linejoin:round}@media(prefers-color-scheme:dark){",
    );
    let hex = |RGBColor(r, g, b): RGBColor| format!("#{r:02X}{g:02X}{b:02X}");
    for Ink([light, dark]) in [INK, MUTED, GRID].iter().chain(&SERIES) {
        for attribute in ["fill", "stroke"] {
            let (light, dark) = (hex(*light), hex(*dark));
            let _ = write!(rules, ".plot [{attribute}=\"{light}\"]{{{attribute}:{dark}}}");
        }
    }
    rules + "}"
}
