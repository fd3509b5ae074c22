//! What is carried to another process, as it is written and shown.
//!
//! Owns: the tests of `Carried` beside those over sockets.
//! May depend on: shards, serde_json.
//! Invariants: no socket, no runtime.

use shards::{Carried, CarriedFrame, CarriedTls};

#[test]
fn what_another_version_wrote_is_read() {
    let older = r#"{"is_paused": true, "tls": {"suite": 4865, "opening": {"number": 7}}}"#;
    let read: Carried = serde_json::from_str(older).expect("fields are missing");
    assert!(read.is_paused);
    assert_eq!(read.timer_ms, None);
    let tls = read.tls.expect("it is there");
    assert_eq!(
        (tls.suite, tls.opening.number, tls.sealing.number),
        (4_865, 7, 0)
    );
    let newer = r#"{"peer_ended": true, "unsent": [{"bytes": [104, 105], "of": 1}], "more": {}}"#;
    let read: Carried = serde_json::from_str(newer).expect("fields are unknown");
    assert!(read.peer_ended);
    let frame = &read.unsent[0];
    assert_eq!(frame.bytes, b"hi");
    assert_eq!((frame.is_own, frame.shared, frame.sent), (false, None, 0));
}

#[test]
fn a_frame_says_what_it_is_and_nothing_of_what_it_is_not() {
    let frames = [
        (CarriedFrame::default(), "{}"),
        (
            CarriedFrame {
                bytes: vec![1],
                is_own: true,
                ..CarriedFrame::default()
            },
            r#"{"bytes":[1],"is_own":true}"#,
        ),
        (
            CarriedFrame {
                shared: Some(0),
                ..CarriedFrame::default()
            },
            r#"{"shared":0}"#,
        ),
        (
            CarriedFrame {
                shared: Some(u64::MAX),
                sent: 7,
                ..CarriedFrame::default()
            },
            r#"{"shared":18446744073709551615,"sent":7}"#,
        ),
    ];
    for (frame, text) in frames {
        let written = serde_json::to_string(&frame).expect("it can be written");
        assert_eq!(written, text);
        let read: CarriedFrame = serde_json::from_str(text).expect("and read");
        assert_eq!(read, frame);
    }
}

#[test]
fn no_debug_shows_what_is_secret() {
    let text = r#"{"unopened": [201], "unsent": [202], "opening": {"secret": [203], "key": [204]},
        "sealing": {"number": 5, "iv": [205]}}"#;
    let tls: CarriedTls = serde_json::from_str(text).expect("it is one");
    let carried = Carried {
        tls: Some(tls.clone()),
        ..Carried::default()
    };
    let shown = format!("{carried:?} {:?} {:?}", tls.opening, tls.opening.secret);
    assert!(
        (201..=205).all(|byte| !shown.contains(&byte.to_string())),
        "{shown}"
    );
    assert!(shown.contains("sealed: 5"), "{shown}");
}
