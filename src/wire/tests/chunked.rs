use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { head_bytes_max: 1024, target_bytes_max: 0, fields_max: 8 };

/// Decodes `bytes` in pieces of the given sizes (the last size repeats); data, bytes used, end.
fn decode(bytes: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, usize, bool), &'static Reason> {
    let mut decoder = ChunkDecoder::default();
    let (mut data, mut used, mut piece) = (Vec::new(), 0, 0);
    while used < bytes.len() {
        let size = sizes[piece.min(sizes.len() - 1)].clamp(1, bytes.len() - used);
        piece += 1;
        let mut buf = bytes[used..used + size].to_vec();
        let decoded = decoder.decode(&mut buf)?;
        assert!(decoded.data <= decoded.consumed && decoded.consumed <= size);
        assert_eq!(&buf[decoded.consumed..], &bytes[used + decoded.consumed..used + size]);
        data.extend_from_slice(&buf[..decoded.data]);
        used += decoded.consumed;
        assert_eq!(decoded.end, decoder.ended());
        if decoded.end {
            return Ok((data, used, true));
        }
        assert_eq!(decoded.consumed, size);
    }
    Ok((data, used, false))
}

#[test]
fn decodes_well_formed_bodies() {
    let full = "f".repeat(256 - 4);
    let longest = format!("1;a={full}\r\nx\r\n0\r\n");
    for (bytes, data) in [
        ("0\r\n", ""),
        ("000\r\n", ""),
        ("5\r\nhello\r\n0\r\n", "hello"),
        ("1\r\na\r\n2\r\nbc\r\n0\r\n", "abc"),
        ("A\r\n0123456789\r\n00\r\n", "0123456789"),
        ("000000000000000a\r\n0123456789\r\n0\r\n", "0123456789"),
        ("1;a\r\nx\r\n0;b=c;d\r\n", "x"),
        ("1;a=\"\"\r\nx\r\n0\r\n", "x"),
        ("1\t;\ta\t=\t\"b;\\\"\t\u{e9}\" ;c\r\nx\r\n0\r\n", "x"),
        (longest.as_str(), "x"),
        ("2\r\n\r\n\r\n0\r\n", "\r\n"),
    ] {
        let followed = format!("{bytes}X: y\r\n\r\n");
        for size in 1..=followed.len() {
            let want = (data.as_bytes().to_vec(), bytes.len(), true);
            assert_eq!(decode(followed.as_bytes(), &[size]), Ok(want), "{bytes:?} by {size}");
        }
    }
}

/// RFC 9112 §7.1 and §7.1.1.
#[test]
fn refuses_everything_else() {
    let long = format!("1;a={}\r\nx\r\n0\r\n", "f".repeat(256 - 3));
    for bytes in [
        "\r\n",
        ";a\r\n",
        " 1\r\n",
        "1 \r\n",
        "1\t\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\n",
        "0x1\r\n",
        "1_0\r\n",
        "1\n",
        "0\n",
        "1\r\r\n",
        "1\rx",
        "00000000000000001\r\n",
        "1;\r\n",
        "1; \r\n",
        "1;a=\r\n",
        "1;a= \r\n",
        "1;=b\r\n",
        "1;a b\r\n",
        "1;a =b c\r\n",
        "1;a \r\n",
        "1;a=b \r\n",
        "1;a=\"b\r\n",
        "1;a=\"b\"c\r\n",
        "1;a=b\"c\"\r\n",
        "1;a=\"\\\u{1}\"\r\n",
        "1;a=\"\n\"\r\n",
        "1;a\n",
        "1;;a\r\n",
        "1,a\r\n",
        "1;a,b\r\n",
        "1;a=\u{e9}\r\n",
        "1;a\0\r\n",
        "1\r\nxy\r\n",
        "1\r\nx0\r\n",
        "1\r\nx\n0\r\n",
        "1\r\nx\r0\r\n",
        "1\r\nx\r\n\r\n",
        "2\r\nx\r\n0\r\n",
        long.as_str(),
    ] {
        for size in 1..=bytes.len() {
            assert_eq!(decode(bytes.as_bytes(), &[size]), Err(CHUNK_INVALID), "{bytes:?}");
        }
    }
    let mut broken = ChunkDecoder::default();
    assert_eq!(broken.decode(&mut b"x".to_vec()), Err(CHUNK_INVALID));
    assert_eq!(broken.decode(&mut b"1\r\n".to_vec()), Err(CHUNK_INVALID));
}

