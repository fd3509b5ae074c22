//! Strangers that send: messages without an end, long ones, and what is held for those who send them.

use serde_json::json;

use super::answered_per_round;
use crate::scene::{Scene, count_of, frame, ping, subscribe};

#[test]
fn stranger_that_holds_little_stays_when_others_fill_what_is_held_for_strangers() {
    const HOARDERS: usize = 40;
    let keys = json!({"net": {"input_held_bytes": 1_048_576}});
    let mut scene = Scene::start(1, &keys, &json!({}));
    let hoarders = scene.arrive(HOARDERS, |_| 0, |_| Vec::new());
    let unfinished = frame(&json!({"event": "x", "data": "x".repeat(60_000)}));
    let innocents = scene.arrive(20, |_| 0, |_| Vec::new());
    for hoarder in &hoarders {
        scene.takes(hoarder.link);
        scene.say(hoarder.link, &unfinished[..unfinished.len() - 1]);
    }
    scene.rest();
    let wish = subscribe("news");
    let (first, second) = wish.split_at(wish.len() / 2);
    for innocent in &innocents {
        scene.takes(innocent.link);
        scene.say(innocent.link, first);
        scene.rest();
    }
    for innocent in &innocents {
        scene.say(innocent.link, second);
        scene.rest();
        let told = scene.takes_count(innocent.link, "subscription_succeeded");
        assert_eq!(told, 1);
    }
    let told: Vec<Vec<u8>> = hoarders.iter().map(|it| scene.takes(it.link)).collect();
    let sent_away = told
        .iter()
        .filter(|bytes| count_of(bytes, b"4100") > 0)
        .count();
    // 40 times 60 kB are more than twice the bound.
    assert!((22..=25).contains(&sent_away), "{sent_away} were sent away");
}

#[test]
fn stranger_with_long_texts_pays_for_their_parsing() {
    const COUNT: usize = 300;
    for (data, most) in [("x".repeat(60_000), 21), ("\n".repeat(30_000), 5)] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let visitors = scene.arrive(COUNT, |_| 0, |_| Vec::new());
        let text = frame(&json!({"event": "pusher:ping", "data": {"x": data}}));
        for visitor in &visitors {
            scene.say(visitor.link, &text[..text.len() - 1]);
        }
        scene.rest();
        for visitor in &visitors {
            scene.say(visitor.link, &text[text.len() - 1..]);
        }
        let links: Vec<usize> = visitors.iter().map(|it| it.link).collect();
        let (highest, all) = answered_per_round(&mut scene, &links, "pusher:pong", 400);
        assert_eq!(all, COUNT);
        assert!(highest <= most, "{highest} in one turn");
    }
}

/// A masked frame, with or without the end of its message.
fn fragment(opcode: u8, payload: &[u8], is_last: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::wire::put_frame(&mut bytes, opcode, payload, 0x0102_0304);
    bytes[0] = opcode | if is_last { 0x80 } else { 0 };
    bytes
}

#[test]
fn stranger_whose_message_never_ends_is_sent_away_whatever_it_sends_between() {
    let wanted_s = 120 + 4; // The time-out of activity, and 64 KiB at 16 KiB/s.
    let text = subscribe("news");
    for (case, begins, goes_on) in [
        (
            "fragments",
            fragment(1, b"{", false),
            fragment(0, b" ", false),
        ),
        (
            "pongs between fragments",
            fragment(1, b"{", false),
            fragment(10, b"", true),
        ),
        (
            "a byte of a frame now and then",
            vec![0x81, 0xFE, 0xFF, 0xFF],
            b"x".to_vec(),
        ),
        ("whole messages", text.clone(), text.clone()),
        (
            "a message that ends and the next one's beginning",
            text[..9].to_vec(),
            [&text[9..], &text[..9]].concat(),
        ),
        ("nothing unfinished", Vec::new(), ping()),
    ] {
        let mut scene = Scene::start(1, &json!({}), &json!({}));
        let visitor = scene.arrives(0);
        scene.say(visitor.link, &begins);
        let mut closed_s = None;
        for second in 1..=400 {
            scene.passes(1_000);
            if second % 10 == 0 {
                scene.say(visitor.link, &goes_on);
            }
            let told = scene.takes(visitor.link);
            let code = 4201_u16.to_be_bytes();
            let is_close = told.windows(4).any(|it| it[0] == 0x88 && it[2..] == code);
            if is_close && closed_s.is_none() {
                closed_s = Some(second);
                assert_eq!(
                    count_of(&told, b"Message not received in time"),
                    2,
                    "{case}"
                );
            }
        }
        let is_honest = case.contains("whole") || case.contains("ends") || case.contains("nothing");
        match closed_s {
            None => assert!(is_honest, "{case}: never closed"),
            Some(second) => {
                assert!(!is_honest, "{case}: closed after {second} s");
                assert!(
                    (wanted_s..=wanted_s + 31).contains(&second),
                    "{case}: {second} s"
                );
            }
        }
    }
}

#[test]
fn stranger_or_not_with_a_slow_line_gets_a_large_message_through() {
    let mut scene = Scene::start(1, &json!({}), &json!({}));
    let visitor = scene.arrives(0);
    let text = frame(&json!({"event": "pusher:ping", "data": {"x": "x".repeat(60_000)}}));
    for _ in 0..3 {
        for piece in text.chunks(600) {
            scene.say(visitor.link, piece);
            scene.passes(1_000);
        }
        assert!(scene.has_pong(&visitor), "600 bytes per second");
        scene.takes(visitor.link);
    }
}
