//! `[quotas.NAME]` and `[quota_store]` as written, see [`super`].

use crate::{
    config::{
        decode::At,
        units::{Millis, minutes, seconds},
        values::{Amount, HeaderName, LimitKey, UtcOffset},
    },
    policy::limit::KeyPart,
    section,
};

section! {
    /// How much one key may use in an hour, a day, a week or a month of the calendar. A route or a
    /// plan names the quotas that apply (`quotas = ["NAME"]`). No rate limit has the same name. See
    /// docs/quotas.md.
    pub struct Quota {
        /// So many requests in each period: `"1000/hour"`, `"10000/day"`, `"50000/week"` (from
        /// Monday) or `"100000/month"`. They come back all at once, when the next one begins.
        amount: Amount, eg "\"100000/month\"";
        /// How far the clock is ahead of UTC by which periods begin.
        offset: UtcOffset = UtcOffset::default(), eg "\"+01:00\"";
        /// What is counted by, as in `rate_limits.key`.
        key: LimitKey = LimitKey(vec![KeyPart::Client]);
        /// How many a request counts for.
        cost: u32 = 1 => 1..=1_000_000;
        /// A response of the upstream with this field says how many the request counted for in the
        /// end, a whole number, as in `rate_limits.cost_from`. For routes, not for plans.
        cost_from: Option<HeaderName> = None, eg "\"X-Cost\"";
        /// Whom it does not apply to: addresses and networks of clients, and values of the key.
        exempt: Vec<At<String>> = Vec::new(), eg "[\"10.0.0.0/8\", \"internal\"]";
        /// Only count what it would refuse, and let it pass.
        shadow: bool = false;
        /// Keys that are remembered, shared out evenly among the workers. When there are more,
        /// those go that have used least, and are counted.
        keys_max: u32 = 1_000_000 => 1000..=10_000_000;
        /// Tell clients in every response what is left (RateLimit and RateLimit-Policy). A response
        /// that refuses says so in any case.
        fields: bool = true;
        /// Tell them in X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset too.
        x_fields: bool = false;
    }

    /// Where it is kept what was used of quotas, over restarts and upgrades. Fixed at start. See
    /// docs/quotas.md.
    pub struct QuotaStore {
        /// A folder for files of this gateway alone, relative to this configuration; it is made if
        /// need be. Without one, quotas are as good as new after a restart.
        folder: Option<String> = None, eg "\"/var/lib/ringway/quotas\"";
        /// How often it is written. What was used since the last time is forgotten when the process
        /// is killed, or the machine fails; when it ends in order, nothing is.
        save_every: Millis = seconds(5) => seconds(1)..=minutes(60);
    }
}
