//! What must hold of the parsers for any input: shared by the fuzz targets and by the replay of the
//! committed corpora. Each function takes arbitrary bytes and panics when its property is broken.
//!
//! To add a target: write a function here (or in a file of its own next to this one), add it to
//! [`TARGETS`], put seeds into `tests/corpus/<name>/`, and copy one of the three-line files in
//! `fuzz/fuzz_targets/` together with its `[[bin]]` in `fuzz/Cargo.toml`.

use ringway::wire::chunked::{ChunkDecoder, Trailers};
use ringway::wire::forwarded::{Forwarded, ForwardedFor};
use ringway::wire::path::{NormalPath, PathRules};
use ringway::wire::websocket::{Follower, Seen, Sender};
use ringway::wire::{
    Field, Framing, HeadLimits, Method, Parsed, Reason, RequestHead, ResponseHead, Version,
};

/// Panics when the input breaks it.
pub type Property = fn(&[u8]);

/// Every target by name; the corpus of each is replayed by `cargo test`.
pub const TARGETS: &[(&str, Property)] = &[
    ("request_head", request_head),
    ("response_head", response_head),
    ("chunked", chunked),
    ("path", path),
    ("forwarded", forwarded),
    ("client_hello", client_hello),
    ("proxy", proxy),
    ("websocket", websocket),
    ("config", config),
];

/// Small, so that inputs of a few hundred bytes reach the limits.
const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 600, target_bytes_max: 200, fields_max: 12 };

/// An outcome reduced to what must not depend on the split.
type Outcome<T> = Result<Option<T>, &'static str>;

fn outcome<T>(parsed: Result<Parsed<()>, &'static Reason>, value: T) -> Outcome<T> {
    match parsed {
        Ok(Parsed::Complete(())) => Ok(Some(value)),
        Ok(Parsed::Partial) => Ok(None),
        Err(reason) => Err(reason.token),
    }
}

/// Any prefix is undecided or has the outcome of the whole; bytes after a head change nothing.
fn split_anywhere<T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    whole: &Outcome<T>,
    mut parse: impl FnMut(&[u8]) -> Outcome<T>,
) {
    for cut in 0..data.len() {
        let part = parse(&data[..cut]);
        assert!(part == Ok(None) || part == *whole, "cut at {cut}: {part:?}, whole: {whole:?}");
    }
}

/// The lines of a head, read naively: `None` unless every line ends in CRLF and all characters are
/// allowed. Start line, then (name, value) pairs.
type Lines<'a> = (&'a [u8], Vec<(&'a [u8], &'a [u8])>);

fn naive_lines(head: &[u8]) -> Option<Lines<'_>> {
    let text = head.strip_suffix(b"\r\n\r\n")?;
    let mut lines = Vec::new();
    let mut start = 0;
    for at in 0..text.len() {
        match text[at] {
            b'\r' if text.get(at + 1) != Some(&b'\n') => return None,
            b'\n' if at == 0 || text[at - 1] != b'\r' => return None,
            b'\n' => {
                lines.push(&text[start..at - 1]);
                start = at + 1;
            }
            b'\t' | b'\r' | b' '..=b'~' | 0x80.. => {}
            _ => return None,
        }
    }
    lines.push(&text[start..]);
    let mut fields = Vec::new();
    for line in &lines[1..] {
        let colon = line.iter().position(|&b| b == b':')?;
        let name = &line[..colon];
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        if name.is_empty() || !name.iter().all(token) {
            return None;
        }
        fields.push((name, line[colon + 1..].trim_ascii()));
    }
    Some((lines[0], fields))
}

fn values<'a>(fields: &[(&[u8], &'a [u8])], name: &str) -> Vec<&'a [u8]> {
    let named = fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
    named.map(|&(_, value)| value).collect()
}

