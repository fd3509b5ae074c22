//! A real browser looks at a page: where things stand, and what their pixels are.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::picture::Picture;

const CHROMIUM: &str = "/usr/bin/chromium";

pub(crate) fn is_installed() -> bool {
    Path::new(CHROMIUM).exists()
}

/// A page as it is seen.
pub(crate) struct View {
    pub(crate) layout: Layout,
    pub(crate) picture: Picture,
}

/// Where things stand, in pixels from the page's top left corner.
#[derive(Deserialize)]
pub(crate) struct Layout {
    /// What the window has room for, and what the page takes.
    pub(crate) window_width: f64,
    pub(crate) page_width: f64,
    pub(crate) page_height: f64,
    pub(crate) plots: Vec<Drawn>,
    /// Elements that stand out of the window and cannot be scrolled into it by themselves.
    pub(crate) overflowing: Vec<String>,
    /// Texts of a plot that overlap another text of it, or stand out of it.
    pub(crate) collisions: Vec<String>,
    /// Addresses of what the page asked for.
    pub(crate) fetched: Vec<String>,
    /// Text that can be read.
    pub(crate) text: String,
}

#[derive(Deserialize)]
pub(crate) struct Drawn {
    pub(crate) title: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// The colours of lines, and of the axis, as the browser computes them.
    pub(crate) lines: Vec<[u8; 3]>,
    pub(crate) axis: [u8; 3],
}

/// Which of its two looks a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Light,
    Dark,
}

/// Renders a page in a window of that width. `SOCKUDO_TEST_SCREENSHOTS=FOLDER` keeps the pictures.
pub(crate) fn view(html: &str, width: u32, scheme: Scheme) -> View {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = include_str!("probe.js");
    let probed = format!("{html}<script>{probe}</script>");
    // A window cannot be as narrow as a telephone, but a frame in it can.
    let framed = format!(
        "<!doctype html><style>html,body,iframe{{margin:0;border:0;display:block;overflow:hidden}}</style>\
         <iframe src=\"page.html\" width=\"{width}\" style=\"height:100vh\"></iframe>\
         <script>onmessage = (event) => {{\
           const pre = document.createElement('pre'); pre.id = 'layout';\
           pre.style.display = 'none'; pre.textContent = event.data; document.body.append(pre); }}</script>"
    );
    std::fs::write(folder.path().join("page.html"), probed).expect("the page can be written");
    std::fs::write(folder.path().join("frame.html"), framed).expect("the frame can be written");

    let shot = folder.path().join("shot.png");
    let dom = chromium(folder.path(), width, scheme, &shot);
    let layout = layout(&String::from_utf8_lossy(&dom));
    assert!(
        layout.page_height <= f64::from(HEIGHT),
        "{} high",
        layout.page_height
    );
    let png = std::fs::read(&shot).expect("a screenshot was taken");
    if let Some(keep) = std::env::var_os("SOCKUDO_TEST_SCREENSHOTS") {
        let name = format!("{width}-{scheme:?}-{}.png", std::process::id());
        std::fs::write(Path::new(&keep).join(name), &png).expect("the screenshot can be kept");
    }
    View {
        layout,
        picture: Picture::decode(&png),
    }
}

/// Higher than any page here: all of it is in the screenshot.
const HEIGHT: u32 = 7_000;

fn chromium(folder: &Path, width: u32, scheme: Scheme, shot: &Path) -> Vec<u8> {
    let dark = match scheme {
        Scheme::Light => "--blink-settings=preferredColorScheme=1",
        Scheme::Dark => "--blink-settings=preferredColorScheme=0",
    };
    let output = Command::new(CHROMIUM)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
        ])
        .args(["--no-first-run", "--disable-background-networking"])
        .args([
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ])
        .args([
            "--force-device-scale-factor=1",
            "--force-color-profile=srgb",
            dark,
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .arg(format!("--window-size={width},{HEIGHT}"))
        .args(["--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("--screenshot={}", shot.display()))
        .arg(format!("file://{}", folder.join("frame.html").display()))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .expect("Chromium starts");
    assert!(
        output.status.success(),
        "Chromium ended with {}",
        output.status
    );
    output.stdout
}

fn layout(dom: &str) -> Layout {
    let (_, after) = dom
        .split_once("<pre id=\"layout\"")
        .expect("the probe has run");
    let (_, after) = after.split_once('>').expect("the tag ends");
    let (text, _) = after.split_once("</pre>").expect("the element ends");
    let json = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&nbsp;", "\u{a0}")
        .replace("&amp;", "&");
    serde_json::from_str(&json).expect("the probe tells what is asked")
}
