//! A run as one page for a browser: nothing is fetched, and no script is needed.
//!
//! Owns: the order of the page, its tables, which plots it has.
//! May depend on: `outcome`, `svg`, `axis`, `text`; `html.css` for its looks.
//! Invariants: a void run and every fault stand above the figures that they spoil; all text is escaped; what
//! was not recorded is said in a sentence; nothing on the page is loaded from elsewhere.

use std::fmt::{self, Write as _};

use crate::{
    outcome::{Deliveries, Latency, Outcome, Ramp, Run, Used},
    plots::{self, Chart},
    svg,
    text::{Escaped, bytes, number},
};

/// The whole page.
pub fn page(run: &Run) -> String {
    Page(run).to_string()
}

struct Page<'a>(&'a Run);

/// With more outcomes than this, the page begins with each of them folded.
const UNFOLDED_MAX: usize = 3;

type Formatter<'a, 'b> = &'a mut fmt::Formatter<'b>;

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: Formatter<'_, '_>) -> fmt::Result {
        let run = self.0;
        let title = title(run);
        write!(
            f,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}, {}</title>\n<style>\n{}",
            Escaped(&run.machine.date),
            include_str!("html.css"),
        )?;
        for (at, (light, dark)) in svg::PALETTE.iter().enumerate() {
            writeln!(f, ".s{at} {{ --series: light-dark({light}, {dark}); }}")?;
        }
        let (state, verdict) = state(&run.outcomes);
        write!(
            f,
            "</style>\n</head>\n<body>\n<main>\n<header><h1>{title}</h1>\
             <span class=\"pill {state}\">{verdict}</span></header>\n"
        )?;
        self.write_machine(f)?;
        if let Some(ramp) = &run.ramp {
            write_ramp(f, ramp)?;
        }
        let names = names(&run.outcomes);
        self.write_overlays(f, &names)?;
        for (at, (outcome, name)) in run.outcomes.iter().zip(&names).enumerate() {
            write_outcome(f, outcome, name, self.is_open(at))?;
        }
        if run.outcomes.is_empty() {
            writeln!(f, "<p class=\"empty\">Nothing was run.</p>")?;
        }
        write!(
            f,
            "<footer>Latencies count from the time at which an operation was due, not from when it began, so that \
             waiting in a queue is not left out.</footer>\n</main>\n</body>\n</html>\n"
        )
    }
}

impl Page<'_> {
    fn write_machine(&self, f: Formatter<'_, '_>) -> fmt::Result {
        let machine = &self.0.machine;
        writeln!(
            f,
            "<p class=\"soft\">{} · {} cores · {} · Linux {} · {} UTC</p>",
            Escaped(&machine.cpu),
            machine.cores,
            bytes(machine.memory_bytes as f64),
            Escaped(&machine.kernel),
            Escaped(&machine.date),
        )
    }

    /// Outcomes of one scenario over each other, and their figures in one table.
    fn write_overlays(&self, f: Formatter<'_, '_>, names: &[String]) -> fmt::Result {
        let mut seen: Vec<&str> = Vec::new();
        for outcome in &self.0.outcomes {
            if seen.contains(&outcome.scenario) {
                continue;
            }
            seen.push(outcome.scenario);
            let all = self.0.outcomes.iter().zip(names);
            let group: Vec<(&Outcome, &str)> = all
                .filter(|(other, _)| other.scenario == outcome.scenario)
                .map(|(other, name)| (other, &**name))
                .collect();
            if group.len() < 2 {
                continue;
            }
            let scenario = Escaped(outcome.scenario);
            writeln!(f, "<section>\n<h2>{scenario}: side by side</h2>")?;
            write_charts(f, &plots::overlays(&group))?;
            write_comparison(f, &group)?;
            writeln!(f, "</section>")?;
        }
        Ok(())
    }

    /// Whether an outcome is shown unfolded: what is wrong with it, or decides, must not be missed.
    fn is_open(&self, at: usize) -> bool {
        let outcome = &self.0.outcomes[at];
        let decides = self.0.ramp.as_ref().is_some_and(|ramp| {
            let load = ramp.steps.get(at).map(|step| step.load);
            load.is_some() && load == ramp.highest_held
        });
        let is_bad = outcome.void.is_some() || !outcome.faults.is_empty();
        self.0.outcomes.len() <= UNFOLDED_MAX || decides || is_bad
    }
}