/// The framing RFC 9112 §6 gives these fields; `None` when it must be refused here.
fn naive_framing(fields: &[(&[u8], &[u8])], version: Version) -> Option<Framing> {
    let lengths = values(fields, "content-length");
    let codings = values(fields, "transfer-encoding");
    match (&lengths[..], &codings[..]) {
        ([], []) => Some(Framing::None),
        ([length], []) => {
            let text = std::str::from_utf8(length).ok()?;
            let digits = text.bytes().all(|b| b.is_ascii_digit()) && text.len() < 20;
            digits.then(|| text.parse().ok()).flatten().map(Framing::Length)
        }
        ([], [coding]) => {
            let fine = coding.eq_ignore_ascii_case(b"chunked") && version == Version::Http11;
            fine.then_some(Framing::Chunked)
        }
        _ => None,
    }
}

/// The parsed fields are the naive ones, and their lines tile the section.
fn fields_agree(head: &[u8], fields: &[Field], naive: &[(&[u8], &[u8])]) {
    assert_eq!(fields.len(), naive.len());
    for (index, (field, (name, value))) in fields.iter().zip(naive).enumerate() {
        assert_eq!(field.name.of(head), *name);
        assert_eq!(field.value.of(head), *value);
        assert!(field.line.of(head).ends_with(b"\r\n"));
        let next = fields.get(index + 1).map_or(head.len() - 2, |next| next.line.start as usize);
        assert_eq!(field.line.end as usize, next);
    }
}

/// Request heads: outcome independent of the split, and framing, Host and fields as a naive reading
/// has them.
pub fn request_head(data: &[u8]) {
    let mut head = RequestHead::default();
    let mut parse = |bytes: &[u8]| {
        let parsed = head.parse(bytes, &LIMITS);
        let value = (head.len, head.framing, head.connection, head.target, head.authority);
        outcome(parsed, value)
    };
    let whole = parse(data);
    split_anywhere(data, &whole, parse);
    if let Ok(Some((len, framing, ..))) = whole {
        assert!(len <= 600);
        assert_eq!(head.parse(data, &LIMITS), Ok(Parsed::Complete(())));
        let bytes = &data[..len];
        let (line, naive) = naive_lines(bytes).expect("accepted what is not well-formed");
        fields_agree(bytes, &head.fields, &naive);
        assert_eq!(Some(framing), naive_framing(&naive, head.version));
        let parts: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        assert_eq!(parts.len(), 3);
        assert_eq!(parts[0], head.method_text.of(data));
        assert_eq!(parts[1], head.target.of(data));
        assert_eq!(
            parts[2],
            if head.version == Version::Http10 { b"HTTP/1.0" } else { b"HTTP/1.1" }
        );
        let hosts = values(&naive, "host");
        assert!(hosts.len() == 1 || (hosts.is_empty() && head.version == Version::Http10));
        assert!(hosts.iter().all(|host| !host.is_empty()));
    }
}

/// Response heads, the same way. The first byte chooses HEAD or GET.
pub fn response_head(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let method = if first & 1 == 0 { Method::Get } else { Method::Head };
    let mut head = ResponseHead::default();
    let mut parse = |bytes: &[u8]| {
        let parsed = head.parse(bytes, method, &LIMITS);
        let value = (head.len, head.status, head.framing, head.connection, head.phrase);
        outcome(parsed, value)
    };
    let whole = parse(data);
    split_anywhere(data, &whole, parse);
    if let Ok(Some((len, status, framing, connection, _))) = whole {
        assert_eq!(head.parse(data, method, &LIMITS), Ok(Parsed::Complete(())));
        let bytes = &data[..len];
        let (line, naive) = naive_lines(bytes).expect("accepted what is not well-formed");
        fields_agree(bytes, &head.fields, &naive);
        assert_eq!(&line[9..12], status.to_string().as_bytes());
        let naive = naive_framing(&naive, head.version).expect("framing that must be refused");
        let bodiless = method == Method::Head || status < 200 || status == 204 || status == 304;
        let want = match naive {
            _ if bodiless => Framing::None,
            Framing::None => Framing::UntilClose,
            framing => framing,
        };
        assert_eq!(framing, want);
        assert!(!(connection.persistent && framing == Framing::UntilClose));
    }
}

