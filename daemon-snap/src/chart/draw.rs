//! The picture of a boot, as SVG.

use super::{Boot, DiskRate, How, Phase, Service};
use svg::Document;
use svg::node::element::{Group, Line, Path, Rectangle, Style, Text, Title};

/// Width of the part that is time, in pixels.
const TIME_WIDTH: f64 = 1000.0;
const LEFT: f64 = 20.0;
/// Beside the time: words about the bars that end late.
const RIGHT: f64 = 420.0;
const HEAD: f64 = 96.0;
const ROW: f64 = 20.0;
const BAR: f64 = 14.0;
const DISK: f64 = 90.0;
const FOOT: f64 = 30.0;
/// No more lines of time than this.
const MOST_TICKS: f64 = 14.0;

/// Parts of a restore, and what else there is. The colours are told apart by people who do not see
/// red or green (Okabe and Ito).
const PARTS: [(&str, &str); 8] = [
    ("systemd", "#999999"),
    ("queue", "#f0e442"),
    ("evidence", "#56b4e9"),
    ("reading", "#0072b2"),
    ("restore", "#009e73"),
    ("hand-over", "#cc79a7"),
    ("cold, with an image", "#d55e00"),
    ("without an image", "#dddddd"),
];
const READ_COLOUR: &str = "#0072b2";
const WRITTEN_COLOUR: &str = "#d55e00";

/// Draws it. One row per service, the cold start as it was measured as a frame around a restored
/// one, and what the disks did below.
pub fn draw(boot: &Boot) -> String {
    let scale = Scale::of(boot);
    let rows_end = HEAD + boot.services.len() as f64 * ROW;
    let disk_end = if boot.disk.is_empty() { rows_end } else { rows_end + ROW + DISK };
    let (width, height) = (LEFT + TIME_WIDTH + RIGHT, disk_end + FOOT);
    let mut picture = Document::new()
        .set("width", width)
        .set("height", height)
        .set("viewBox", (0, 0, width as i64, height.ceil() as i64))
        .add(Style::new("text { font: 12px sans-serif; fill: #222 } .small { font-size: 11px; fill: #555 }"))
        .add(Rectangle::new().set("width", "100%").set("height", "100%").set("fill", "#ffffff"))
        .add(text(LEFT, 20.0, &boot.machine))
        .add(text(LEFT, 38.0, &boot.sentence()));
    picture = picture.add(legend()).add(scale.ticks(rows_end.max(disk_end)));
    for (number, service) in boot.services.iter().enumerate() {
        picture = picture.add(row(service, &scale, HEAD + number as f64 * ROW));
    }
    if !boot.disk.is_empty() {
        picture = picture.add(disk(&boot.disk, &scale, rows_end + ROW));
    }
    if let Some(finished_us) = boot.finished_us {
        let at = scale.x(finished_us);
        let end = Line::new().set("x1", at).set("x2", at).set("y1", HEAD - 6.0).set("y2", disk_end);
        picture = picture.add(end.set("stroke", "#222").set("stroke-dasharray", "4 3"));
    }
    format!("{picture}\n")
}

/// From moments to places.
struct Scale {
    begin_us: u64,
    px_per_us: f64,
    step_us: f64,
    len_us: f64,
}

impl Scale {
    fn of(boot: &Boot) -> Scale {
        let len_us = boot.end_us.saturating_sub(boot.userspace_us).max(1) as f64;
        let mut step_us = 1e3;
        // 1, 2, 5, 10, …
        for factor in [2.0, 2.5, 2.0].into_iter().cycle() {
            if len_us / step_us <= MOST_TICKS {
                break;
            }
            step_us *= factor;
        }
        Scale { begin_us: boot.userspace_us, px_per_us: TIME_WIDTH / len_us, step_us, len_us }
    }

    fn x(&self, us: u64) -> f64 {
        let at = us.saturating_sub(self.begin_us) as f64 * self.px_per_us;
        LEFT + at.min(TIME_WIDTH)
    }

    fn px(&self, ms: f64) -> f64 {
        ms.max(0.0) * 1e3 * self.px_per_us
    }

    fn ticks(&self, bottom: f64) -> Group {
        let mut ticks = Group::new();
        let count = (self.len_us / self.step_us).floor() as u32;
        for number in 0..=count {
            let us = f64::from(number) * self.step_us;
            let at = LEFT + us * self.px_per_us;
            let line = Line::new().set("x1", at).set("x2", at).set("y1", HEAD - 4.0).set("y2", bottom);
            ticks = ticks.add(line.set("stroke", "#e8e8e8"));
            let label =
                if self.step_us < 1e6 { format!("{} ms", us / 1e3) } else { format!("{} s", us / 1e6) };
            ticks = ticks.add(text(at + 2.0, HEAD - 8.0, &label).set("class", "small"));
        }
        ticks
    }
}

