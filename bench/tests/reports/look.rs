//! What must hold for every report, whatever it shows.

use super::{
    browser::{self, Drawn, Scheme, View},
    picture::Colour,
    skip::skip,
};

/// Looks at a page and checks what must hold for every report; None where there is no browser.
pub(crate) fn at(test: &str, html: &str, width: u32, scheme: Scheme) -> Option<View> {
    if !browser::is_installed() {
        skip(test, "chromium is not installed");
        return None;
    }
    let view = browser::view(html, width, scheme);
    let layout = &view.layout;
    assert_eq!(layout.window_width, f64::from(width));
    let none = Vec::<String>::new();
    assert_eq!(layout.overflowing, none, "at {width}");
    assert!(
        layout.page_width <= f64::from(width),
        "{} wide",
        layout.page_width
    );
    assert_eq!(layout.collisions, none, "at {width}");
    assert_eq!(layout.fetched, none);
    for plot in &layout.plots {
        let (title, axis) = (&plot.title, count(&view, plot, plot.axis));
        assert!(
            axis as f64 > plot.height / 2.0,
            "{title}: {axis} pixels of the axis"
        );
    }
    Some(view)
}

/// Each line has about as many pixels as a line across half of the plot takes. Of lines that lie on each
/// other only the last can be seen.
pub(crate) fn lines_are_drawn(view: &View, plot: &Drawn) {
    for colour in &plot.lines {
        let pixels = count(view, plot, *colour);
        assert!(
            pixels as f64 > plot.width * 0.6,
            "{}: {pixels} pixels of {colour:?}",
            plot.title
        );
    }
}

/// Pixels of a plot that are nearly of that colour.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a page has some thousands of pixels"
)]
pub(crate) fn count(view: &View, plot: &Drawn, colour: Colour) -> usize {
    let picture = &view.picture;
    let (right, bottom) = (plot.x + plot.width, plot.y + plot.height);
    let columns = plot.x as usize..(right as usize).min(picture.width);
    let rows = plot.y as usize..(bottom as usize).min(picture.height);
    assert!(
        !columns.is_empty() && !rows.is_empty(),
        "{} is off the page",
        plot.title
    );
    let is_near = |seen: Colour| {
        let pairs = seen.into_iter().zip(colour);
        pairs
            .into_iter()
            .all(|(seen, wanted)| seen.abs_diff(wanted) < 24)
    };
    rows.flat_map(|y| columns.clone().map(move |x| (x, y)))
        .filter(|&(x, y)| is_near(picture.at(x, y)))
        .count()
}
