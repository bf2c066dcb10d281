//! How the forwarded request target and Host differ from what the client sent.

/// Compiled from a route; applied to the normalised path.
#[derive(Clone, Debug, Default)]
pub struct Rewrite {
    pub path: PathRewrite,
    /// Replaces the Host field; `None` forwards the client's.
    pub host: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub enum PathRewrite {
    /// Forward the normalised path.
    #[default]
    Keep,
    /// Remove the matched prefix; what remains begins with `/`.
    StripPrefix,
    /// Replace the matched prefix.
    ReplacePrefix(String),
    /// Literal text and captured parameters.
    Template(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// Index into `RouteMatch::params`.
    Param(u8),
}
