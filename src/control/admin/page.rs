//! `GET /`: the status page, one file with its style and script inside.
//!
//! It may load nothing, run nothing and send nothing elsewhere: style and script are allowed by a
//! number that is new in every answer, and all the script may ask for are this server's resources.

use std::collections::BTreeMap;

use axum::{
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use super::Problem;
use crate::telemetry::metrics::shards::reasons;

const PAGE: &str = include_str!("page/status.html");

/// Random bytes of a nonce, as many as CSP asks for.
const NONCE_BYTES: usize = 16;

pub async fn get() -> Result<Response, Problem> {
    let mut random = [0; NONCE_BYTES];
    rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::empty()).map_err(
        |e| {
            let detail = format!("no random number for the page: {e}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        },
    )?;
    let nonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; \
         img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'"
    );
    let fields = [
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((fields, Html(page(&nonce))).into_response())
}

fn page(nonce: &str) -> String {
    PAGE.replace("{{nonce}}", nonce).replace("{{reasons}}", &meanings())
}

/// Status and meaning of every reason, as JSON that can stand inside a page.
fn meanings() -> String {
    let by_token: BTreeMap<_, _> =
        reasons().map(|reason| (reason.token, (reason.status, reason.meaning))).collect();
    serde_json::to_string(&by_token).expect("strings and numbers").replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file() {
        let page = page("n0nce");
        assert!(!page.contains("{{"), "a placeholder is left");
        assert_eq!(page.matches("nonce=\"n0nce\"").count(), 2, "one style, one script");
        for outside in ["http://", "https://", "src=", "@import", "url(", "style=", "onclick="] {
            let allowed = page.matches("http://www.w3.org/2000/svg").count();
            let found = page.matches(outside).count();
            let expected = if outside == "http://" { allowed } else { 0 };
            assert_eq!(found, expected, "{outside}");
        }
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!page.contains(markup), "{markup}: names are text, never markup");
        }
        assert!(page.contains("\"route.not_found\":[404,"));
    }

    /// Light and dark value of each colour of the palette.
    fn palette() -> BTreeMap<&'static str, [[f64; 3]; 2]> {
        let colour = |text: &str| {
            let value = u32::from_str_radix(&text[1..], 16).expect("#rrggbb");
            [16, 8, 0].map(|shift| f64::from(value >> shift & 0xff) / 255.0)
        };
        let of_line = |line: &'static str| {
            let (name, values) = line.trim().strip_prefix("--")?.split_once(": light-dark(")?;
            let (light, dark) = values.strip_suffix(");")?.split_once(", ")?;
            Some((name, [colour(light), colour(dark)]))
        };
        PAGE.lines().filter_map(of_line).collect()
    }

    /// WCAG 2.2, "contrast ratio" and "relative luminance".
    fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
        let linear =
            |v: f64| if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) };
        let luminance =
            |c: [f64; 3]| 0.2126 * linear(c[0]) + 0.7152 * linear(c[1]) + 0.0722 * linear(c[2]);
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_stands_out_in_both_themes() {
        assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 0.01);
        let palette = palette();
        assert_eq!(palette.len(), 13, "{:?}", palette.keys());
        let text = ["ink", "muted", "good", "warn", "bad", "aside"];
        let mut pairs: Vec<_> =
            text.iter().flat_map(|t| ["page", "panel"].map(|on| (*t, on, 4.5))).collect();
        // Lines, bars and the edges of controls are no text.
        pairs.extend(["accent", "calm", "control"].map(|line| (line, "panel", 3.0)));
        pairs.push(("panel", "bad", 4.5));
        for (front, back, least) in pairs {
            for (theme, at) in [("light", 0), ("dark", 1)] {
                let found = contrast(palette[front][at], palette[back][at]);
                assert!(found >= least, "{theme}: {front} on {back} is {found:.2}, not {least}");
            }
        }
    }
}