fn title(run: &Run) -> String {
    let mut scenarios: Vec<&str> = run.outcomes.iter().map(|one| one.scenario).collect();
    scenarios.dedup();
    let ramp = if run.ramp.is_some() { "ramp of " } else { "" };
    match &*scenarios {
        [] => "Load test".to_owned(),
        scenarios => format!("Load test: {ramp}{}", Escaped(&scenarios.join(", "))),
    }
}

/// The worst that can be said, as a class and in words.
fn state(outcomes: &[Outcome]) -> (&'static str, String) {
    let void = outcomes.iter().filter(|one| one.void.is_some()).count();
    let faulty = outcomes.iter().filter(|one| !one.faults.is_empty()).count();
    let runs = outcomes.len();
    if let [only] = outcomes
        && let (None, Some(verdict)) = (&only.void, &only.verdict)
    {
        return match verdict.has_passed {
            true => ("clean", "passed".to_owned()),
            false => ("faults", "failed".to_owned()),
        };
    }
    match (void, faulty) {
        (0, 0) if runs == 0 => ("void", "nothing was run".to_owned()),
        (0, 0) => ("clean", "clean".to_owned()),
        (0, _) => ("faults", format!("faults in {faulty} of {runs}")),
        (_, 0) => ("void", format!("{void} of {runs} void")),
        _ => ("void", format!("{void} of {runs} void, faults in {faulty}")),
    }
}

/// What tells the outcomes apart: the target and those settings that are not the same for all of a scenario.
fn names(outcomes: &[Outcome]) -> Vec<String> {
    let name = |(at, outcome): (usize, &Outcome)| {
        let mut others = outcomes
            .iter()
            .filter(|other| other.scenario == outcome.scenario);
        let mut parts = Vec::new();
        if others.clone().any(|other| other.target != outcome.target) {
            parts.push(outcome.target.clone());
        }
        for setting in &outcome.settings {
            let differs = |other: &Outcome| {
                let theirs = other.settings.iter().find(|one| one.name == setting.name);
                theirs.is_none_or(|theirs| theirs.value != setting.value)
            };
            if others.clone().any(differs) {
                parts.push(format!("{} = {}", setting.name, setting.value));
            }
        }
        match (parts.is_empty(), others.nth(1)) {
            (true, None) => outcome.target.clone(),
            (true, Some(_)) => format!("run {}", at + 1),
            (false, _) => parts.join(", "),
        }
    };
    outcomes.iter().enumerate().map(name).collect()
}

fn write_ramp(f: Formatter<'_, '_>, ramp: &Ramp) -> fmt::Result {
    let objective = format!(
        "p{} of {} within {} ms",
        ramp.percentile,
        Escaped(ramp.latency),
        number(ramp.objective_ms)
    );
    let unit = Escaped(ramp.load_unit);
    writeln!(f, "<section>\n<h2>Highest load that keeps {objective}</h2>")?;
    match ramp.highest_held {
        Some(load) => writeln!(
            f,
            "<p class=\"verdict\"><strong>{} {unit}</strong> held.</p>",
            number(load)
        )?,
        None => writeln!(
            f,
            "<p class=\"alert\"><strong>No load that was tried held the objective.</strong></p>"
        )?,
    }
    writeln!(f, "<div class=\"beside\">")?;
    write_charts(f, &[plots::ramp(ramp)])?;
    writeln!(
        f,
        "<div class=\"scroll\"><table><thead><tr><th class=\"n\">{unit}</th>\
         <th class=\"n\">p{}, ms</th><th>objective</th></tr></thead><tbody>",
        ramp.percentile
    )?;
    for step in &ramp.steps {
        let is_best = step.has_held && Some(step.load) == ramp.highest_held;
        let row = if is_best {
            "<tr class=\"best\">"
        } else {
            "<tr>"
        };
        let (load, reached) = (number(step.load), number(step.reached_ms));
        let verdict = match step.has_held {
            true => "<td>held</td>",
            false => "<td class=\"missed\">missed</td>",
        };
        writeln!(
            f,
            "{row}<td class=\"n\">{load}</td><td class=\"n\">{reached}</td>{verdict}</tr>"
        )?;
    }
    writeln!(f, "</tbody></table></div>\n</div>\n</section>")
}

