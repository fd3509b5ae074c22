//! Data path. The scan of a JSON text: every byte is looked at once, and nothing is kept.
//!
//! Owns: the JSON grammar (RFC 8259).
//! May depend on: `protocol::json`.
//! Invariants: what is handed out was validated completely; nothing here recurses or allocates.

use super::{DEPTH_MAX, JsonError, JsonString, JsonValue, plain_bytes, unescape};

/// A text that is read from its beginning, each byte once: whole values, or member by member and item by
/// item, with a pause wherever its reader likes.
#[derive(Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    place: Place,
    within: Within,
}

/// Where a scan stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Bytes before it.
    pub at: usize,
    /// Bytes of those that cost next to nothing: of strings, all but some of each.
    cheap: usize,
    /// Escapes before it.
    escapes: usize,
    /// Objects and arrays that were entered and not left.
    depth: u32,
}

impl Place {
    /// Bytes before it that stood outside of strings, with some of each string.
    pub fn dear_bytes(self) -> usize {
        self.at - self.cheap
    }

    /// Escapes before it.
    pub fn escapes(self) -> usize {
        self.escapes
    }
}

/// How much there may be of what costs more than to be looked at.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Bytes outside of strings, of each of which `STRING_DEAR_BYTES` count as outside.
    pub dear_bytes_max: usize,
    pub escapes_max: usize,
}

impl Bound {
    pub const NONE: Self = Self {
        dear_bytes_max: usize::MAX,
        escapes_max: usize::MAX,
    };
}

/// A bound, from somewhere on.
#[derive(Clone, Copy, Debug)]
pub struct Within {
    from: Place,
    bound: Bound,
}

/// What has others in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    Object,
    Array,
}

impl Container {
    fn ends(self) -> (u8, u8) {
        match self {
            Self::Object => (b'{', b'}'),
            Self::Array => (b'[', b']'),
        }
    }
}

impl<'a> Scanner<'a> {
    /// At the beginning of a text.
    pub fn of(text: &'a str) -> Self {
        Self::resumed(text, Place::default(), Bound::NONE)
    }

    /// Where another scan of the same text stood. The bound is that of the whole text.
    pub fn resumed(text: &'a str, place: Place, bound: Bound) -> Self {
        let from = Place::default();
        Self {
            text,
            place,
            within: Within { from, bound },
        }
    }

    /// Where to go on from.
    pub fn place(&self) -> Place {
        self.place
    }

    /// From here on there may be no more than that; gives back the bound before.
    pub fn bound(&mut self, bound: Bound) -> Within {
        let from = self.place;
        std::mem::replace(&mut self.within, Within { from, bound })
    }

    /// A bound that was before holds again, for what was read meanwhile too.
    pub fn restore(&mut self, within: Within) -> Result<(), JsonError> {
        self.within = within;
        self.check_dear()?;
        self.check_escapes()
    }

    fn check_dear(&self) -> Result<(), JsonError> {
        let Within { from, bound } = &self.within;
        let bytes_max = bound.dear_bytes_max;
        match self.place.dear_bytes() - from.dear_bytes() > bytes_max {
            true => Err(JsonError::TooMuch { bytes_max }),
            false => Ok(()),
        }
    }

    fn check_escapes(&self) -> Result<(), JsonError> {
        let Within { from, bound } = &self.within;
        let count_max = bound.escapes_max;
        match self.place.escapes - from.escapes > count_max {
            true => Err(JsonError::TooManyEscapes { count_max }),
            false => Ok(()),
        }
    }

    /// Whether such a one begins here.
    pub fn begins(&mut self, container: Container) -> bool {
        self.peek_token() == Ok(Some(container.ends().0))
    }

    /// Enters the one that begins here; says whether anything is in it.
    pub fn enter(&mut self, container: Container) -> Result<bool, JsonError> {
        let (open, close) = container.ends();
        if self.next_token()? != Some(open) {
            return Err(JsonError::Malformed);
        }
        if self.place.depth == DEPTH_MAX {
            return Err(JsonError::TooDeep);
        }
        self.place.depth += 1;
        let is_empty = self.peek_token()? == Some(close);
        if is_empty {
            self.leave();
        }
        Ok(!is_empty)
    }

    /// Behind a member or an item: says whether another follows, or leaves.
    pub fn another(&mut self, container: Container) -> Result<bool, JsonError> {
        let (_, close) = container.ends();
        match self.peek_token()? {
            Some(b',') => {
                self.place.at += 1;
                Ok(true)
            }
            Some(token) if token == close => {
                self.leave();
                Ok(false)
            }
            _ => Err(JsonError::Malformed),
        }
    }

