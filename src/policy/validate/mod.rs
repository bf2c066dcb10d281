//! What requests have to be like: parameters, the media type of the body, and the body itself,
//! checked with JSON Schema.
//!
//! Invariant: what is checked is what the upstream gets, and can be read in one way only: a
//! parameter or a name that is there twice, or a media type that is, is refused.

mod body;
pub mod fault;
pub mod parameter;
pub mod schema;
mod stepped;
pub mod strict_json;
mod tangle;
#[cfg(test)]
mod tests;
pub mod types;

pub use body::{Body, Content, Kind, Looked, Need, Range, is_json};
pub use fault::Fault;
pub use parameter::{Asked, Parameter};

use serde_json::Value;

use super::{pairs, refusal};
use crate::wire::Reason;
use fault::Location;

/// Why a request is refused, and what its client is told.
pub type Refused = (&'static Reason, Fault);

/// What is asked of the requests of a route.
#[derive(Clone, Debug)]
pub struct Validation {
    pub parameters: Box<[Parameter]>,
    /// Parameters of the query that are not described are refused.
    pub strict_query: bool,
    /// `None`: bodies are not looked at.
    pub body: Option<Body>,
    /// Nobody is refused.
    pub shadow: bool,
}

/// Parameters that take time to check ([`schema::Schema::is_slow`]): which they are, and what they
/// may stand for.
pub type Slow = Vec<(usize, Vec<Value>)>;

impl Validation {
    /// The first thing that is wrong with the parameters, but for those that take time.
    pub fn parameters(&self, asked: Asked<'_>) -> Result<Slow, Refused> {
        let refused = |fault| (refusal::VALIDATE_PARAMETER, fault);
        let mut slow = Slow::new();
        for (at, parameter) in self.parameters.iter().enumerate() {
            let readings = parameter.readings(asked).map_err(refused)?;
            if parameter.schema.is_slow() && !readings.is_empty() {
                slow.push((at, readings));
            } else {
                parameter.check(&readings).map_err(refused)?;
            }
        }
        if self.strict_query {
            let query = asked.view.query.unwrap_or_default();
            for (name, _) in pairs::parameters(query) {
                let name = pairs::decoded(name);
                if !self.parameters.iter().any(|parameter| parameter.takes(&name)) {
                    let name = String::from_utf8_lossy(&name);
                    let what = "is not described";
                    return Err(refused(Fault::in_parameter(Location::Query, &name, "", what)));
                }
            }
        }
        Ok(slow)
    }

    /// The first thing that is wrong with those that take time.
    pub fn slow(&self, slow: &Slow) -> Result<(), Refused> {
        for (at, readings) in slow {
            if let Some(parameter) = self.parameters.get(*at) {
                let refused = |fault| (refusal::VALIDATE_PARAMETER, fault);
                parameter.check(readings).map_err(refused)?;
            }
        }
        Ok(())
    }
}
