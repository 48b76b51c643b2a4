//! Line charts as SVG.

use std::ops::Range;
use std::path::{Path, PathBuf};

use highwater::Result;
use plotters::prelude::*;

use super::failed;

/// Both axes are logarithmic.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) series: Vec<(&'a str, Vec<(f64, f64)>)>,
}

const COLOURS: [RGBColor; 4] = [
    RGBColor(0x1f, 0x5f, 0xbf),
    RGBColor(0xbf, 0x5f, 0x1f),
    RGBColor(0x3f, 0x8f, 0x3f),
    RGBColor(0x7f, 0x3f, 0x9f),
];

impl Chart<'_> {
    pub(crate) fn draw(&self, file: &Path) -> Result<()> {
        let directory = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(failed)?;
        let root = SVGBackend::new(file, (720, 400)).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(
                self.range(|p| p.0).log_scale(),
                self.range(|p| p.1).log_scale(),
            )
            .map_err(failed)?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&label)
            .y_label_formatter(&label)
            .light_line_style(TRANSPARENT)
            .draw()
            .map_err(failed)?;
        for ((name, points), colour) in self.series.iter().zip(COLOURS) {
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), style).point_size(3))
                .map_err(failed)?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .position(SeriesLabelPosition::UpperLeft)
            .draw()
            .map_err(failed)?;
        root.present().map_err(failed)
    }

    fn range(&self, of: impl Fn(&(f64, f64)) -> f64) -> Range<f64> {
        let values = self.series.iter().flat_map(|(_, points)| points).map(of);
        let (least, most) = values.fold((f64::MAX, f64::MIN), |(least, most), value| {
            (least.min(value), most.max(value))
        });
        least / 1.3..most * 1.6
    }
}

/// A power of ten in words, anything else in few digits.
fn label(value: &f64) -> String {
    match *value {
        v if v >= 1e6 => format!("{} M", v / 1e6),
        v if v >= 1e3 => format!("{} k", v / 1e3),
        v if v >= 1.0 => format!("{v}"),
        v => format!("{}", (v * 1e4).round() / 1e4),
    }
}

/// Where the charts of the documentation are, in the full form, and a place to try elsewhere.
pub(crate) fn place(full: bool, name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = if full {
        "docs/charts"
    } else {
        "target/bench/charts"
    };
    root.join(directory).join(format!("{name}.svg"))
}