fn write_outcome(f: Formatter<'_, '_>, outcome: &Outcome, name: &str, open: bool) -> fmt::Result {
    let open = if open { " open" } else { "" };
    let (scenario, name) = (Escaped(outcome.scenario), Escaped(name));
    let (state, verdict) = state(std::slice::from_ref(outcome));
    let seconds = number(outcome.seconds);
    write!(f, "<details{open}>\n<summary><h2>{scenario} · {name}</h2>")?;
    match state {
        "clean" => writeln!(f, "<span class=\"pill\">{verdict}</span></summary>")?,
        state => writeln!(f, "<span class=\"pill {state}\">{state}</span></summary>")?,
    }
    if let Some(void) = &outcome.void {
        writeln!(
            f,
            "<p class=\"alert void\"><strong>Void:</strong> {}. The figures say nothing about the target.</p>",
            Escaped(void)
        )?;
    }
    if let Some(verdict) = &outcome.verdict {
        let class = if verdict.has_passed {
            "verdict"
        } else {
            "alert"
        };
        let sentence = verdict.sentence();
        writeln!(
            f,
            "<p class=\"{class}\"><strong>{}</strong></p>",
            Escaped(&sentence)
        )?;
    }
    for fault in &outcome.faults {
        let fault = Escaped(fault);
        writeln!(f, "<p class=\"alert\"><strong>Fault:</strong> {fault}</p>")?;
    }
    write!(
        f,
        "<ul class=\"settings\"><li><b>target</b> {}</li><li><b>lasted</b> {seconds} s</li>",
        Escaped(&outcome.target)
    )?;
    for setting in &outcome.settings {
        let (name, value) = (Escaped(setting.name), Escaped(&setting.value));
        write!(f, "<li><b>{name}</b> {value}</li>")?;
    }
    writeln!(f, "</ul>")?;
    write_charts(f, &plots::of(outcome))?;
    write_latencies(f, &outcome.latencies)?;
    writeln!(f, "<div class=\"tables\">")?;
    write_rows(f, "Figures", &figures(outcome))?;
    if let Some(deliveries) = &outcome.deliveries {
        write_rows(f, "Deliveries", &account(deliveries))?;
    }
    if let Some(used) = &outcome.used {
        write_rows(f, "Used by the target", &used_rows(used, outcome))?;
    }
    write_rows(f, "Load generator", &generator(outcome))?;
    writeln!(f, "</div>\n</details>")
}

fn write_charts(f: Formatter<'_, '_>, charts: &[Chart]) -> fmt::Result {
    writeln!(f, "<div class=\"plots\">")?;
    for chart in charts {
        let title = Escaped(&chart.plot.title);
        writeln!(f, "<figure><figcaption>{title}</figcaption>")?;
        let Some(svg) = chart.plot.drawn() else {
            writeln!(f, "<p class=\"empty\">No value was recorded.</p></figure>")?;
            continue;
        };
        writeln!(f, "{svg}")?;
        // A single line is what the caption says it is.
        if chart.legend.len() > 1 {
            write!(f, "<ul class=\"legend\">")?;
            for (series, name) in &chart.legend {
                let classes = svg::classes(*series);
                write!(f, "<li><i class=\"{classes}\"></i>{}</li>", Escaped(name))?;
            }
            writeln!(f, "</ul>")?;
        }
        writeln!(f, "</figure>")?;
    }
    writeln!(f, "</div>")
}

fn write_latencies(f: Formatter<'_, '_>, latencies: &[Latency]) -> fmt::Result {
    if latencies.is_empty() {
        return Ok(());
    }
    write!(
        f,
        "<h3>Latency, ms</h3>\n<div class=\"scroll\"><table><thead><tr><th></th><th class=\"n\">count</th>"
    )?;
    for (name, _) in Latency::PERCENTILES {
        write!(f, "<th class=\"n\">{name}</th>")?;
    }
    writeln!(f, "<th class=\"n\">mean</th></tr></thead><tbody>")?;
    for latency in latencies {
        let (label, count) = (Escaped(latency.label), latency.histogram.len());
        let total = number(count as f64);
        write!(f, "<tr><th>{label}</th><td class=\"n\">{total}</td>")?;
        let percentiles =
            Latency::PERCENTILES.map(|(_, percentile)| latency.percentile_ms(percentile));
        for value in percentiles
            .into_iter()
            .chain([latency.histogram.mean() / 1e6])
        {
            let value = if count == 0 { f64::NAN } else { value };
            write!(f, "<td class=\"n\">{}</td>", number(value))?;
        }
        writeln!(f, "</tr>")?;
    }
    writeln!(f, "</tbody></table></div>")
}