fn legend() -> Group {
    let mut legend = Group::new();
    let mut at = LEFT;
    for (name, colour) in PARTS {
        let square = Rectangle::new().set("x", at).set("y", 50).set("width", 12).set("height", 12);
        legend = legend.add(square.set("fill", colour));
        legend = legend.add(text(at + 16.0, 60.0, name).set("class", "small"));
        at += 32.0 + 6.5 * name.len() as f64;
    }
    let frame = Rectangle::new().set("x", at).set("y", 50).set("width", 12).set("height", 12);
    legend.add(framed(frame)).add(
        text(at + 16.0, 60.0, "its cold start, as measured when the image was taken").set("class", "small"),
    )
}

fn row(service: &Service, scale: &Scale, top: f64) -> Group {
    let start = scale.x(service.start_us);
    let y = top + (ROW - BAR) / 2.0;
    let bar = |from: f64, width: f64, colour: &str| {
        let bar = Rectangle::new().set("x", from).set("y", y).set("width", width.max(0.5));
        bar.set("height", BAR).set("fill", colour)
    };
    let mut row = Group::new();
    let ready = service.ready_us.map(|us| scale.x(us));
    let took_ms = service.ready_us.map(|us| us.saturating_sub(service.start_us) as f64 / 1e3);
    let took = took_ms.map_or_else(|| "never ready".to_owned(), |ms| format!("{ms:.0} ms"));
    let mut right = ready.unwrap_or(start);
    let words = match &service.how {
        How::Restored { phases_ms, cold_start_ms } => {
            let mut at = start;
            for phase in phases_ms {
                let width = scale.px(phase.ms).min(LEFT + TIME_WIDTH - at).max(0.0);
                row = row.add(bar(at, width, colour(&phase.name)).add(Title::new(said(phase))));
                at += width;
            }
            right = right.max(at);
            let cold = cold_start_ms.map(|ms| {
                let width = scale.px(ms).min(LEFT + TIME_WIDTH - start).max(0.0);
                right = right.max(start + width);
                let frame = Rectangle::new().set("x", start).set("y", y - 1.5).set("width", width);
                row = row.clone().add(framed(frame.set("height", BAR + 3.0)));
                format!(", cold {ms:.0} ms")
            });
            format!("{took}{}", cold.unwrap_or_default())
        }
        How::Cold { reason } => {
            let last = ready.unwrap_or(LEFT + TIME_WIDTH);
            row = row.add(bar(start, last - start, PARTS[6].1).add(Title::new(reason.as_str())));
            format!("{took}, cold: {}", shortened(reason))
        }
        How::Other => {
            let last = ready.unwrap_or(start);
            row = row.add(bar(start, last - start, PARTS[7].1));
            took
        }
    };
    let name = service.unit.strip_suffix(".service").unwrap_or(&service.unit);
    row.add(text(right + 5.0, top + ROW - 6.0, &format!("{name}  {words}")))
}

fn framed(frame: Rectangle) -> Rectangle {
    frame.set("fill", "none").set("stroke", "#222").set("stroke-dasharray", "3 2")
}

fn said(phase: &Phase) -> String {
    format!("{} {:.1} ms", phase.name, phase.ms)
}

/// Phases as `fastboot status` calls them, by what they are about.
fn colour(phase: &str) -> &'static str {
    let part = match phase {
        "systemd" => 0,
        "queue" | "lane" => 1,
        "evidence" | "main process" | "surroundings" => 2,
        "check" | "load" => 3,
        "hooks" | "bus name" | "hand-over" => 5,
        _ => 4,
    };
    PARTS[part].1
}

fn shortened(reason: &str) -> String {
    const MOST: usize = 60;
    match reason.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &reason[..at]),
        None => reason.to_owned(),
    }
}

