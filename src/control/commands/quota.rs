//! `ringway quota`: what was used of quotas, and to say that it is another amount.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{
    Where,
    call::{Answer, query, segment},
    failed,
    table::{Align, count, span, table},
};
use crate::control::{cli::print, history::unix_now};

pub const HELP: &str = "\
KEY is what the quota counts by: a consumer's name where that is `key = \"consumer\"`,
an address where it is \"client\"; where it counts by several, one after the other.
What is set holds for the period that goes on.

Examples:
  ringway quota                              every quota
  ringway quota monthly alice                what alice has used of it
  ringway quota monthly alice --reset        she has used nothing
  ringway quota monthly alice --used 9000    she has used so much";

#[derive(Debug, Args)]
pub struct Quota {
    /// The quota's name.
    #[arg(requires = "key")]
    name: Option<String>,
    /// Whose: a value for each part of the quota's key.
    key: Vec<String>,
    /// Say that this key has used so much.
    #[arg(long, value_name = "N", requires = "name")]
    used: Option<u32>,
    /// Say that it has used nothing.
    #[arg(long, requires = "name", conflicts_with = "used")]
    reset: bool,
    #[command(flatten)]
    gateway: Where,
}

impl Quota {
    pub fn run(&self) -> ExitCode {
        let Some(name) = &self.name else {
            return told(self.gateway.call("GET", "/quotas", None), all);
        };
        let keys: Vec<String> = self.key.iter().map(|key| query("key", key)).collect();
        let path = format!("/quotas/{}?{}", segment(name), keys.join("&"));
        let answer = match (self.used, self.reset) {
            (Some(used), _) => self.gateway.call("PUT", &path, Some(&json!({ "used": used }))),
            (None, true) => self.gateway.call("DELETE", &path, None),
            (None, false) => self.gateway.call("GET", &path, None),
        };
        told(answer, one)
    }
}

fn told(answer: Result<Answer, String>, text: impl Fn(&Value) -> String) -> ExitCode {
    match answer {
        Ok(answer) if answer.is_success() => match answer.json::<Value>() {
            Ok(now) => print(&text(&now)),
            Err(e) => failed(&e),
        },
        Ok(answer) => failed(&answer.problem()),
        Err(e) => failed(&e),
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

fn words(value: &Value) -> String {
    let words = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(" ")
}

fn left(value: &Value) -> String {
    span(number(value, "end").saturating_sub(unix_now()))
}

fn one(now: &Value) -> String {
    format!(
        "{} of {}: {} used, {} left of {}, back in {}\n",
        now["quota"].as_str().unwrap_or_default(),
        words(&now["key"]),
        count(number(now, "used")),
        count(number(now, "left")),
        count(number(now, "amount")),
        left(now)
    )
}

fn all(now: &Value) -> String {
    let quotas = now["quotas"].as_array().map(Vec::as_slice).unwrap_or_default();
    if quotas.is_empty() {
        return "the configuration has no quotas\n".to_owned();
    }
    let columns = [
        ("QUOTA", Align::Left),
        ("AMOUNT", Align::Right),
        ("PER", Align::Left),
        ("BY", Align::Left),
        ("KEYS", Align::Right),
        ("USED", Align::Right),
        ("BACK IN", Align::Right),
    ];
    let row = |quota: &Value| {
        vec![
            quota["name"].as_str().unwrap_or_default().to_owned(),
            count(number(quota, "amount")),
            quota["per"].as_str().unwrap_or_default().to_owned(),
            words(&quota["key"]),
            count(number(quota, "keys")),
            count(number(quota, "used")),
            left(quota),
        ]
    };
    table(&columns, &quotas.iter().map(row).collect::<Vec<_>>())
}