    /// The whole text is an object, as far as its first token tells: text that is no JSON at all is told from
    /// JSON of another type.
    pub fn check_object(&mut self) -> Result<(), JsonError> {
        if self.begins(Container::Object) {
            return Ok(());
        }
        self.value()?;
        self.end()?;
        Err(JsonError::NotAnObject)
    }

    /// Reads an object, and shows each of its members in order.
    pub fn members(
        &mut self,
        mut member: impl FnMut(JsonString<'a>, JsonValue<'a>),
    ) -> Result<(), JsonError> {
        let mut is_member = self.enter(Container::Object)?;
        while is_member {
            let key = self.key()?;
            member(key, self.value()?);
            is_member = self.another(Container::Object)?;
        }
        Ok(())
    }

    /// Takes the bracket that ends the innermost one.
    fn leave(&mut self) {
        self.place.at += 1;
        self.place.depth -= 1;
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.place.at == self.text.len()
    }

    /// The next byte that is no whitespace, not consumed.
    fn peek_token(&mut self) -> Result<Option<u8>, JsonError> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.place.at += 1;
            self.check_dear()?;
        }
        Ok(self.peek())
    }

    /// The next byte that is no whitespace, consumed.
    fn next_token(&mut self) -> Result<Option<u8>, JsonError> {
        let token = self.peek_token()?;
        self.place.at += usize::from(token.is_some());
        Ok(token)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.place.at).copied()
    }

    /// Nothing but whitespace may follow.
    pub fn end(&mut self) -> Result<(), JsonError> {
        match self.peek_token()? {
            None => Ok(()),
            Some(_) => Err(JsonError::Malformed),
        }
    }

    fn since(&self, from: usize) -> &'a str {
        self.text
            .get(from..self.place.at)
            .expect("cut at ASCII characters")
    }

    /// A key and its colon.
    pub fn key(&mut self) -> Result<JsonString<'a>, JsonError> {
        self.peek_token()?;
        let key = self.string()?;
        if self.next_token()? == Some(b':') {
            Ok(key)
        } else {
            Err(JsonError::Malformed)
        }
    }

    /// One string token; the position must be at its opening quote.
    pub(super) fn string(&mut self) -> Result<JsonString<'a>, JsonError> {
        let from = self.place.at;
        let bytes = self.text.as_bytes();
        if self.peek() != Some(b'"') {
            return Err(JsonError::Malformed);
        }
        self.place.at += 1;
        let mut spared = 0;
        loop {
            self.place.at += plain_bytes(bytes.get(self.place.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.place.at += 1;
                    let token = self.since(from);
                    self.place.cheap += token.len().saturating_sub(STRING_DEAR_BYTES);
                    return Ok(JsonString { token, spared });
                }
                Some(b'\\') => {
                    let escape = bytes.get(self.place.at + 1..).unwrap_or_default();
                    let (character, bytes) = unescape(escape).ok_or(JsonError::Malformed)?;
                    let spelled = 1 + bytes;
                    self.place.at += spelled;
                    self.place.escapes += 1;
                    spared += spelled - character.len_utf8();
                    self.check_escapes()?;
                }
                // A control character, or the end of the text.
                Some(_) | None => return Err(JsonError::Malformed),
            }
        }
    }

    /// One whole value.
    pub fn value(&mut self) -> Result<JsonValue<'a>, JsonError> {
        let first = self.peek_token()?.ok_or(JsonError::Malformed)?;
        self.check_dear()?;
        let from = self.place.at;
        match first {
            b'"' => Ok(JsonValue::Text(self.string()?)),
            b'{' => {
                self.containers()?;
                Ok(JsonValue::Object(self.since(from)))
            }
            b'[' => {
                self.containers()?;
                Ok(JsonValue::Array(self.since(from)))
            }
            b't' => self.word("true").map(|()| JsonValue::Bool(true)),
            b'f' => self.word("false").map(|()| JsonValue::Bool(false)),
            b'n' => self.word("null").map(|()| JsonValue::Null),
            _ => {
                self.number()?;
                Ok(JsonValue::Number(self.since(from)))
            }
        }
    }

    /// An object or array with all that is in it. Does not recurse: one bit per open container
    /// tells its kind.
    fn containers(&mut self) -> Result<(), JsonError> {
        let mut objects: u128 = 0;
        let mut open: u32 = 0;
        loop {
            // Here a value begins.
            self.check_dear()?;
            match self.peek_token()? {
                Some(bracket @ (b'{' | b'[')) => {
                    self.place.at += 1;
                    open += 1;
                    if self.place.depth + open > DEPTH_MAX {
                        return Err(JsonError::TooDeep);
                    }
                    objects = objects << 1 | u128::from(bracket == b'{');
                    match (self.peek_token()?, bracket) {
                        (Some(b'}'), b'{') | (Some(b']'), b'[') => {}
                        (_, b'{') => {
                            self.key()?;
                            continue;
                        }
                        _ => continue,
                    }
                }
                Some(b'"') => drop(self.string()?),
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                _ => self.number()?,
            }
            // Here a value has ended, and perhaps what encloses it.
            loop {
                let in_object = objects & 1 == 1;
                match self.next_token()? {
                    Some(b',') if in_object => drop(self.key()?),
                    Some(b',') => {}
                    Some(b'}') if in_object => {
                        objects >>= 1;
                        open -= 1;
                        if open == 0 {
                            return Ok(());
                        }
                        continue;
                    }
                    Some(b']') if !in_object => {
                        objects >>= 1;
                        open -= 1;
                        if open == 0 {
                            return Ok(());
                        }
                        continue;
                    }
                    _ => return Err(JsonError::Malformed),
                }
                break;
            }
        }
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if self
            .text
            .as_bytes()
            .get(self.place.at..)
            .is_some_and(|rest| rest.starts_with(word.as_bytes()))
        {
            self.place.at += word.len();
            Ok(())
        } else {
            Err(JsonError::Malformed)
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        if self.peek() == Some(b'-') {
            self.place.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.place.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.place.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.place.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.place.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), JsonError> {
        let from = self.place.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.place.at += 1;
            self.check_dear()?;
        }
        if self.place.at > from {
            Ok(())
        } else {
            Err(JsonError::Malformed)
        }
    }
}