/// The data of a chunked body, and what follows its last chunk's line.
type Body<'a> = (Vec<u8>, &'a [u8]);

/// A chunked body decoded naively: line by line, with the whole input at hand.
fn naive_chunks(mut bytes: &[u8]) -> Result<Option<Body<'_>>, ()> {
    let mut data = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let line = &bytes[..end];
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        if digits == 0 || digits > 16 || line.len() > 256 || line.contains(&b'\n') {
            return Err(());
        }
        let text = std::str::from_utf8(&line[..digits]).map_err(drop)?;
        let size = usize::from_str_radix(text, 16).map_err(drop)?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Ok(Some((data, bytes)));
        }
        let Some(chunk) = bytes.get(..size) else { return Ok(None) };
        data.extend_from_slice(chunk);
        match &bytes[size..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', rest @ ..] => bytes = rest,
            _ => return Err(()),
        }
    }
}

fn decode_in_pieces(body: &[u8], piece_len: usize) -> Result<(Vec<u8>, usize, bool), &'static str> {
    let mut decoder = ChunkDecoder::default();
    let (mut data, mut used) = (Vec::new(), 0);
    for piece in body.chunks(piece_len) {
        let mut buf = piece.to_vec();
        let decoded = decoder.decode(&mut buf).map_err(|reason| reason.token)?;
        data.extend_from_slice(&buf[..decoded.data]);
        used += decoded.consumed;
        assert_eq!(buf[decoded.consumed..], piece[decoded.consumed..]);
        if decoded.end {
            return Ok((data, used, true));
        }
        assert_eq!(decoded.consumed, piece.len());
    }
    Ok((data, used, false))
}

/// Chunked bodies: any cut decodes alike, and what is accepted is what the naive reader reads.
/// The first byte chooses the length of the pieces.
pub fn chunked(data: &[u8]) {
    let Some((&first, body)) = data.split_first() else { return };
    let whole = decode_in_pieces(body, body.len().max(1));
    for piece_len in [1, 2, usize::from(first) + 1] {
        assert_eq!(decode_in_pieces(body, piece_len), whole);
    }
    let naive = naive_chunks(body);
    let Ok((decoded, used, end)) = whole else { return };
    if end {
        let (want, rest) = naive.expect("accepted a bad body").expect("ended early");
        assert_eq!((&decoded, &body[used..]), (&want, rest));
        let mut trailers = Trailers::default();
        let mut parse = |bytes: &[u8]| {
            let parsed = trailers.parse(bytes, &LIMITS);
            outcome(parsed, (trailers.len, trailers.fields.len()))
        };
        let parsed = parse(rest);
        split_anywhere(rest, &parsed, parse);
    } else {
        assert!(!matches!(naive, Ok(Some(_))), "did not see the end");
    }
}

/// Paths: normalising is idempotent, and the matched form has nothing left to interpret.
/// The first byte chooses the rules.
pub fn path(data: &[u8]) {
    let Some((&first, path)) = data.split_first() else { return };
    let rules = PathRules { encoded_slash_keep: first & 1 == 1 };
    let mut normal = NormalPath::default();
    if normal.normalise(path, rules).is_err() {
        return;
    }
    let forward = normal.forward_of(path).to_vec();
    let matched = normal.matched_of(path).to_vec();
    assert_eq!(normal.forward_differs, forward != path);
    assert_eq!(normal.matched_differs, matched != path);
    assert_eq!(normal.normalise(&forward, rules), Ok(()));
    assert_eq!(
        (normal.forward_of(&forward), normal.matched_of(&forward)),
        (&forward[..], &matched[..])
    );
    assert_eq!(normal.normalise(&matched, rules), Ok(()));
    assert!(!normal.forward_differs && !normal.matched_differs);
    for form in [&forward, &matched] {
        assert_eq!(form.first(), Some(&b'/'));
        assert!(!form.windows(2).any(|pair| pair == b"//"));
        assert!(form.split(|&b| b == b'/').all(|segment| segment != b"." && segment != b".."));
        assert!(form.iter().all(|b| b.is_ascii_graphic() && !b"\\?#".contains(b)));
    }
    assert!(!matched.contains(&b';'));
    if !rules.encoded_slash_keep {
        let text = String::from_utf8_lossy(&forward).to_uppercase();
        assert!(!text.contains("%2F") && !text.contains("%5C"));
    }
}