/// One row per outcome, one column per figure.
fn write_comparison(f: Formatter<'_, '_>, group: &[(&Outcome, &str)]) -> fmt::Result {
    let mut columns: Vec<(&str, &str, &str)> = Vec::new();
    for figure in group.iter().flat_map(|(outcome, _)| &outcome.figures) {
        if columns.iter().all(|(key, ..)| *key != figure.key) {
            columns.push((figure.key, figure.label, figure.unit));
        }
    }
    if columns.is_empty() {
        return Ok(());
    }
    write!(
        f,
        "<h3>Figures</h3>\n<div class=\"scroll\"><table><thead><tr><th></th>"
    )?;
    for (_, label, unit) in &columns {
        let label = plots::with_unit(label, unit);
        write!(f, "<th class=\"n\">{}</th>", Escaped(&label))?;
    }
    writeln!(f, "</tr></thead><tbody>")?;
    for (outcome, name) in group {
        write!(f, "<tr><th>{}</th>", Escaped(name))?;
        for (key, ..) in &columns {
            let figure = outcome.figures.iter().find(|figure| figure.key == *key);
            let value = figure.map_or(f64::NAN, |figure| figure.value);
            write!(f, "<td class=\"n\">{}</td>", number(value))?;
        }
        writeln!(f, "</tr>")?;
    }
    writeln!(f, "</tbody></table></div>")
}

/// A label, and a value with its unit.
type Row = (String, String);

fn write_rows(f: Formatter<'_, '_>, title: &str, rows: &[Row]) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(f, "<div><h3>{title}</h3><table><tbody>")?;
    for (label, value) in rows {
        let (label, value) = (Escaped(label), Escaped(value));
        writeln!(f, "<tr><th>{label}</th><td class=\"n\">{value}</td></tr>")?;
    }
    writeln!(f, "</tbody></table></div>")
}

fn row(label: &str, value: impl fmt::Display) -> Row {
    (label.to_owned(), value.to_string())
}

fn figures(outcome: &Outcome) -> Vec<Row> {
    let figures = outcome.figures.iter();
    figures
        .map(|figure| {
            let value = format!("{} {}", number(figure.value), figure.unit);
            row(figure.label, value)
        })
        .collect()
}

fn account(deliveries: &Deliveries) -> Vec<Row> {
    let count = |label, count: u64| row(label, number(count as f64));
    vec![
        count("expected", deliveries.expected),
        count("received", deliveries.received),
        count("lost", deliveries.lost),
        count("duplicates", deliveries.duplicates),
        count("out of order", deliveries.out_of_order),
    ]
}

fn used_rows(used: &Used, outcome: &Outcome) -> Vec<Row> {
    let count = |count: u64| number(count as f64);
    let mut rows = vec![
        row("CPU, user", format!("{} s", number(used.cpu_user_s))),
        row("CPU, system", format!("{} s", number(used.cpu_system_s))),
        row("switches, waited", count(used.switches_voluntary)),
        row("switches, pushed aside", count(used.switches_involuntary)),
        row("memory before", bytes(used.resident_bytes_before as f64)),
        row("memory after", bytes(used.resident_bytes_after as f64)),
    ];
    if let Some(calls) = used.system_calls {
        let mut text = count(calls);
        let received = outcome.deliveries.map_or(0, |account| account.received);
        if received > 0 {
            let each = number(calls as f64 / received as f64);
            write!(text, " ({each} per message)").expect("a string takes all");
        }
        rows.push(row("system calls", text));
    }
    rows
}

fn generator(outcome: &Outcome) -> Vec<Row> {
    let generator = &outcome.generator;
    vec![
        row(
            "busiest thread",
            format!("{:.0} % of a core", generator.cpu_share * 100.0),
        ),
        row("late, p99", format!("{} ms", number(generator.late_p99_ms))),
        row("late, max", format!("{} ms", number(generator.late_max_ms))),
    ]
}
