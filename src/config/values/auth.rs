//! What the keys of authentication may hold.

use std::borrow::Cow;

use super::{Bad, FromText, bad, is_token};
use crate::{
    choice,
    config::{decode::At, snapshot::ClientAuth},
    policy::auth::Source,
};

choice!(ClientAuth: ClientAuth::Basic = "basic", ClientAuth::Post = "post");

/// Ways that must all give an identity, by name: `main`, or `main + certificate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayNames(pub Vec<String>);

impl FromText for WayNames {
    const WHAT: &'static str = "names of ways to authenticate, with plus signs between them";
    const EXAMPLE: &'static str = "main + certificate";

    fn read(text: &str) -> Result<Self, Bad> {
        let names: Vec<&str> = text.split('+').map(str::trim).collect();
        if names.contains(&"") {
            return bad("a name is missing", "write \"main\", or \"main + certificate\" for both");
        }
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name))
        {
            return bad("the same name twice", format!("write `{}` once", twice.1));
        }
        Ok(WayNames(names.into_iter().map(str::to_owned).collect()))
    }

    fn show(&self) -> String {
        self.0.join(" + ")
    }
}

/// Where a credential is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialSource(pub Source);

impl CredentialSource {
    /// Where keys usually are.
    pub fn api_key() -> Vec<At<CredentialSource>> {
        let source = Source::Header(b"x-api-key".as_slice().into());
        vec![At::default_of(CredentialSource(source))]
    }

    /// `Authorization: Bearer`.
    pub const BEARER: CredentialSource =
        CredentialSource(Source::Authorization(Cow::Borrowed("Bearer")));
}

impl FromText for CredentialSource {
    const WHAT: &'static str = "where a credential is: \"bearer\", \"header:NAME\", \
                                \"cookie:NAME\", \"query:NAME\" or \"scheme:NAME\"";
    const EXAMPLE: &'static str = "bearer";

    fn read(text: &str) -> Result<Self, Bad> {
        if text == "bearer" {
            return Ok(Self::BEARER);
        }
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let example = match kind {
            "header" => "X-Token",
            "cookie" => "token",
            "scheme" => "ApiKey",
            _ => "access_token",
        };
        if !matches!(kind, "header" | "cookie" | "query" | "scheme") {
            let fix = "write \"bearer\" (Authorization: Bearer ...), \"header:X-Token\", \
                       \"cookie:token\", \"query:access_token\" or \"scheme:ApiKey\" \
                       (Authorization: ApiKey ...)";
            return bad("no such place", fix);
        }
        let is_good = match kind {
            "query" => !name.is_empty() && !name.contains(char::is_control),
            _ => is_token(name),
        };
        if !is_good {
            let label = if name.is_empty() { "without a name" } else { "no such name can be" };
            return bad(label, format!("write \"{kind}:{example}\""));
        }
        if kind == "header" && name.eq_ignore_ascii_case("authorization") {
            return bad("a field that has a scheme before the credential", "write \"bearer\"");
        }
        Ok(CredentialSource(match kind {
            "header" => Source::Header(name.to_ascii_lowercase().into_bytes().into()),
            "cookie" => Source::Cookie(name.as_bytes().into()),
            "scheme" => Source::Authorization(name.to_owned().into()),
            _ => Source::Query(name.as_bytes().into()),
        }))
    }

    fn show(&self) -> String {
        let (kind, name) = match &self.0 {
            Source::Authorization(scheme) if scheme == "Bearer" => return "bearer".to_owned(),
            Source::Authorization(scheme) => return format!("scheme:{scheme}"),
            Source::Header(name) => ("header", name),
            Source::Cookie(name) => ("cookie", name),
            Source::Query(name) => ("query", name),
        };
        format!("{kind}:{}", String::from_utf8_lossy(name))
    }
}

/// A claim: names of members, separated by dots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(pub String);

impl FromText for ClaimPath {
    const WHAT: &'static str = "the path of a claim";
    const EXAMPLE: &'static str = "realm_access.roles";

    fn read(text: &str) -> Result<Self, Bad> {
        // A name with dots in it, such as a URL, may have anything between them.
        if text.is_empty() || text.split('.').all(str::is_empty) {
            return bad("empty", "write a claim such as \"sub\" or \"realm_access.roles\"");
        }
        Ok(ClaimPath(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways() {
        for (text, wanted) in [
            ("main", Ok("main")),
            (" main+ certificate ", Ok("main + certificate")),
            ("main +", Err("a name is missing")),
            ("", Err("a name is missing")),
            ("a + b + a", Err("the same name twice")),
        ] {
            let read = WayNames::read(text).map(|names| names.show()).map_err(|bad| bad.label);
            assert_eq!(read, wanted.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn places() {
        for text in
            ["bearer", "header:x-token", "cookie:token", "query:access_token", "scheme:ApiKey"]
        {
            let source = CredentialSource::read(text).map_err(|bad| bad.label).expect(text);
            assert_eq!(source.show(), text);
        }
        for text in [
            "",
            "Bearer x",
            "header",
            "header:",
            "header:a b",
            "cookie:a=b",
            "query:",
            "header:Authorization",
            "body:x",
        ] {
            assert!(CredentialSource::read(text).is_err(), "{text}");
        }
    }
}