/// Forwarding fields: reading stops at the first malformed element, and what was read from the
/// right does not depend on anything further left.
pub fn forwarded(data: &[u8]) {
    let clean: Vec<u8> =
        data.iter().copied().filter(|&b| b == b'\t' || (b >= 32 && b != 127)).take(2000).collect();
    let limits = HeadLimits { head_bytes_max: 8192, target_bytes_max: 0, fields_max: 8 };
    let read = |value: &[u8]| {
        let mut bytes = b"HTTP/1.1 200 OK\r\nForwarded: ".to_vec();
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\nX-Forwarded-For: ");
        bytes.extend_from_slice(value);
        bytes.extend_from_slice(b"\r\n\r\n");
        let mut head = ResponseHead::default();
        assert_eq!(head.parse(&bytes, Method::Get, &limits), Ok(Parsed::Complete(())));
        let elements: Vec<_> = Forwarded::new(&bytes, &head.fields)
            .map(|element| element.map(|element| format!("{element:?}")).ok())
            .collect();
        let nodes: Vec<_> = ForwardedFor::new(&bytes, &head.fields)
            .map(|node| node.map(|node| format!("{node:?}")).ok())
            .collect();
        [elements, nodes]
    };
    let whole = read(&clean);
    for list in &whole {
        assert!(list.iter().rev().skip(1).all(Option::is_some), "read on after a malformed one");
    }
    // A sound element appended by the next proxy is always read first, and the rest as before.
    let appended = read(&[&clean[..], b", for=\"[::7]:1\""].concat());
    assert!(appended[0][0].is_some(), "a forged prefix hid an appended element");
    assert_eq!(appended[0][1..], whole[0]);
    let appended = read(&[&clean[..], b", ::7"].concat());
    assert!(appended[1][0].is_some());
    assert_eq!(appended[1][1..], whole[1]);
}

/// ClientHellos: a prefix is undecided or has the outcome of the whole, what follows changes
/// nothing, and a name is one that a host may have.
pub fn client_hello(data: &[u8]) {
    use ringway::wire::client_hello::{HELLO_BYTES_MAX, NoHello, parse};
    let read = |bytes: &[u8]| {
        let mut name = Vec::new();
        parse(bytes, &mut name).map(|parsed| (parsed, name))
    };
    let whole = read(data);
    let undecided = Ok((Parsed::Partial, Vec::new()));
    let step = data.len() / 300 + 1;
    for cut in (0..data.len()).step_by(step) {
        let part = read(&data[..cut]);
        assert!(part == undecided || part == whole, "cut at {cut}: {part:?}, {whole:?}");
    }
    if let Ok((Parsed::Complete(()), name)) = &whole {
        assert!(name.len() <= 253 && !name.iter().any(u8::is_ascii_uppercase));
        assert!(name.is_empty() || !name.split(|b| *b == b'.').any(<[u8]>::is_empty));
        assert_eq!(read(&[data, b"\x17\x03\x03"].concat()), whole);
    }
    assert!(data.len() < HELLO_BYTES_MAX || whole != undecided);
    assert!(data.first().is_none_or(|first| *first == 22) || whole == Err(NoHello::NotTls));
}

