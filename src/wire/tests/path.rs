use proptest::prelude::*;

use super::*;

const STRICT: PathRules = PathRules { encoded_slash_keep: false };
const KEEP: PathRules = PathRules { encoded_slash_keep: true };

/// Forwarded and matched forms.
fn forms(path: &str, rules: PathRules) -> Result<(String, String), &'static Reason> {
    let mut normal = NormalPath::default();
    normal.normalise(path.as_bytes(), rules)?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Ok((text(normal.forward_of(path.as_bytes())), text(normal.matched_of(path.as_bytes()))))
}

#[test]
fn normal_paths_are_not_copied() {
    let mut normal = NormalPath::default();
    normal.normalise(b"/%41;x", STRICT).unwrap();
    for path in
        ["/", "/a", "/a/", "/a/b.c/d..e/f.", "/.well-known/x", "/...", "/a/.b", "/:@!$&'()*+,="]
    {
        normal.normalise(path.as_bytes(), STRICT).unwrap();
        assert!(!normal.forward_differs && !normal.matched_differs, "{path}");
        assert_eq!(normal.forward_of(path.as_bytes()), path.as_bytes());
    }
    normal.normalise(b"/a/b", STRICT).unwrap();
    assert!(normal.forward.is_empty() && normal.matched.is_empty());
}

#[test]
fn forwarded_and_matched_forms() {
    for (path, forward, matched) in [
        ("", "/", "/"),
        ("//", "/", "/"),
        ("/a//b", "/a/b", "/a/b"),
        ("//a///b//", "/a/b/", "/a/b/"),
        ("/./a", "/a", "/a"),
        ("/a/.", "/a/", "/a/"),
        ("/a/./", "/a/", "/a/"),
        ("/a/..", "/", "/"),
        ("/a/b/..", "/a/", "/a/"),
        ("/a/../b", "/b", "/b"),
        ("/a/../admin", "/admin", "/admin"),
        ("/a//../b", "/b", "/b"),
        ("/%2A%40", "/%2A%40", "/*@"),
        ("/*@", "/*@", "/*@"),
        ("/a|b%7cc%7C", "/a|b%7Cc%7C", "/a%7Cb%7Cc%7C"),
        ("/a%3bb", "/a%3Bb", "/a%3Bb"),
        ("/a/%2e%2E/b", "/b", "/b"),
        ("/a/.%2e/b", "/b", "/b"),
        ("/%2e/b", "/b", "/b"),
        ("/%61%7E%2d", "/a~-", "/a~-"),
        ("/%c3%a9", "/%C3%A9", "/%C3%A9"),
        ("/%252e%252e/", "/%252e%252e/", "/%252e%252e/"),
        ("/%25%32%65", "/%252e", "/%252e"),
        ("/%20%3f%23", "/%20%3F%23", "/%20%3F%23"),
        ("/a;x=y/b", "/a;x=y/b", "/a/b"),
        ("/a;x;y/", "/a;x;y/", "/a/"),
        ("/a;", "/a;", "/a"),
        ("/;x/a", "/;x/a", "/a"),
        ("/a/;x/b", "/a/;x/b", "/a/b"),
        ("/a/;x", "/a/;x", "/a/"),
        ("/;", "/;", "/"),
        ("/a;x/../b", "/b", "/b"),
        ("/a/;x/../b", "/a/b", "/a/b"),
        ("/a%3bx", "/a%3Bx", "/a%3Bx"),
        ("/...;x", "/...;x", "/..."),
        ("/a..;x", "/a..;x", "/a.."),
    ] {
        assert_eq!(forms(path, STRICT), Ok((forward.into(), matched.into())), "{path}");
        assert_eq!(forms(path, KEEP), Ok((forward.into(), matched.into())), "{path}");
    }
    assert_eq!(forms("/a%2fb%5c", KEEP), Ok(("/a%2Fb%5C".into(), "/a%2Fb%5C".into())));
    assert_eq!(forms("/a/..%2fb", KEEP), Ok(("/a/..%2Fb".into(), "/a/..%2Fb".into())));
}

#[test]
fn refusals() {
    for (path, reason) in [
        ("/%", PATH_ENCODING),
        ("/%a", PATH_ENCODING),
        ("/%a/b", PATH_ENCODING),
        ("/%zz", PATH_ENCODING),
        ("/%%41", PATH_ENCODING),
        ("/%u0041", PATH_ENCODING),
        ("/%00", PATH_ENCODING),
        ("/a%0d%0a", PATH_ENCODING),
        ("/%1f", PATH_ENCODING),
        ("/%7F", PATH_ENCODING),
        ("/\u{e9}", PATH_ENCODING),
        ("/a b", PATH_ENCODING),
        ("/a?b", PATH_ENCODING),
        ("/a#b", PATH_ENCODING),
        ("/a\0", PATH_ENCODING),
        ("/a\\b", PATH_AMBIGUOUS),
        ("/..\\", PATH_AMBIGUOUS),
        ("/..;/a", PATH_AMBIGUOUS),
        ("/a/..;x=y/b", PATH_AMBIGUOUS),
        ("/.;/a", PATH_AMBIGUOUS),
        ("/%2e%2e;/a", PATH_AMBIGUOUS),
        ("/..%3b/a", PATH_AMBIGUOUS),
        ("/.%2E%3Bx", PATH_AMBIGUOUS),
        ("a", PATH_AMBIGUOUS),
        ("*", PATH_AMBIGUOUS),
        ("/..", PATH_ESCAPES),
        ("/../", PATH_ESCAPES),
        ("/a/../..", PATH_ESCAPES),
        ("/a/../../a", PATH_ESCAPES),
        ("//..", PATH_ESCAPES),
        ("/%2e%2e/a", PATH_ESCAPES),
    ] {
        assert_eq!(forms(path, STRICT), Err(reason), "{path}");
        assert_eq!(forms(path, KEEP), Err(reason), "{path}");
    }
    for path in ["/%2f", "/%2F", "/a%5cb", "/%2e%2e%2f", "/a/..%2Fb"] {
        assert_eq!(forms(path, STRICT), Err(PATH_AMBIGUOUS), "{path}");
    }
}

proptest! {
    #[test]
    fn normalising_twice_changes_nothing(
        path in "(/|\\.|%2[eEfF5]|%5[cC]|%3[bB]|;|a|%61|%[0-9a-f]{2}|=){0,16}",
        encoded_slash_keep: bool,
    ) {
        let rules = PathRules { encoded_slash_keep };
        if let Ok((forward, matched)) = forms(&format!("/{path}"), rules) {
            prop_assert_eq!(forms(&forward, rules), Ok((forward.clone(), matched.clone())));
            prop_assert_eq!(forms(&matched, rules), Ok((matched.clone(), matched.clone())));
            prop_assert!(!matched.contains(';') && !matched.contains("//"));
            prop_assert!(matched.split('/').all(|segment| segment != "." && segment != ".."));
        }
    }
}