fn disk(rates: &[DiskRate], scale: &Scale, top: f64) -> Group {
    let highest = rates.iter().map(|rate| rate.read.max(rate.written)).fold(1.0, f64::max);
    let curve = |of: fn(&DiskRate) -> f64, colour: &str| {
        let y = |rate: &DiskRate| top + DISK - of(rate) / highest * (DISK - 16.0);
        let mut steps = String::new();
        for rate in rates {
            let (from, to) = (scale.x(rate.from_us), scale.x(rate.to_us));
            let verb = if steps.is_empty() { 'M' } else { 'L' };
            steps.push_str(&format!("{verb}{from:.1},{0:.1}L{to:.1},{0:.1}", y(rate)));
        }
        Path::new().set("d", steps).set("fill", "none").set("stroke", colour).set("stroke-width", 1.5)
    };
    let base = Line::new().set("x1", LEFT).set("x2", LEFT + TIME_WIDTH).set("y1", top + DISK);
    let words = format!("disks: read (blue) and written (orange), at most {:.0} MB/s", highest / 1e6);
    Group::new()
        .add(base.set("y2", top + DISK).set("stroke", "#999"))
        .add(curve(|rate| rate.read, READ_COLOUR))
        .add(curve(|rate| rate.written, WRITTEN_COLOUR))
        .add(text(LEFT, top + 8.0, &words).set("class", "small"))
}

fn text(x: f64, y: f64, words: &str) -> Text {
    Text::new(words).set("x", x).set("y", y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use svg::parser::Event;

    fn boot() -> Boot {
        let phase = |name: &str, ms| Phase { name: name.to_owned(), ms };
        let restored = How::Restored {
            phases_ms: vec![phase("systemd", 40.0), phase("check", 100.0), phase("release", 30.0)],
            cold_start_ms: Some(2400.0),
        };
        let service =
            |unit: &str, start_us, ready_us, how| Service { unit: unit.to_owned(), start_us, ready_us, how };
        Boot {
            machine: "box, Linux 6.12, systemd 257".to_owned(),
            userspace_us: 5_000_000,
            finished_us: Some(6_000_000),
            end_us: 6_000_000,
            services: vec![
                service("dbus.service", 5_100_000, Some(5_130_000), How::Other),
                service("tomcat10.service", 5_300_000, Some(5_470_000), restored),
                service("a<b&c.service", 5_900_000, None, How::Cold { reason: "/etc/a changed".to_owned() }),
            ],
            disk: vec![
                DiskRate { from_us: 4_900_000, to_us: 5_200_000, read: 2e8, written: 0.0 },
                DiskRate { from_us: 5_200_000, to_us: 6_300_000, read: 1e6, written: 3e6 },
            ],
        }
    }

    fn number(attributes: &std::collections::HashMap<String, svg::node::Value>, name: &str) -> Option<f64> {
        attributes.get(name).and_then(|value| value.parse().ok())
    }

    #[test]
    fn every_service_is_named_and_everything_lies_within_the_picture() {
        let drawn = draw(&boot());
        for words in [
            "dbus  30 ms",
            "tomcat10  170 ms, cold 2400 ms",
            "/etc/a changed",
            "a&lt;b&amp;c",
            "at most 200 MB/s",
        ] {
            assert!(drawn.contains(words), "{words} is not in {drawn}");
        }
        let (mut width, mut height, mut seen) = (0.0, 0.0, 0);
        for event in svg::read(&drawn).unwrap() {
            let Event::Tag(name, _, attributes) = event else { continue };
            match name {
                "svg" if !attributes.is_empty() => {
                    width = number(&attributes, "width").unwrap();
                    height = number(&attributes, "height").unwrap();
                }
                "rect" => {
                    let Some(x) = number(&attributes, "x") else { continue };
                    let (y, w) = (number(&attributes, "y").unwrap(), number(&attributes, "width").unwrap());
                    assert!(x >= 0.0 && x + w <= LEFT + TIME_WIDTH + 1.0 || y < HEAD, "{attributes:?}");
                    assert!(y + BAR <= height && x <= width);
                    seen += 1;
                }
                _ => {}
            }
        }
        // The legend, three phases and the frame, and the bars of the other two.
        assert_eq!(seen, PARTS.len() + 1 + 3 + 1 + 2);
    }

    #[test]
    fn lines_of_time_are_neither_too_few_nor_too_many() {
        for len_us in [900, 80_000, 1_000_000, 26_900_000, 400_000_000] {
            let boot = Boot { end_us: 7 + len_us, userspace_us: 7, ..Boot::default() };
            let scale = Scale::of(&boot);
            let count = scale.len_us / scale.step_us;
            assert!(count <= MOST_TICKS && (count >= MOST_TICKS / 2.6 || len_us < 4000), "{len_us}: {count}");
        }
    }

    #[test]
    fn an_empty_boot_is_a_picture() {
        assert!(draw(&Boot::default()).contains("</svg>"));
    }

    #[test]
    fn a_long_reason_is_shortened_between_letters() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"ä".repeat(80)).chars().count(), 61);
    }
}