/// What a string costs at most beside its plain bytes, in bytes of other tokens.
const STRING_DEAR_BYTES: usize = 8;

/// One bit tells of what kind each open container is.
const _: () = assert!(DEPTH_MAX <= u128::BITS);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{for_each_item, for_each_member, tests::any_json},
        *,
    };

    const ACCEPTED: [&str; 24] = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "12",
        "-1.5e+10",
        "1E5",
        "0.1",
        r#""""#,
        r#""a""#,
        "[]",
        "{}",
        " [ 1 , 2 ] ",
        r#"{"a":{"b":[{}]}}"#,
        r#""\u0041\n\"\\\/\b\f\r\t""#,
        r#""\ud83d\ude00""#,
        r#""é日本😀""#,
        r#"{"a":1,"a":2}"#,
        "[[],{},[[]]]",
        "\t\n\r {\"a\" : null}\n",
        r#"["]","}"]"#,
        r#""\u0000""#,
        "\"\u{7f}\"",
    ];

    #[test]
    fn a_text_with_more_beside_its_strings_than_it_may_have_is_refused_before_its_end() {
        let within = |text: &str, dear_max| {
            let bound = Bound {
                dear_bytes_max: dear_max,
                ..Bound::NONE
            };
            let mut scanner = Scanner::resumed(text, Place::default(), bound);
            let read = scanner.value().map(|_| ());
            (read, scanner.place.at)
        };
        let too_much = JsonError::TooMuch { bytes_max: 100 };
        let long = format!(r#"["{}"]"#, "x".repeat(1_000));
        assert_eq!(within(&long, 20), (Ok(()), long.len()));
        let many = format!("[{}0]", "[],".repeat(1_000));
        assert_eq!(within(&many, many.len()), (Ok(()), many.len()));
        let (read, at) = within(&many, 100);
        assert_eq!(read, Err(too_much));
        assert!(at <= 103, "{at}");
        let short = format!("[{}0]", r#""","#.repeat(1_000));
        let (read, at) = within(&short, 100);
        assert_eq!(read, Err(too_much));
        assert!(at <= 3 + 3 * 100, "{at}");
        let run = |of: &str| of.repeat(1_000);
        for text in [
            format!("[{}[0]]", run(" ")),
            format!(r#"{{{}"k":0}}"#, run("\n")),
            format!(r#"{{"k"{}:0}}"#, run("\t")),
            format!("[0{}]", run(" ")),
            format!("[0{},0]", run("\r")),
            run("1"),
            format!("[-1.{}]", run("1")),
            format!("[1e{}]", run("1")),
        ] {
            let (read, at) = within(&text, 100);
            assert_eq!((read, at), (Err(too_much), 101), "{text:.20}");
        }
    }

    #[test]
    fn a_string_with_more_escapes_than_there_may_be_is_refused_in_its_middle() {
        let bound = |escapes_max| Bound {
            escapes_max,
            ..Bound::NONE
        };
        let within = |text: &str, escapes_max| {
            let mut scanner = Scanner::resumed(text, Place::default(), bound(escapes_max));
            let read = scanner.value().map(|_| ());
            (read, scanner.place)
        };
        let too_many = Err(JsonError::TooManyEscapes { count_max: 100 });
        for (escape, in_all) in [(r"\n", 100), (r"\u00e9", 100), (r"\ud83d\ude00", 100)] {
            for text in [
                format!(r#""{}""#, escape.repeat(in_all)),
                format!(r#"{{"{0}":"{0}"}}"#, escape.repeat(in_all / 2)),
            ] {
                let (read, place) = within(&text, 100);
                assert_eq!((read, place.escapes()), (Ok(()), 100), "{text:.20}");
                assert_eq!(place.dear_bytes().min(30), place.dear_bytes());
            }
            let long = format!(r#"["{}"]"#, escape.repeat(10_000));
            let (read, place) = within(&long, 100);
            assert_eq!((read, place.at), (too_many, 2 + 101 * escape.len()));
        }
        // Another bound counts from where it began.
        let text = format!(r#"["{0}","{0}"]"#, r"\t".repeat(60));
        let mut scanner = Scanner::resumed(&text, Place::default(), bound(100));
        assert_eq!(scanner.enter(Container::Array), Ok(true));
        for is_whole in [true, false] {
            let whole = scanner.bound(bound(60));
            assert!(scanner.value().is_ok());
            assert_eq!(scanner.restore(whole).is_ok(), is_whole);
            let more = scanner.another(Container::Array);
            assert_eq!(more, Ok(is_whole));
        }
    }

    const REFUSED: [&str; 61] = [
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "01",
        "-",
        "+1",
        "1.",
        ".1",
        "1e",
        "1e+",
        "0x1",
        "NaN",
        "Infinity",
        "-a",
        "'a'",
        r#"""#,
        r#""a"#,
        r#""a\"#,
        r#""\"#,
        r#""\x""#,
        r#""\u""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\ud800""#,
        r#""\udc00\ud800""#,
        r#""\udc00\udc00""#,
        r#""\ud800x""#,
        r#""\ud800\n""#,
        "\"a\nb\"",
        "\"\t\"",
        "\"\0\"",
        "[",
        "]",
        "{",
        "}",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1}",
        "{]",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,}"#,
        r#"{a:1}"#,
        r#"{1:1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a" 1}"#,
        "null null",
        "{} x",
        "[]]",
        "{}}",
        r#""a" "b""#,
        "\u{feff}null",
        "[1]\u{a0}",
    ];

    #[test]
    fn values_are_accepted_and_refused_as_the_grammar_says() {
        for text in ACCEPTED {
            assert!(JsonValue::parse(text).is_ok(), "{text}");
            assert!(
                serde_json::from_str::<serde_json::Value>(text).is_ok(),
                "the judge: {text}"
            );
        }
        for text in REFUSED {
            assert!(JsonValue::parse(text).is_err(), "{text}");
            assert!(
                serde_json::from_str::<serde_json::Value>(text).is_err(),
                "the judge: {text}"
            );
            let nested = format!("{{\"a\":[{text}]}}");
            if !text.trim().is_empty() && text != "," {
                assert!(JsonValue::parse(&nested).is_err(), "{nested}");
            }
        }
    }

    #[test]
    fn nesting_of_exactly_128_is_accepted() {
        for (depth, accepted) in [(127, true), (128, true), (129, false), (100_000, false)] {
            for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                assert_eq!(
                    JsonValue::parse(&text).is_ok(),
                    accepted,
                    "{depth} of {open}"
                );
                let nested = text
                    .strip_prefix("{\"a\":")
                    .and_then(|t| t.strip_suffix('}'));
                if nested.is_some() {
                    assert_eq!(
                        for_each_member(&text, |_, _| ()).is_ok(),
                        accepted,
                        "{depth}"
                    );
                }
            }
        }
        let unclosed = "[".repeat(1_000_000);
        assert_eq!(JsonValue::parse(&unclosed), Err(JsonError::TooDeep));
    }

    proptest! {
        #[test]
        fn a_damaged_text_is_judged_as_the_judge_does(
            value in any_json(),
            at in any::<prop::sample::Index>(),
            to in any::<char>(),
        ) {
            let text = serde_json::to_string(&value).expect("valid");
            let mut chars: Vec<char> = text.chars().collect();
            let at = at.index(chars.len());
            chars[at] = to;
            let damaged: String = chars.into_iter().collect();
            // RawValue keeps number range out of the comparison: 1e999 is good JSON.
            let judged = serde_json::from_str::<&serde_json::value::RawValue>(&damaged).is_ok();
            let ours = JsonValue::parse(&damaged).is_ok();
            // The judge skips without looking at surrogates; we may be stricter only there.
            prop_assert!(ours == judged || (judged && damaged.contains("\\u")), "{}", damaged);
        }

        #[test]
        fn no_text_makes_the_scan_panic(text in "[\\[\\]{}\",:\\\\u0-9a-fnrt\\s-]{0,60}") {
            let _ = JsonValue::parse(&text);
            let _ = for_each_member(&text, |_, _| ());
            let _ = for_each_item(&text, |_| ());
        }
    }
}