/// PROXY protocol headers: a prefix is undecided or has the outcome of the whole, what follows a
/// header changes nothing, and a header is never longer than its bounds.
pub fn proxy(data: &[u8]) {
    use ringway::wire::proxy::{HEADER_BYTES_MAX, parse};
    if data.is_empty() {
        return;
    }
    let whole = parse(data);
    for cut in 1..data.len() {
        let part = parse(&data[..cut]);
        assert!(part == Ok(Parsed::Partial) || part == whole, "cut at {cut}: {part:?}, {whole:?}");
    }
    if let Ok(Parsed::Complete(header)) = whole {
        assert!(header.len <= data.len().min(HEADER_BYTES_MAX));
        assert_eq!(parse(&data[..header.len]), whole);
        assert_eq!(parse(&[&data[..header.len], b"\r\n"].concat()), whole);
    }
}

/// WebSocket frames read naively, with everything at hand: what ended, and whether the framing was
/// broken or a Close came.
fn naive_frames(from: Sender, mut bytes: &[u8]) -> (Seen, bool) {
    let (mut seen, mut in_message) = (Seen::default(), false);
    while let [first, second, ..] = bytes {
        let (opcode, is_final, short) = (first & 15, first & 128 != 0, usize::from(second & 127));
        let is_masked = second & 128 != 0;
        let wide = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let is_bad_control = opcode > 7 && (!is_final || short > 125);
        if is_bad_control || is_masked != (from == Sender::Client) {
            return (seen, true);
        }
        let header = 2 + wide + if is_masked { 4 } else { 0 };
        if bytes.len() < 2 + wide {
            break;
        }
        let length = match wide {
            0 => short as u128,
            _ => bytes[2..2 + wide].iter().fold(0, |n, b| n * 256 + u128::from(*b)),
        };
        let shortest = if wide == 0 {
            0
        } else if wide == 2 {
            126
        } else {
            65_536
        };
        if length < shortest || length >= 1 << 63 {
            return (seen, true);
        }
        if bytes.len() < header {
            break;
        }
        if opcode <= 2 {
            if (opcode == 0) != in_message {
                return (seen, true);
            }
            in_message = !is_final;
        }
        let there = (bytes.len() - header) as u128;
        seen.payload_bytes += there.min(length) as u64;
        if there < length {
            break;
        }
        seen.frames += 1;
        seen.messages += u64::from(opcode <= 2 && is_final);
        if opcode == 8 {
            return (seen, true);
        }
        bytes = &bytes[header + length as usize..];
    }
    (seen, false)
}

/// WebSocket frames: any cut is followed alike, and as a naive reader reads them. The first byte
/// chooses who sends them and the length of the pieces.
pub fn websocket(data: &[u8]) {
    let Some((&first, bytes)) = data.split_first() else { return };
    let from = if first & 1 == 0 { Sender::Client } else { Sender::Server };
    let follow = |piece_bytes: usize| {
        let (mut follower, mut all) = (Follower::new(from), Seen::default());
        for piece in bytes.chunks(piece_bytes) {
            let seen = follower.follow(piece);
            all.frames += seen.frames;
            all.messages += seen.messages;
            all.payload_bytes += seen.payload_bytes;
        }
        (all, follower.is_broken(), follower.is_between(), follower.close())
    };
    let whole = follow(bytes.len().max(1));
    for piece_bytes in [1, 2, usize::from(first) + 1] {
        assert_eq!(follow(piece_bytes), whole);
    }
    let (seen, is_over) = naive_frames(from, bytes);
    assert_eq!((whole.0, whole.1 || whole.3.is_some()), (seen, is_over));
    assert!(!(whole.1 && whole.3.is_some()));
}

/// Any text is either a configuration or refused with positions inside it.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // No name is looked up: an input must not cause traffic.
    let resolve = |_: &str, _: u16| Err(std::io::Error::from(std::io::ErrorKind::Unsupported));
    if let Err(report) = ringway::config::from_text_with("fuzz", text, &resolve) {
        let lines = text.lines().count().max(1);
        for (line, column) in report.positions() {
            assert!(line >= 1 && line <= lines + 1 && column >= 1, "{line}:{column} of {lines}");
        }
        assert!(!report.render(false).is_empty());
    }
}
