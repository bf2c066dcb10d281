//! `[rate_limits.NAME]` as written, see [`super`].

use crate::{
    config::{
        decode::At,
        values::{HeaderName, LimitKey, Name, Rate, Ratio},
    },
    policy::limit::{KeyPart, fleet::Fallback},
    section,
};

section! {
    /// How many requests of one key may pass. A route names the limits that apply to it
    /// (`rate_limits = ["NAME"]`). See docs/rate-limits.md.
    pub struct RateLimit {
        /// So many requests in so much time: `"100/s"`, `"1000/m"`, `"50/10s"`, `"10000/h"` or
        /// `"100000/d"`. They come back one by one.
        rate: Rate, eg "\"100/s\"";
        /// So many at once, of a key that made none for a while. Default: the number in `rate`.
        burst: Option<u32> = None => Some(1)..=Some(1_000_000_000), eg "200";
        /// Further rates, all of which must have room too. At most three.
        windows: Vec<At<RateWindow>> = Vec::new(),
            eg "[{ rate = \"10000/h\", burst = 2000 }]";
        /// What is counted by: `"client"` (its address; IPv6 by /64), `"consumer"`, `"subject"`,
        /// `"claim:NAME"`, `"header:NAME"`, `"query:NAME"`, `"cookie:NAME"`, `"route"` or `"host"`;
        /// several together in an array. Requests that lack a part are counted as one. A limit with
        /// a part that only a verified identity has applies after authorisation, others before
        /// authentication.
        key: LimitKey = LimitKey(vec![KeyPart::Client]);
        /// How many a request counts for.
        cost: u32 = 1 => 1..=1_000_000;
        /// A response of the upstream with this field says how many the request counted for in the
        /// end, a whole number. What is beyond `cost` is taken then, and counts against later
        /// requests where the bucket does not have it; what is less is given back. The response is
        /// looked at as the client gets it.
        cost_from: Option<HeaderName> = None, eg "\"X-Cost\"";
        /// Whom it does not apply to: addresses and networks of clients, and values of the key.
        exempt: Vec<At<String>> = Vec::new(), eg "[\"10.0.0.0/8\", \"internal\"]";
        /// All gateways that share this limit, by its name, in the server `[redis.NAME]` let pass
        /// together what it allows. Default: each process by itself. See docs/fleet-limits.md.
        shared: Option<Name> = None, eg "\"fleet\"";
        /// While that server does not answer: with `"local"` each process lets pass its
        /// `fallback_share` of the limit, with `"allow"` every request passes, with `"refuse"` none
        /// does.
        fallback: Fallback = Fallback::Local;
        /// This part of rate and burst, from 0.01 to 1: of three processes that get as much each,
        /// 0.34.
        fallback_share: Ratio = Ratio(1.0);
        /// Only count what it would refuse, and let it pass.
        shadow: bool = false;
        /// Keys that are remembered, shared out evenly among the workers; those that are idle are
        /// forgotten. When there are more, those go that have used least, and are counted.
        keys_max: u32 = 1_000_000 => 1000..=100_000_000;
        /// Tell clients in every response what is left (RateLimit and RateLimit-Policy). A response
        /// that refuses says so in any case.
        fields: bool = true;
        /// Tell them in X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset too.
        x_fields: bool = false;
    }

    /// A further rate of a limit.
    pub struct RateWindow {
        /// As in the limit.
        rate: Rate, eg "\"100/s\"";
        /// As in the limit.
        burst: Option<u32> = None => Some(1)..=Some(1_000_000_000), eg "200";
    }
}
