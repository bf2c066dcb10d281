mod conflicts;
mod oracle;
mod tables;

use regex::bytes::Regex;

use super::*;
use crate::wire::Field;

/// A request as a test writes it.
#[derive(Clone, Debug)]
struct Ask {
    method: String,
    host: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
}

impl Ask {
    fn get(path: &str) -> Ask {
        Ask {
            method: "GET".into(),
            host: "a.com".into(),
            path: path.into(),
            query: None,
            headers: Vec::new(),
        }
    }

    fn method(self, method: &str) -> Ask {
        Ask { method: method.into(), ..self }
    }

    fn host(self, host: &str) -> Ask {
        Ask { host: host.into(), ..self }
    }

    fn query(self, query: &str) -> Ask {
        Ask { query: Some(query.into()), ..self }
    }

    fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.into(), value.into()));
        self
    }

    fn view<T>(&self, look: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let mut head = RequestHead::default();
        let mut buf = Vec::new();
        let mut span = |text: &str| {
            let start = buf.len();
            buf.extend_from_slice(text.as_bytes());
            Span::new(start, buf.len())
        };
        for (name, value) in &self.headers {
            let (name, value) = (span(name), span(value));
            head.fields.push(Field { name, value, ..Field::default() });
        }
        look(&RequestView {
            method: Method::from_bytes(self.method.as_bytes()),
            method_text: self.method.as_bytes(),
            host: self.host.as_bytes(),
            path: self.path.as_bytes(),
            query: self.query.as_ref().map(|q| q.as_bytes()),
            head: &head,
            buf: &buf,
        })
    }

    fn find(&self, router: &Router) -> Result<RouteMatch, Refusal> {
        self.view(|request| router.find(request))
    }

    /// The route's id, or the refusal's token.
    fn outcome(&self, router: &Router) -> Result<RouteId, &'static str> {
        self.find(router).map(|m| m.route).map_err(|refusal| refusal.reason.token)
    }
}

fn regex(text: &str) -> Regex {
    Regex::new(text).unwrap()
}

fn exact(path: &str) -> RouteRule {
    RouteRule { path: PathPattern::Exact(path.into()), ..RouteRule::default() }
}

fn prefix(path: &str) -> RouteRule {
    RouteRule { path: PathPattern::Prefix(path.into()), ..RouteRule::default() }
}

fn template(path: &str) -> RouteRule {
    RouteRule { path: PathPattern::Template(path.into()), ..RouteRule::default() }
}

fn by_regex(text: &str) -> RouteRule {
    RouteRule { path: PathPattern::Regex(regex(text)), ..RouteRule::default() }
}

impl RouteRule {
    fn on(mut self, host: &str) -> RouteRule {
        self.hosts.push(host.into());
        self
    }

    fn methods(mut self, methods: &[&str]) -> RouteRule {
        self.methods = methods.iter().map(|m| m.to_string()).collect();
        self
    }

    fn header(mut self, name: &str, value: ValuePattern) -> RouteRule {
        self.headers.push(ValueMatch { name: name.into(), value });
        self
    }

    fn query(mut self, name: &str, value: ValuePattern) -> RouteRule {
        self.query.push(ValueMatch { name: name.into(), value });
        self
    }
}

fn is(text: &str) -> ValuePattern {
    ValuePattern::Exact(text.into())
}

fn router(rules: &[RouteRule]) -> Router {
    Router::compile(rules).expect("rules without conflict")
}
