//! What a person with a browser sees of a run.

use bench::{html, outcome::Run};

use crate::{
    browser::{Scheme, View},
    look, specimen,
};

const WIDE: u32 = 1_200;
const NARROW: u32 = 360;

#[test]
fn plots_of_a_comparison_are_drawn_in_each_targets_colour() {
    let Some(view) = see(
        "plots_of_a_comparison",
        &specimen::comparison(),
        WIDE,
        Scheme::Light,
    ) else {
        return;
    };
    let titles: Vec<&str> = view.layout.plots.iter().map(|plot| &*plot.title).collect();
    let each = [
        "Latency",
        "Over time: delivered",
        "Over time: p99 of delivery",
    ];
    let mut expected = vec![
        "Latency: publish scheduled to event received",
        "Latency: publish scheduled to answer received",
    ];
    expected.extend(each.iter().chain(&each));
    assert_eq!(titles, expected);
    assert_eq!(
        view.layout.plots[0].lines.len(),
        2,
        "two targets over each other"
    );
    let text = &view.layout.text;
    for expected in [
        "Load test: fanout",
        "faults in 1 of 2",
        "Fault: lost 3 of 1 000 000 messages",
        "A CPU with Cores & Caches · 2 cores · 8 GiB · Linux 6.18.5 · 2026-01-31 12:00 UTC",
        "250 000 (0.250 per message)",
        "subscribers 1000",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_ramp_shows_where_it_broke() {
    let Some(view) = see("a_ramp_shows", &specimen::ramp(), WIDE, Scheme::Light) else {
        return;
    };
    let plot = &view.layout.plots[0];
    assert_eq!(plot.title, "Load against p99 of delivery");
    // Crosses of the loads that missed, in a colour that no line of this plot has.
    let missed = [0xd5, 0x5e, 0x00];
    assert!(
        look::count(&view, plot, missed) > 20,
        "the crosses are not drawn"
    );
    let text = &view.layout.text;
    for expected in ["80 000 deliveries per second held.", "missed", "objective"] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    // Six steps side by side, and the one that decides unfolded.
    assert_eq!(view.layout.plots[1].lines.len(), 6);
    assert_eq!(view.layout.plots.len(), 1 + 2 + 3);
}

#[test]
fn a_page_fits_a_telephone_and_a_dark_room() {
    for (run, scheme) in [
        (specimen::comparison(), Scheme::Light),
        (specimen::ramp(), Scheme::Dark),
        (specimen::void(), Scheme::Dark),
    ] {
        see("a_page_fits", &run, NARROW, scheme);
    }
}

#[test]
fn hostile_text_is_shown_and_not_obeyed() {
    let Some(view) = see("hostile_text", &specimen::void(), WIDE, Scheme::Dark) else {
        return;
    };
    let text = &view.layout.text;
    let shown = "<script>alert('x')</script>\"&\u{fffd}[2J";
    assert!(text.contains(&format!("the server said {shown}")), "{text}");
    assert!(
        text.contains("Void: the load generator was the bottleneck"),
        "{text}"
    );
    assert!(!html::page(&specimen::void()).contains("<script"));
}

#[test]
fn nothing_recorded_is_a_sentence_and_no_plot() {
    let run = specimen::empty();
    let Some(view) = see("nothing_recorded", &run, WIDE, Scheme::Light) else {
        return;
    };
    assert!(view.layout.plots.is_empty());
    assert_eq!(
        view.layout.text.matches("No value was recorded.").count(),
        3
    );
    let nothing = Run {
        outcomes: Vec::new(),
        ..run
    };
    let page = html::page(&nothing);
    assert!(page.contains("Nothing was run."), "{page}");
}

fn see(test: &str, run: &Run, width: u32, scheme: Scheme) -> Option<View> {
    let view = look::at(test, &html::page(run), width, scheme)?;
    for plot in &view.layout.plots {
        look::lines_are_drawn(&view, plot);
    }
    Some(view)
}