#[test]
fn sizes_up_to_64_bits() {
    let mut decoder = ChunkDecoder::default();
    let mut buf = *b"ffffffffffffffff\r\nabc";
    assert_eq!(decoder.decode(&mut buf), Ok(Decoded { data: 3, consumed: 21, end: false }));
    assert_eq!(&buf[..3], b"abc");
    assert_eq!(decoder.remaining, u64::MAX - 3);
}

#[test]
fn trailers() {
    let mut trailers = Trailers::default();
    let mut parse = |text: &str| {
        trailers.parse(text.as_bytes(), &LIMITS).map(|parsed| match parsed {
            Parsed::Complete(()) => Some((trailers.fields.len(), trailers.len)),
            Parsed::Partial => None,
        })
    };
    assert_eq!(parse("\r\nmore"), Ok(Some((0, 2))));
    let two = "Checksum: a\r\nContent-Digest:b\r\n\r\n";
    assert_eq!(parse(&format!("{two}GET")), Ok(Some((2, two.len()))));
    for cut in 0..two.len() {
        assert_eq!(parse(&two[..cut]), Ok(None), "cut at {cut}");
    }
    for name in [
        "Host",
        "Content-Length",
        "content-LENGTH",
        "Transfer-Encoding",
        "Content-Type",
        "Content-Encoding",
        "Content-Range",
        "Content-Disposition",
        "Connection",
        "Keep-Alive",
        "Proxy-Anything",
        "Trailer",
        "TE",
        "Upgrade",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "Cache-Control",
        "Expect",
        "Range",
        "If-Match",
        "X-Forwarded-For",
        "Forwarded",
        "Via",
        "X-Request-Id",
        "Date",
        "Location",
        "Age",
        "HTTP2-Settings",
        "WWW-Authenticate",
    ] {
        assert_eq!(parse(&format!("A: b\r\n{name}: x\r\n\r\n")), Err(TRAILER_INVALID), "{name}");
    }
    for bad in [
        "\n",
        "A: b\n\r\n",
        "A: b\r\n\n",
        " A: b\r\n\r\n",
        "A: b\r\n c\r\n\r\n",
        "A : b\r\n\r\n",
        "A\r\n\r\n",
        ": b\r\n\r\n",
        "A: \0\r\n\r\n",
        "\rX",
        "A: b\r\n\rX",
    ] {
        assert_eq!(parse(bad), Err(TRAILER_INVALID), "{bad:?}");
    }
    assert_eq!(parse(&format!("{}\r\n", "A: b\r\n".repeat(8))), Ok(Some((8, 50))));
    assert_eq!(parse(&format!("{}\r\n", "A: b\r\n".repeat(9))), Err(TRAILER_INVALID));
    assert_eq!(parse(&format!("A: {}", "b".repeat(1020))), Ok(None));
    assert_eq!(parse(&format!("A: {}", "b".repeat(1021))), Err(TRAILER_INVALID));
}

#[test]
fn chunk_heads_end_where_the_data_begins() {
    let mut head = [0; CHUNK_HEAD_MAX];
    for (len, want) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (0x1234_5678, "12345678\r\n"),
        (usize::MAX, "ffffffffffffffff\r\n"),
    ] {
        let start = write_chunk_head(&mut head, len);
        assert_eq!(&head[start..], want.as_bytes());
    }
}

proptest! {
    #[test]
    fn decoding_what_was_encoded_is_identity_under_any_cut(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..8),
        sizes in proptest::collection::vec(1usize..50, 1..20),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            let mut head = [0; CHUNK_HEAD_MAX];
            let start = write_chunk_head(&mut head, chunk.len());
            bytes.extend_from_slice(&head[start..]);
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(LAST_CHUNK);
        prop_assert_eq!(decode(&bytes, &sizes), Ok((chunks.concat(), bytes.len() - 2, true)));
    }
}
